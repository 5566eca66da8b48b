"""A scenario: who is there, what they have and want, over which links, what goes wrong, and what it must come to.

Plain data, with units in the names; `simnet.scenario_files` reads it from TOML, `simnet.stage` builds a world of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from enticed.core.orders import Priority
from protocol.errors import LocalError
from protocol.limits import KIB, MIB, PIECES_WANTED, WINDOW_MAX_SIZE_BYTES, WINDOW_MIN_SIZE_BYTES
from simnet.faults import Mishap

BYTES_PER_MBIT = 125_000
RACKS_LEAST = 4
"""A swarm that is made smaller keeps so many racks, by making these smaller too."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """`size_mib`: its data. `piece_mib`: 0 for what a publisher would choose. Its last `new_percent` are not in its
    `relative`, another image of the scenario."""

    name: str
    size_mib: int
    piece_mib: int = 0
    fragment_kib: int = 128
    relative: str = ""
    new_percent: float = 100.0

    @property
    def piece_bytes(self) -> int:
        if self.piece_mib:
            return self.piece_mib * MIB
        window = WINDOW_MAX_SIZE_BYTES
        while window > WINDOW_MIN_SIZE_BYTES and self.size_mib * MIB // window < PIECES_WANTED:
            window //= 2
        return window

    @property
    def pieces(self) -> int:
        return self.size_mib * MIB // self.piece_bytes

    @property
    def size_bytes(self) -> int:
        """In whole pieces."""
        return self.pieces * self.piece_bytes

    @property
    def shared_pieces(self) -> int:
        return round(self.pieces * (1 - self.new_percent / 100)) if self.relative else 0


@dataclass(frozen=True, slots=True)
class Network:
    """Every host's link, how racks and zones are laid out, and the uplinks of the racks: `rack_oversubscription` times
    less than what all hosts of a rack could send. `rack_hosts`: 0 for no racks; `zone_racks`: 0 for one zone."""

    up_mbit_per_s: float = 1000.0
    down_mbit_per_s: float = 1000.0
    latency_ms: float = 0.5
    rack_hosts: int = 0
    rack_oversubscription: float = 1.0
    zone_racks: int = 0

    @property
    def uplink_bytes_per_s(self) -> float:
        """A rack's, each way; 0 where there are no racks."""
        return self.rack_hosts * self.up_mbit_per_s * BYTES_PER_MBIT / self.rack_oversubscription


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts that are alike. Either `hosts` of them, beside those that the scenario counts and in a rack of their own;
    or `percent` of those that it counts, here and there. Links are the network's where they are not given."""

    name: str
    hosts: int | None = None
    percent: float | None = None
    has: tuple[str, ...] = ()
    up_mbit_per_s: float | None = None
    down_mbit_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """Every host of the group `who` orders the image, at a moment of its own from `from_s` on for `over_s`; and cancels
    that, ready or not, after `cancel_after_s`."""

    who: str
    image: str
    from_s: float = 0.0
    over_s: float = 0.0
    due_in_s: float | None = None
    priority: Priority = Priority.BOOT
    cancel_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReaderSpec:
    """On every host of the group somebody reads `fragments` here and there in the image, before it is whole, and waits
    `within_s` for them."""

    who: str
    image: str
    from_s: float = 0.0
    over_s: float = 0.0
    fragments: int = 8
    within_s: float = 10.0


@dataclass(frozen=True, slots=True)
class OriginSpec:
    """A bucket or web server that has these images, and what it sends at most."""

    has: tuple[str, ...]
    mbit_per_s: float = 1000.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`goals`: for figures of the outcome, the most that they may come to. `compare_without_faults`: the same is run
    without faults before, and the outcome says how much longer it took with them. `limit_s`: of simulated time."""

    name: str
    about: str
    hosts: int
    images: tuple[ImageSpec, ...]
    groups: tuple[Group, ...]
    orders: tuple[OrderSpec, ...]
    network: Network = field(default_factory=Network)
    readers: tuple[ReaderSpec, ...] = ()
    origin: OriginSpec | None = None
    faults: tuple[Mishap, ...] = ()
    goals: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1
    limit_s: float = 3600.0
    compare_without_faults: bool = False

    def __post_init__(self) -> None:
        """`LocalError` where it contradicts itself."""
        for problem in self._problems():
            raise LocalError(f"scenario {self.name}: {problem}")

    @property
    def all_hosts(self) -> int:
        """With those of the groups that it does not count."""
        return self.hosts + sum(group.hosts or 0 for group in self.groups)

    def image(self, name: str) -> ImageSpec:
        return next(image for image in self.images if image.name == name)

    def resized(self, hosts: int | None, size_mib: int | None, seed: int | None) -> Scenario:
        """The same with another number of hosts, with images of another size, with other dice."""
        smaller = self
        if hosts is not None:
            rack_hosts = min(self.network.rack_hosts, max(1, hosts // RACKS_LEAST))
            smaller = replace(smaller, hosts=hosts, network=replace(self.network, rack_hosts=rack_hosts))
        if size_mib is not None:
            smaller = replace(smaller, images=tuple(replace(image, size_mib=size_mib) for image in self.images))
        return smaller if seed is None else replace(smaller, seed=seed)

    def _problems(self) -> Iterator[str]:
        images, groups = {image.name for image in self.images}, {group.name for group in self.groups}
        if len(images) < len(self.images) or len(groups) < len(self.groups):
            yield "two images or two groups have one name"
        for image in self.images:
            if image.piece_bytes % (image.fragment_kib * KIB):
                yield f"a piece of image {image.name} is not a number of whole fragments"
            if image.size_mib < 0 or not 0 <= image.new_percent <= 100:
                yield f"image {image.name} has a size or a percentage that cannot be"
        named = {name for group in self.groups for name in group.has} | {order.image for order in self.orders}
        named |= {reader.image for reader in self.readers} | set(self.origin.has if self.origin else ())
        for name in sorted(named | {image.relative for image in self.images if image.relative} - images):
            if name not in images:
                yield f"no image is called {name!r}"
        whom = [order.who for order in self.orders] + [reader.who for reader in self.readers]
        whom += [fault.whom for fault in self.faults if fault.whom]
        for name in whom:
            if name not in groups:
                yield f"no group is called {name!r}"
        for group in self.groups:
            if (group.hosts is None) == (group.percent is None):
                yield f"group {group.name} needs hosts or percent, and not both"
        if self.network.rack_oversubscription < 1:
            yield "network.rack_oversubscription is at least 1"
        percent = sum(group.percent for group in self.groups if group.percent is not None)
        if self.hosts and round(percent, 6) != 100:
            yield f"its groups have {percent:g} percent of its hosts"
