"""A scenario: who is there, what they have and want, over which links, what goes wrong, and what it must come to.

Plain data, with units in the names; `simnet.scenario_files` reads it from TOML, `simnet.stage` builds a world of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from enticed.core.orders import Priority
from enticed.limits import SIMULATED_FRAGMENTS_MAX_COUNT, SIMULATED_LINKS_RATIO_MAX
from protocol.errors import LocalError
from protocol.limits import (
    IMAGE_MAX_PIECES,
    KIB,
    MIB,
    PIECES_WANTED,
    WINDOW_MAX_SIZE_BYTES,
    WINDOW_MIN_SIZE_BYTES,
)
from simnet.faults import Mishap

BYTES_PER_MBIT = 125_000
FRAGMENT_KIB = 128
"""As publishers cut them."""
RACKS_LEAST = 4
"""A swarm that is made smaller keeps so many racks, by making these smaller too."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """`size_mib`: its data. `piece_mib`: 0 for what a publisher would choose. Its last `new_percent` are not in its
    `relative`, an image of the scenario that stands before it."""

    name: str
    size_mib: int
    piece_mib: int = 0
    fragment_kib: int = FRAGMENT_KIB
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
    def fragments(self) -> int:
        return self.size_bytes // (self.fragment_kib * KIB)

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

    @property
    def sizes(self) -> dict[str, int]:
        """How many hosts each group has. Those by percent take of what the ones before have left."""
        sizes, left = {}, self.hosts
        for group in self.groups:
            if group.percent is None:
                sizes[group.name] = group.hosts or 0
            else:
                sizes[group.name] = min(round(self.hosts * group.percent / 100), left)
                left -= sizes[group.name]
        return sizes

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
        """The first counts: each looks at what those before it have left."""
        yield from self._problems_of_names()
        yield from self._problems_of_images()
        yield from self._problems_of_hosts()

    def _problems_of_names(self) -> Iterator[str]:
        images, groups = {image.name for image in self.images}, {group.name for group in self.groups}
        if len(images) < len(self.images) or len(groups) < len(self.groups):
            yield "two images or two groups have one name"
        if "" in images | groups:
            yield "an image or a group has an empty name"
        for where, name in self._images_named():
            if name not in images:
                yield f"{where}: no image is called {name!r}"
        whom = [(f"orders[{number}].who", order.who) for number, order in enumerate(self.orders)]
        whom += [(f"readers[{number}].who", reader.who) for number, reader in enumerate(self.readers)]
        whom += [(f"faults[{number}].whom", fault.whom) for number, fault in enumerate(self.faults) if fault.whom]
        for where, name in whom:
            if name not in groups:
                yield f"{where}: no group is called {name!r}"

    def _images_named(self) -> Iterator[tuple[str, str]]:
        """Where an image is named, and which."""
        for number, image in enumerate(self.images):
            if image.relative:
                yield f"images[{number}].relative", image.relative
        for number, group in enumerate(self.groups):
            yield from ((f"groups[{number}].has", name) for name in group.has)
        for number, order in enumerate(self.orders):
            yield f"orders[{number}].image", order.image
        for number, reader in enumerate(self.readers):
            yield f"readers[{number}].image", reader.image
        if self.origin is not None:
            yield from (("origin.has", name) for name in self.origin.has)

    def _problems_of_images(self) -> Iterator[str]:
        before: dict[str, ImageSpec] = {}
        for number, image in enumerate(self.images):
            where = f"images[{number}]"
            if image.piece_bytes % (image.fragment_kib * KIB):
                yield f"{where}.fragment_kib: a piece is not a number of whole fragments of {image.fragment_kib} KiB"
            if image.piece_mib > image.size_mib:
                yield f"{where}.piece_mib is at most its size_mib, {image.size_mib}, not {image.piece_mib}"
            if image.pieces > IMAGE_MAX_PIECES:
                yield f"{where}.piece_mib: {image.pieces:,} pieces are more than {IMAGE_MAX_PIECES:,}"
            if image.relative and image.relative not in before:
                yield f"{where}.relative: image {image.relative!r} has to stand before it"
            if image.shared_pieces:
                relative = before[image.relative]
                if (image.piece_bytes, image.fragment_kib) != (relative.piece_bytes, relative.fragment_kib):
                    yield f"{where}.relative: both need pieces and fragments of one size: set piece_mib, fragment_kib"
                if image.shared_pieces > relative.pieces:
                    least = 100 * (1 - relative.pieces / image.pieces)
                    yield f"{where}.new_percent is at least {least:g}: {relative.name!r} has no more to share"
            before[image.name] = image

    @property
    def _links_mbit_per_s(self) -> list[float]:
        """Of hosts and origin, each way."""
        links = [self.network.up_mbit_per_s, self.network.down_mbit_per_s]
        links += [link for group in self.groups for link in (group.up_mbit_per_s, group.down_mbit_per_s) if link]
        return links if self.origin is None else [*links, self.origin.mbit_per_s]

    def _problems_of_hosts(self) -> Iterator[str]:
        for number, group in enumerate(self.groups):
            if (group.hosts is None) == (group.percent is None):
                yield f"groups[{number}] needs hosts or percent, and not both"
        percent = sum(group.percent for group in self.groups if group.percent is not None)
        if self.hosts and round(percent, 6) != 100:
            yield f"its groups have {percent:g} percent of its hosts; together they need 100"
        whose = {order.who for order in self.orders}
        if not any(size for name, size in self.sizes.items() if name in whose):
            yield "orders: nobody orders anything" + (", since their groups have no hosts" if whose else "")
        for number, order in enumerate(self.orders):
            if order.from_s + order.over_s > self.limit_s:
                yield f"orders[{number}]: from_s and over_s come to more than limit_s, {self.limit_s:g}"
        links = self._links_mbit_per_s
        if max(links) > SIMULATED_LINKS_RATIO_MAX * min(links):
            yield f"network: no link may be more than {SIMULATED_LINKS_RATIO_MAX:,} times as fast as another"
        fragments = self.all_hosts * sum(image.fragments for image in self.images)
        if fragments > SIMULATED_FRAGMENTS_MAX_COUNT:
            most = SIMULATED_FRAGMENTS_MAX_COUNT
            yield f"its hosts have {fragments:,} fragments, and no more than {most:,} are simulated"
