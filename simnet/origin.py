"""A simulated origin: an object store behind a link of its own, with a connection for each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from enticed.core import events as ev
from enticed.core.vocabulary import ORIGIN, Fault
from protocol.identifiers import ImageId
from simnet.images import SimImage
from simnet.network import Link

if TYPE_CHECKING:
    from simnet.host import SimHost
    from simnet.transfers import Job


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
    _port: int | None = None

    def fetch(self, host: SimHost, job: Job) -> None:
        self.asked += 1
        if self.fails:
            host.after(2 * self.link.latency_s, partial(self._fail, host, job))
            return
        network = host.world.network
        if self._port is None:
            self._port = network.port("", "of the origin")
        network.set_link(self._port, self.link.bytes_per_s, self.link.down)
        network.send(self._port, host.plug_in(), job.size_bytes, partial(self._carried, host, job), job.effect.request)

    def withdraw(self, host: SimHost, job: Job) -> None:
        """Its connection is closed: what was not sent never is."""
        if self._port is not None:
            self.sent_bytes += host.world.network.drop(self._port, host.port, job.effect.request)

    def manifest(self, image: SimImage) -> ev.ManifestFetched | ev.ManifestFailed:
        self.asked += 1
        if self.fails:
            return ev.ManifestFailed(image.image, ORIGIN, Fault.LOST, "HTTP status 503")
        if image.image not in self.has:
            return ev.ManifestFailed(image.image, ORIGIN, Fault.REFUSED, "no such object")
        return ev.ManifestFetched(image.image, image.data_bytes)

    def _carried(self, host: SimHost, job: Job) -> None:
        self.sent_bytes += job.size_bytes
        host.after(2 * self.link.latency_s, partial(self._fail if self.fails else self._deliver, host, job))

    def _deliver(self, host: SimHost, job: Job) -> None:
        request, first = job.effect.request, job.effect.wanted.first
        if self.corrupts:
            wrong = ev.FetchFailed(request, Fault.CORRUPT, f"fragment {first} is corrupt", fragment=first)
            host.transfers.settle(job, wrong)
        elif not job.is_abandoned:
            host.transfers.land(job)

    def _fail(self, host: SimHost, job: Job) -> None:
        host.transfers.settle(job, ev.FetchFailed(job.effect.request, Fault.LOST, "HTTP status 503"))
