"""The request book: what was asked of whom and has not come yet. Bookkeeping; nothing is sent here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, KeysView
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

import numpy as np
from numpy.typing import NDArray

from enticed.core.counting import take_off
from enticed.core.policy import Policy
from enticed.core.vocabulary import ORIGIN, Mask
from protocol.identifiers import ImageId, NodeId
from protocol.limits import REQUEST_MAX_FRAGMENTS
from protocol.messages import FragmentsRequest


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent missing fragments of one piece: what one request asks for."""

    image: ImageId
    piece: int
    first: int
    count: int
    size_bytes: int
    since: float
    """When it was first ready to be asked for."""
    located: int = 0
    """How many relatives of the image were known when it was last looked for in them."""
    elsewhere: FragmentsRequest | None = None
    """The same fragments in a relative: what to ask of a host that has that."""
    for_reader: bool = False
    """Fetched for a reader alone: its piece is not at work for that."""

    @property
    def request(self) -> FragmentsRequest:
        return FragmentsRequest(self.image, self.piece, self.first, self.count)

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.count)


def cut_runs(
    image: ImageId, piece: int, sizes_bytes: NDArray[np.int32], missing: Mask, most_bytes: int, now: float
) -> list[Run]:
    """The missing fragments of a piece as runs of at most `most_bytes` (a longer fragment alone) each."""
    runs: list[Run] = []
    indices = missing.nonzero()[0]
    sizes = sizes_bytes[indices].tolist()
    first = size_bytes = length = 0
    for index, fragment_bytes in zip(indices.tolist(), sizes, strict=True):
        adjacent = length and index == first + length
        if adjacent and size_bytes + fragment_bytes <= most_bytes and length < REQUEST_MAX_FRAGMENTS:
            size_bytes, length = size_bytes + fragment_bytes, length + 1
            continue
        if length:
            runs.append(Run(image, piece, first, length, size_bytes, now))
        first, size_bytes, length = index, fragment_bytes, 1
    if length:
        runs.append(Run(image, piece, first, length, size_bytes, now))
    return runs


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is under way."""

    number: int
    node: NodeId
    run: Run
    wanted: FragmentsRequest
    """What was asked for: the run itself, or the same fragments in a relative."""
    at: float
    expires_at: float
    hedge: bool
    """Asked of a second peer as well; the first answer counts."""


class RequestBook:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._numbers = count(1)
        self._asked: dict[int, Asked] = {}
        self._of_image: dict[ImageId, dict[int, Asked]] = {}
        self._bytes_of: Counter[ImageId] = Counter()
        """What is in flight of each image."""
        self._of_source: Counter[NodeId] = Counter()
        """How many requests each host has that has any."""
        self._expiries: list[tuple[float, int]] = []
        """A heap, in which requests that were closed stay until they are on top."""
        self._seconds: deque[float] = deque(maxlen=64)
        self.in_flight_bytes = 0
        self.most_bytes = policy.in_flight_bytes
        """What may be in flight."""
        self._hedges = 0
        self._plenty_bytes = policy.plenty_bytes

    def limit(self, bytes_per_s: float | None) -> None:
        """No more can come than this: what is asked for beyond it would only wait, and be given up."""
        policy = self._policy
        most_bytes = policy.in_flight_bytes if bytes_per_s is None else int(bytes_per_s * policy.in_flight_s)
        self.most_bytes = max(policy.request_bytes, min(policy.in_flight_bytes, most_bytes))

    @property
    def has_plenty(self) -> bool:
        """Whether so much is under way that nothing has to be asked for at once."""
        return self.in_flight_bytes >= self._plenty_bytes

    def has_plenty_of(self, image: ImageId) -> bool:
        """Whether so much of this image is."""
        return self._bytes_of[image] >= self._plenty_bytes

    @property
    def sources(self) -> KeysView[NodeId]:
        """Who is asked for anything just now."""
        return self._of_source.keys()

    def comes_at(self, bytes_per_s: float) -> None:
        """So fast everything comes now: how much is plenty goes by that."""
        policy = self._policy
        self._plenty_bytes = min(policy.plenty_bytes, max(policy.request_bytes, int(bytes_per_s * policy.plenty_s)))

    def __iter__(self) -> Iterator[Asked]:
        return iter(self._asked.values())

    def __len__(self) -> int:
        return len(self._asked)

    def ask(
        self, node: NodeId, run: Run, wanted: FragmentsRequest, ahead_bytes: int, now: float, *, hedge: bool = False
    ) -> Asked:
        """Enter a request; `ahead_bytes` is what the peer has yet to send before it, which gives it more time."""
        policy = self._policy
        slowest = policy.origin_slowest_bytes_per_s if node == ORIGIN else policy.request_slowest_bytes_per_s
        patience_s = policy.request_timeout_s + (ahead_bytes + run.size_bytes) / slowest
        asked = Asked(next(self._numbers), node, run, wanted, now, now + patience_s, hedge)
        self._asked[asked.number] = asked
        self._of_image.setdefault(run.image, {})[asked.number] = asked
        self._of_source[node] += 1
        heappush(self._expiries, (asked.expires_at, asked.number))
        self.in_flight_bytes += run.size_bytes
        self._bytes_of[run.image] += run.size_bytes
        self._hedges += hedge
        return asked

    def close(self, number: int) -> Asked | None:
        """Take a request out, whatever became of it; None where it was taken out before."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            of_image = self._of_image[asked.run.image]
            del of_image[number]
            if not of_image:
                del self._of_image[asked.run.image]
            take_off(self._of_source, asked.node)
            take_off(self._bytes_of, asked.run.image, asked.run.size_bytes)
            self.in_flight_bytes -= asked.run.size_bytes
            self._hedges -= asked.hedge
        return asked

    def timed(self, asked: Asked, now: float) -> None:
        """Remember how long a request that was answered took."""
        self._seconds.append(now - asked.at)

    def of_node(self, node: NodeId) -> list[Asked]:
        return [asked for asked in self._asked.values() if asked.node == node]

    def of_image(self, image: ImageId) -> list[Asked]:
        return list(self._of_image.get(image, {}).values())

    def has_any_of(self, image: ImageId) -> bool:
        return image in self._of_image

    def twins(self, asked: Asked) -> list[Asked]:
        """The other request for the very run of one that was closed, where it was hedged."""
        if not self._hedges and not asked.hedge:
            return []
        return [other for other in self._of_image.get(asked.run.image, {}).values() if other.run is asked.run]

    def overdue(self, now: float) -> list[Asked]:
        earliest = self.next_deadline()
        if earliest is None or now < earliest:
            return []
        return [asked for asked in self._asked.values() if now >= asked.expires_at]

    @property
    def slow_after_s(self) -> float:
        """After how long a request is worth asking a second peer for."""
        usual_s = sorted(self._seconds)[len(self._seconds) // 2] if self._seconds else self._policy.request_timeout_s
        return max(self._policy.hedge_after_s, self._policy.hedge_factor * usual_s)

    @property
    def stalled_after_s(self) -> float:
        """How long a peer that owes an answer and gives none is worth waiting for."""
        return min(self._policy.stall_s, self.slow_after_s)

    def next_deadline(self) -> float | None:
        while self._expiries and self._expiries[0][1] not in self._asked:
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None
