"""A world that answers a host at random: anything that the contracts of events and effects allow, in any order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.bitmaps import pack_bitmap
from enticed.core.host import Host
from enticed.core.image_book import PieceState
from enticed.core.orders import Failure, Order, OrderState, Priority
from enticed.core.policy import Policy
from enticed.core.vocabulary import Contact, Fault, Span, Stretch
from protocol import messages as ms
from protocol.identifiers import ImageId, NodeId
from protocol.limits import KIB, MIB
from simnet.book_checks import wrong_books

FRAGMENT_BYTES = 256 * KIB
FRAGMENTS = 8
"""Per piece, so that a piece takes two requests."""
FAULTS = [fault for fault in Fault if fault is not Fault.LOCAL]


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(NodeId.size_bytes, "big"))


def contact(number: int) -> Contact:
    return Contact(node(number), (f"10.0.0.{number}:1",), "zone", f"rack{number % 2}")


@dataclass
class Chaos:
    """Effects that wait for an answer are kept in `pending`; `step` answers one, or lets something else happen."""

    dice: random.Random
    images: dict[ImageId, int]
    """Pieces of each."""
    host: Host
    now: float = 1_000_000.0
    pending: list[ef.Effect] = field(default_factory=list)
    tickets: set[int] = field(default_factory=set)
    sending: set[int] = field(default_factory=set)
    states: dict[ImageId, list[int]] = field(default_factory=dict)
    numbers: int = 0
    met: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    # --- the host ---

    def tell(self, event: ev.Event) -> list[ef.Effect]:
        effects = self.host.handle(event, self.now)
        wrong = list(wrong_books(self.host.books))
        assert not wrong, (event, wrong)
        deadline = self.host.next_deadline(self.now)
        assert deadline is None or self.now < deadline < math.inf
        for effect in effects:
            self._take(effect)
        self._check_moves(event)
        return effects

    def _take(self, effect: ef.Effect) -> None:
        match effect:
            case ef.GrantUpload(ticket):
                assert ticket in self.tickets
                self.sending.add(ticket)
            case ef.DeferUpload(ticket) | ef.RefuseUpload(ticket):
                self.tickets.remove(ticket)
            case ef.Abandon(request):
                fetch = next(one for one in self.pending if isinstance(one, ef.Fetch) and one.request == request)
                if self.dice.random() < 0.9:  # else it was too late: an answer comes all the same
                    self.pending.remove(fetch)
            case ef.MeetDemand(demand):
                self.met.add(demand)
            case ef.FailDemand(demand):
                self.failed.add(demand)
            case ef.OpenPiece(image) | ef.MakeDurable(image) | ef.Seal(image) | ef.Recheck(image):
                assert self.host.image(image) is not None
                self.pending.append(effect)
            case ef.Fetch(_, peer, wanted, landing):
                assert peer in self.host.peers()
                assert (wanted.count, wanted.image in self.images) == (landing.count, True)
                book = self.host.image(landing.image)
                assert book is not None
                for_reader = any(one.run.for_reader for one in self.host.books.requests if one.run.request == landing)
                assert book.state[landing.piece] == PieceState.AT_WORK or for_reader
                self.pending.append(effect)
            case ef.ForgetRelatives(image):
                self.pending = [one for one in self.pending if not self._is_learning(one, image)]
            case ef.Say() | ef.HangUp() | ef.SaveOrder() | ef.Announce() | ef.Withdraw() | ef.ForgetOrder():
                pass
            case ef.NoteDegraded(degraded):
                assert degraded == self.host.disk.degraded
            case _:
                self.pending.append(effect)

    def _check_moves(self, event: ev.Event) -> None:
        """Pieces only move along; back only as far as lost or dropped ones do, which then may be at work again."""
        for book in self.host.images():
            before = self.states.get(book.image, [])
            for old, new in zip(before, book.state.tolist(), strict=False):
                skipped = new > old + 1 and not isinstance(event, ev.SpaceReserved | ev.ImageOnHand)
                assert not skipped, f"a piece went from {old} to {new} at {event}"
            self.states[book.image] = book.state.tolist()
        for image in set(self.states) - {book.image for book in self.host.images()}:
            del self.states[image]

    # --- what may happen ---

    def step(self) -> None:
        if self.pending and self.dice.random() < 0.6:
            self.answer(self.pending.pop(self.dice.randrange(len(self.pending))), well=self.dice.random() < 0.8)
            return
        happenings: list[Callable[[], object]] = [
            self.pass_time, self.pass_time, self.pass_time, self.place, self.meet, self.meet, self.part, self.say,
            self.say, self.say, self.say, self.ask_upload, self.ask_upload, self.end_upload, self.end_upload,
        ]  # fmt: skip
        seldom: list[Callable[[], object]] = [self.cancel, self.rot, self.forget, self.publish, self.demand, self.find,
                                                  self.trouble]  # fmt: skip
        self.dice.choice(happenings if self.dice.random() < 0.9 else seldom)()

    def answer(self, effect: ef.Effect, *, well: bool) -> None:
        image: ImageId | None = getattr(effect, "image", None)
        match effect:
            case ef.ResolveTarget(key, target):
                resolved = ev.TargetResolved(key, target, ImageId.from_hex(target))
                failure = self.dice.choice((Failure.NOT_FOUND, Failure.NO_SPACE))
                self.tell(resolved if well else ev.TargetUnresolved(key, target, failure, "unknown"))
            case ef.FindProviders(sought):
                found = tuple(
                    contact(self.dice.randrange(1, 9)) for _ in range(self.dice.randrange(5) if not well else 8)
                )
                self.tell(ev.ProvidersFound(sought, found))
            case ef.Dial(to):
                if to.node not in self.host.peers():
                    self.tell(ev.PeerUp(to) if well else ev.DialFailed(to.node, "refused"))
            case ef.FetchManifest(sought, peer):
                failed = ev.ManifestFailed(sought, peer, self.dice.choice(FAULTS), "no", self.dice.random() < 0.1)
                self.tell(ev.ManifestFetched(sought, self.data_bytes(sought)) if well else failed)
            case ef.Fetch(request):
                fault = ev.FetchFailed(request, self.dice.choice(FAULTS), "no", self.dice.random(), (contact(3),))
                self.tell(ev.Fetched(request) if well else fault)
            case ef.LearnRelative(image_, relative, peer):
                self._answer_learning(image_, relative, peer, well=well)
            case ef.LocateRun(run):
                self.tell(ev.RunLocated(run.image, run, self._spans(run)))
            case ef.ProbeStore():
                self.tell(ev.StoreProbed("" if well else "no"))
            case _:
                assert image is not None
                self._answer_stock(effect, image, well=well)

    def _is_learning(self, effect: ef.Effect, image: ImageId) -> bool:
        return isinstance(effect, ef.LearnRelative) and effect.image == image

    def _answer_learning(self, image: ImageId, relative: ImageId, peer: NodeId, *, well: bool) -> None:
        shared = np.array([self.dice.choice([0, 2, FRAGMENTS]) for _ in range(self.images[image])], np.int64)
        learned = ev.RelativeLearned(image, relative, peer, self.images[relative], shared * FRAGMENT_BYTES)
        self.tell(learned if well else ev.RelativeUnlearned(image, relative, peer, "no"))

    def _spans(self, run: ms.FragmentsRequest) -> tuple[Span, ...]:
        """A run in up to two parts, each in any relative or in none."""
        others = [image for image, pieces in self.images.items() if image != run.image and pieces]
        cut = self.dice.randrange(1, run.count + 1)
        spans = []
        for first, count in ((run.first, cut), (run.first + cut, run.count - cut)):
            elsewhere = None
            kin = [one for one in others if any(one in pull.kin for pull in self.host.books.pulls.values())]
            if kin and self.dice.random() < 0.7:
                relative = self.dice.choice(kin)
                elsewhere = ms.FragmentsRequest(relative, self.dice.randrange(self.images[relative]), 0, count)
            spans.append(Span(first, count, count * FRAGMENT_BYTES, elsewhere))
        return tuple(span for span in spans if span.count)

    def _answer_stock(self, effect: ef.Effect, image: ImageId, *, well: bool) -> None:
        book = self.host.image(image)
        durable = np.zeros(self.images[image], np.bool_) if book is None else book.durable
        match effect:
            case ef.Reserve():
                on_hand = np.array([self.dice.random() < 0.2 for _ in durable], np.bool_)
                missing_bytes = np.where(on_hand, 0, self.data_bytes(image))
                relatives = tuple(other for other in self.images if other != image)
                reserved = ev.SpaceReserved(image, durable, missing_bytes, relatives)
                self.tell(reserved if well else ev.SpaceRefused(image, Failure.NO_SPACE, "full"))
            case ef.OpenPiece(_, piece):
                missing = np.array([self.dice.random() < 0.7 for _ in range(FRAGMENTS)], np.bool_)
                sizes = np.full(FRAGMENTS, FRAGMENT_BYTES, np.int32)
                opened = ev.PieceOpened(image, piece, sizes, missing)
                unopened = ev.PieceUnopened(image, piece, Failure.DISK, "bad sector")
                self.tell(opened if well or self.dice.random() < 0.8 else unopened)
            case ef.MakeDurable(_, pieces):
                self.tell(ev.Synced(image, pieces) if well else ev.SyncFailed(image, pieces, Failure.DISK, "bad disk"))
            case ef.Seal():
                found_wrong = tuple(np.flatnonzero(durable)[:2].tolist())
                unsealed = (ev.SyncFailed(image, (), Failure.DISK, "bad disk"), ev.NotSealed(image, found_wrong))
                self.tell(ev.Sealed(image) if well else self.dice.choice(unsealed))
            case ef.Recheck(_, piece):
                if not well:
                    self.tell(ev.PieceRotten(image, piece))

    def data_bytes(self, image: ImageId) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.full(self.images[image], FRAGMENTS * FRAGMENT_BYTES, np.int64)

    def pass_time(self) -> None:
        deadline = self.host.next_deadline(self.now)
        if deadline is not None and self.dice.random() < 0.5:
            self.now = deadline
        else:
            self.now += self.dice.random() ** 4 * 3
        self.tell(ev.Woken())

    def place(self) -> None:
        target = self.dice.choice([image.hex() for image in self.images])
        key = f"key{self.dice.randrange(4)}"
        due_at = self.dice.choice([None, self.now + 5, self.now + 60])
        keep_s = self.dice.choice([None, 0.5, 1000.0])
        self.tell(ev.OrderPlaced(Order(key, target, self.now, due_at, self.dice.choice(list(Priority)), keep_s)))

    def trouble(self) -> None:
        self.tell(ev.StoreTroubled("orders cannot be saved"))

    def cancel(self) -> None:
        self.tell(ev.OrderCancelled(f"key{self.dice.randrange(4)}"))

    def meet(self) -> None:
        number = self.dice.randrange(1, 9)
        if node(number) not in self.host.peers():
            self.tell(ev.PeerUp(contact(number)))

    def part(self) -> None:
        gone = node(self.dice.randrange(1, 9))
        if gone in self.host.peers():
            self.tell(ev.PeerDown(gone))

    def say(self) -> None:
        """Peers may say anything, true or not."""
        image, dice = self.dice.choice(list(self.images)), self.dice
        pieces = self.images[image] + (dice.random() < 0.05)
        held = np.array([dice.random() < 0.7 for _ in range(pieces)], np.bool_)
        some = tuple(dice.randrange(pieces) for _ in range(dice.randrange(4))) if pieces else ()
        messages: list[ms.Control] = [
            ms.Subscribe(image),
            ms.Unsubscribe(image),
            ms.HaveMap(image, pieces, pack_bitmap(held)),
            ms.HaveMap(image, pieces, pack_bitmap(np.ones(pieces, np.bool_))),
            ms.HaveMap(image, pieces, b"\xff" * ((pieces + 7) // 8)),
            ms.HaveChange(image, some, ()),
            ms.HaveChange(image, (), some),
            ms.NotHeld(image),
            ms.Charge(image, dice.randrange(pieces + 1), 0),
            ms.Acquaint(image, (ms.Alternative(node(dice.randrange(9)), ("10.0.0.1:1",)),)),
            ms.Ping(1),
        ]
        self.tell(ev.Heard(node(dice.randrange(1, 9)), dice.choice(messages)))

    def ask_upload(self) -> None:
        image = self.dice.choice(list(self.images))
        wanted: ms.Request = ms.FragmentsRequest(image, self.dice.randrange(self.images[image] + 1), 0, 4)
        if self.dice.random() < 0.3:
            wanted = ms.PartRequest(image, ms.Part.ROOT, 0, 100)
        self.numbers += 1
        self.tickets.add(self.numbers)
        asker = node(self.dice.randrange(1, 9))
        self.tell(ev.UploadAsked(self.numbers, asker, wanted, MIB))

    def end_upload(self) -> None:
        if self.tickets:
            ticket = self.dice.choice(sorted(self.tickets))
            self.tickets.remove(ticket)
            self.sending.discard(ticket)
            self.tell(ev.UploadEnded(ticket, 0))

    def rot(self) -> None:
        for book in self.host.images():
            self.tell(ev.PieceRotten(book.image, self.dice.randrange(book.pieces + 1)))

    def forget(self) -> None:
        self.tell(ev.ImageForgotten(self.dice.choice(list(self.images))))

    def publish(self) -> None:
        image = self.dice.choice(list(self.images))
        durable = np.array([self.dice.random() < 0.5 for _ in range(self.images[image])], np.bool_)
        sealed = self.dice.random() < 0.5
        self.tell(ev.ImageOnHand(image, self.data_bytes(image), durable | sealed, sealed))

    def demand(self) -> None:
        for book in self.host.images():
            if book.pieces:
                self.numbers += 1
                pieces = self.dice.sample(range(book.pieces), self.dice.randrange(min(4, book.pieces) + 1))
                wanted = tuple(self._stretch(piece) for piece in pieces)
                self.tell(ev.DemandRaised(self.numbers, book.image, wanted, self.now + self.dice.uniform(0, 20)))
                if self.dice.random() < 0.3:
                    self.tell(ev.DemandDropped(self.numbers))
                if self.dice.random() < 0.3:
                    self.tell(ev.ReadingForeseen(book.image, tuple(map(self._stretch, range(book.pieces)))))

    def _stretch(self, piece: int) -> Stretch:
        first = self.dice.randrange(FRAGMENTS)
        return Stretch(piece, first, (FRAGMENT_BYTES,) * self.dice.randrange(1, FRAGMENTS - first + 1))

    def find(self) -> None:
        """A lookup's answer that comes twice, or late."""
        self.tell(ev.ProvidersFound(self.dice.choice(list(self.images)), (contact(1), contact(2))))

    # --- and how it ends well ---

    def settle(self, most_steps: int = 20_000) -> None:
        """From now on one honest peer has everything, and all that is asked for is done: every order ends ready."""
        good = contact(99)
        self.tell(ev.PeerUp(good))
        for image in self.images:
            self.tell(ev.OrderPlaced(Order(f"last {image.short}", image.hex(), self.now)))
        told: set[ImageId] = set()
        for _ in range(most_steps):
            if all(order.ended for order in self.host.orders()):
                return
            if good.node in self.host.peers():
                for image in set(self.images) - told:
                    self._tell_all(good.node, image)
                told |= set(self.images)
            if self.pending:
                self.answer(self.pending.pop(0), well=True)
            else:
                deadline = self.host.next_deadline(self.now)
                assert deadline is not None, "nothing will ever happen again"
                self.now = deadline
                self.tell(ev.Woken())
                told.clear()  # a pull that has started since asked anew
        raise AssertionError(f"never done: {[order for order in self.host.orders() if not order.ended]}")

    def _tell_all(self, peer: NodeId, image: ImageId) -> None:
        everything = pack_bitmap(np.ones(self.images[image], np.bool_))
        self.tell(ev.Heard(peer, ms.HaveMap(image, self.images[image], everything)))


def chaos(seed: int) -> Chaos:
    dice = random.Random(seed)
    sizes = [dice.choice([0, 1, 3, 12, 40]) for _ in range(2)]
    images = {ImageId.of(bytes([number])): pieces for number, pieces in enumerate(sizes)}
    policy = Policy(
        uploads_transmitting=2,
        uploads_queued=5,
        uploads_queued_per_peer=2,
        opening_pieces=4,
        kin_after_s=dice.choice([0.0, 1.0]),
    )
    host = Host(contact(0), np.random.default_rng(seed), policy)
    return Chaos(dice, images, host)


def ended_well(host: Host) -> bool:
    return all(order.state is OrderState.READY for order in host.orders() if order.key.startswith("last"))
