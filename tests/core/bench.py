"""A host on the bench: told events by hand, its effects looked at one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.bitmaps import pack_bitmap
from enticed.core.host import Host
from enticed.core.orders import Order, Priority
from enticed.core.policy import Policy
from protocol import messages as ms
from protocol.identifiers import ImageId, NodeId
from protocol.limits import MIB
from simnet.book_checks import wrong_books
from tests.core.chaos import contact, node

IMAGE = ImageId.of(b"image")
OTHER = ImageId.of(b"other")
GENEROUS = Policy(
    ahead_bytes=64 * MIB,
    ahead_first_bytes=64 * MIB,
    peer_in_flight_bytes=64 * MIB,
    peer_in_flight_least_bytes=64 * MIB,
)
E = TypeVar("E")


class Bench:
    """`tell` keeps what came of it in `done`. Pieces are of 1 MiB, in 4 fragments; what one peer may have in flight,
    and what is opened ahead, is not limited unless `terms` of the policy say so."""

    has_origin = False

    def __init__(self, **terms: object) -> None:
        self.now = 1000.0
        policy = replace(GENEROUS, **terms)  # type: ignore[arg-type]
        self.host = Host(contact(0), np.random.default_rng(1), policy, has_origin=self.has_origin)
        self.done: list[ef.Effect] = []

    def tell(self, event: ev.Event) -> list[ef.Effect]:
        self.done = self.host.handle(event, self.now)
        wrong = list(wrong_books(self.host.books))
        assert not wrong, wrong
        return self.done

    def hear(self, number: int, message: ms.Control) -> list[ef.Effect]:
        return self.tell(ev.Heard(node(number), message))

    def wait(self, seconds: float) -> list[ef.Effect]:
        """Let time pass, waking the host whenever it asked for it; all that came of it."""
        end, came = self.now + seconds, []
        while (deadline := self.host.next_deadline(self.now)) is not None and deadline <= end:
            self.now = deadline
            came += self.tell(ev.Woken())
        self.now = end
        self.done = came
        return came

    def all(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.done if isinstance(effect, kind)]

    def one(self, kind: type[E]) -> E:
        (effect,) = self.all(kind)
        return effect

    def said(self, number: int) -> list[ms.Control]:
        return [effect.message for effect in self.all(ef.Say) if effect.node == node(number)]

    def state(self, key: str = "order") -> str:
        order = self.host.order(key)
        assert order is not None
        return str(order.state)

    # --- shortcuts ---

    def order(self, key: str = "order", image: ImageId = IMAGE, priority: Priority = Priority.BOOT) -> None:
        """Place an order and let its target be resolved."""
        self.tell(ev.OrderPlaced(Order(key, image.hex(), self.now, priority=priority)))
        self.tell(ev.TargetResolved(key, image.hex(), image))

    def meet(self, *numbers: int) -> None:
        for number in numbers:
            self.tell(ev.PeerUp(contact(number)))

    def has(self, number: int, held: list[int] | None = None, pieces: int = 4, image: ImageId = IMAGE) -> None:
        """Peer `number` says which pieces it has; None: all."""
        mask = np.ones(pieces, np.bool_) if held is None else np.isin(np.arange(pieces), held)
        self.hear(number, ms.HaveMap(image, pieces, pack_bitmap(mask)))

    def fetching(
        self,
        pieces: int = 4,
        missing: list[int] | None = None,
        durable: list[int] | None = None,
        priority: Priority = Priority.BOOT,
    ) -> None:
        """Take an order to where it fetches; peer 1, in another rack, has all of the image."""
        self.order(priority=priority)
        self.meet(1)
        self.has(1, pieces=pieces)
        self.tell(ev.ManifestFetched(IMAGE, sizes(pieces)))
        lacks = np.ones(pieces, np.bool_) if missing is None else np.isin(np.arange(pieces), missing)
        here = np.isin(np.arange(pieces), durable or [])
        self.tell(ev.SpaceReserved(IMAGE, here, np.where(lacks, sizes(pieces), 0)))

    def open(self, piece: int, image: ImageId = IMAGE, missing: list[int] | None = None) -> list[ef.Effect]:
        lacks = np.ones(4, np.bool_) if missing is None else np.isin(np.arange(4), missing)
        return self.tell(ev.PieceOpened(image, piece, np.full(4, MIB // 4, np.int32), lacks))

    def open_all(self) -> list[ef.Fetch]:
        """Open every piece that is to be opened, until no more is; the requests that come of it."""
        fetches: list[ef.Fetch] = []
        while opening := [(pull.image, piece) for pull in self.host.books.pulls.values() for piece in pull.opening]:
            for image, piece in opening:
                self.open(piece, image)
                fetches += self.all(ef.Fetch)
        return fetches

    def deliver(self, fetches: list[ef.Fetch]) -> None:
        for fetch in fetches:
            self.tell(ev.Fetched(fetch.request))

    def published(self, pieces: int = 4, image: ImageId = IMAGE) -> None:
        self.tell(ev.ImageOnHand(image, sizes(pieces), np.ones(pieces, np.bool_), True))


def sizes(pieces: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.full(pieces, MIB, np.int64)


def nodes_of(fetches: list[ef.Fetch]) -> list[NodeId]:
    return [fetch.node for fetch in fetches]
