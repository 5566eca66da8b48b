"""A simulated origin: an object store behind a link of its own, which sends one thing after another."""

from __future__ import annotations

from dataclasses import dataclass, field

from enticed.core import effects as ef
from enticed.core import events as ev
from protocol.identifiers import ImageId
from protocol.limits import MIB
from simnet.images import SimImage


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface: the same capacity both ways, and what a message takes to anywhere."""

    bytes_per_s: float = 100 * MIB
    latency_s: float = 0.0005


@dataclass
class SimOrigin:
    """It has the images in `has`."""

    link: Link = field(default_factory=Link)
    has: set[ImageId] = field(default_factory=set)
    corrupts: bool = False
    """Every fragment that it sends is wrong."""
    fails: bool = False
    """It answers every request with an error."""
    asked: int = 0
    sent_bytes: int = 0
    _sends_until: float = 0.0

    def send(self, now: float, size_bytes: int) -> float:
        """When so many bytes will have come."""
        self.asked += 1
        if self.fails:
            return now + 2 * self.link.latency_s
        self.sent_bytes += size_bytes
        self._sends_until = max(now, self._sends_until) + size_bytes / self.link.bytes_per_s
        return self._sends_until + 2 * self.link.latency_s

    def answer(self, effect: ef.Fetch) -> ev.Fetched | ev.FetchFailed:
        if self.fails:
            return ev.FetchFailed(effect.request, ev.Fault.LOST, "HTTP status 503")
        if self.corrupts:
            first = effect.wanted.first
            return ev.FetchFailed(effect.request, ev.Fault.CORRUPT, f"fragment {first} is corrupt", fragment=first)
        return ev.Fetched(effect.request)

    def manifest(self, image: SimImage) -> ev.ManifestFetched | ev.ManifestFailed:
        self.asked += 1
        if self.fails:
            return ev.ManifestFailed(image.image, ev.ORIGIN, ev.Fault.LOST, "HTTP status 503")
        if image.image not in self.has:
            return ev.ManifestFailed(image.image, ev.ORIGIN, ev.Fault.REFUSED, "no such object")
        return ev.ManifestFetched(image.image, image.data_bytes)
