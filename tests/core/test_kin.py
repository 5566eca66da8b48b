"""One host, told step by step: when it turns to hosts with a relative, and what becomes of what they answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.bitmaps import pack_bitmap
from enticed.core.host import Host
from enticed.core.orders import Order, OrderState
from enticed.core.policy import Policy
from enticed.core.vocabulary import Fault, Span
from protocol import messages as ms
from protocol.identifiers import ImageId, NodeId
from protocol.limits import MIB
from simnet.book_checks import wrong_books
from tests.core.chaos import contact, node

E = TypeVar("E")
IMAGE, RELATIVE, OTHER = ImageId.of(b"image"), ImageId.of(b"relative"), ImageId.of(b"other")
PIECES, RELATIVE_PIECES = 4, 6
SEED, KIN, KIN_2 = node(1), node(2), node(3)
SIZES_BYTES = np.full(4, MIB // 4, np.int32)


class Scripted:
    """A host that pulls IMAGE, of which SEED had all; `at` seconds after that."""

    def __init__(self, *, relatives: tuple[ImageId, ...] = (RELATIVE,), kin_max: int = 2) -> None:
        policy = Policy(kin_max=kin_max)
        self.host = Host(contact(0), np.random.default_rng(1), policy)
        self.now = 1_000.0
        self.effects: list[ef.Effect] = []
        self.tell(ev.OrderPlaced(Order("order", IMAGE.hex(), self.now)))
        self.tell(ev.TargetResolved("order", IMAGE.hex(), IMAGE))
        self.tell(ev.PeerUp(contact(1)))
        self.have(SEED, IMAGE, PIECES)
        data_bytes = np.full(PIECES, MIB, np.int64)
        self.tell(ev.ManifestFetched(IMAGE, data_bytes))
        self.tell(ev.SpaceReserved(IMAGE, np.zeros(PIECES, np.bool_), data_bytes, relatives))

    def tell(self, event: ev.Event) -> list[ef.Effect]:
        self.effects = self.host.handle(event, self.now)
        assert list(wrong_books(self.host.books)) == []
        return self.effects

    def have(self, peer: NodeId, image: ImageId, pieces: int) -> list[ef.Effect]:
        return self.tell(ev.Heard(peer, ms.HaveMap(image, pieces, pack_bitmap(np.ones(pieces, np.bool_)))))

    def wait(self, seconds: float) -> list[ef.Effect]:
        self.now += seconds
        return self.tell(ev.Woken())

    def starve(self) -> list[ef.Effect]:
        """All pieces are opened; the seed goes, nothing having come, and nobody takes its place."""
        self.open_all()
        self.tell(ev.PeerDown(SEED))
        assert not self.of(ef.LearnRelative)
        return self.wait(1.0)

    def meet_kin(self, number: int = 2) -> list[ef.Effect]:
        self.tell(ev.PeerUp(contact(number)))
        assert ef.Say(node(number), ms.Subscribe(RELATIVE)) in self.effects
        return self.have(node(number), RELATIVE, RELATIVE_PIECES)

    def learn(self, relative: ImageId = RELATIVE, peer: NodeId = KIN, share: float = 1.0) -> list[ef.Effect]:
        shared_bytes = np.full(PIECES, int(share * MIB), np.int64)
        return self.tell(ev.RelativeLearned(IMAGE, relative, peer, RELATIVE_PIECES, shared_bytes))

    def open_all(self) -> list[ef.Effect]:
        """Answer for every piece that is being opened; what the answers led to, and not their own effects alone."""
        led_to: list[ef.Effect] = []
        for piece in sorted(self.host.books.pulls[IMAGE].opening):
            led_to += self.tell(ev.PieceOpened(IMAGE, piece, SIZES_BYTES, np.ones(4, np.bool_)))
        return led_to

    def of(self, kind: type[E], among: Iterable[ef.Effect] | None = None) -> list[E]:
        return [effect for effect in (self.effects if among is None else among) if isinstance(effect, kind)]


def located(run: ms.FragmentsRequest, piece: int = 5, *, of: int | None = None) -> ev.RunLocated:
    """The first `of` fragments of the run lie in this piece of the relative, the others nowhere."""
    count = run.count if of is None else of
    spans = [Span(run.first, count, count * MIB // 4, ms.FragmentsRequest(RELATIVE, piece, 7, count))]
    if count < run.count:
        spans.append(Span(run.first + count, run.count - count, (run.count - count) * MIB // 4, None))
    return ev.RunLocated(run.image, run, tuple(spans))


def helped() -> tuple[Scripted, list[ef.Fetch]]:
    """A host without any holder, whose runs were found in the relative and asked of KIN."""
    host = Scripted()
    host.starve()
    host.meet_kin()
    host.learn()
    fetches: list[ef.Fetch] = []
    for locate in host.of(ef.LocateRun):
        fetches += host.of(ef.Fetch, host.tell(located(locate.run)))
    return host, fetches


def test_relatives_are_looked_for_only_after_a_while_without_supply() -> None:
    host = Scripted()
    host.open_all()
    host.tell(ev.PeerDown(SEED))
    assert ef.FindProviders(RELATIVE) not in host.wait(0.9)
    assert ef.FindProviders(RELATIVE) in host.wait(0.1)
    assert not any(effect == ef.FindProviders(RELATIVE) for effect in host.wait(0.5))


def test_without_leave_or_relatives_nothing_is_looked_for() -> None:
    for host in (Scripted(relatives=()), Scripted(kin_max=0)):
        assert all(effect.image == IMAGE for effect in host.of(ef.FindProviders, host.starve()))


def test_hosts_with_a_relative_are_dialled_but_not_more_than_are_of_use() -> None:
    host = Scripted()
    host.starve()
    contacts = tuple(contact(number) for number in range(20))
    host.tell(ev.ProvidersFound(RELATIVE, contacts))
    dialled = {dial.contact.node for dial in host.of(ef.Dial)}
    assert len(dialled) == Policy().kin_degree
    assert node(0) not in dialled


def test_a_run_is_asked_for_under_the_relatives_own_numbers_and_lands_in_the_image() -> None:
    host, fetches = helped()
    assert fetches
    for fetch in fetches:
        assert fetch.node == KIN
        assert (fetch.wanted.image, fetch.wanted.piece, fetch.wanted.first) == (RELATIVE, 5, 7)
        assert fetch.landing.image == IMAGE
    for fetch in fetches:
        host.tell(ev.Fetched(fetch.request))
    progress = host.host.progress(IMAGE)
    assert progress is not None
    assert {str(supply): size for supply, size in progress.bytes_from.items() if size} == {"peers": len(fetches) * MIB}


def test_a_run_of_which_a_part_lies_elsewhere_is_cut() -> None:
    host = Scripted()
    host.starve()
    host.meet_kin()
    host.learn(share=0.25)
    run = host.of(ef.LocateRun)[0].run
    fetches = host.of(ef.Fetch, host.tell(located(run, of=1)))
    assert [fetch.landing for fetch in fetches] == [ms.FragmentsRequest(IMAGE, run.piece, run.first, 1)]
    host.tell(ev.PeerUp(contact(1)))
    rest = ms.FragmentsRequest(IMAGE, run.piece, run.first + 1, run.count - 1)
    assert rest in [fetch.wanted for fetch in host.of(ef.Fetch, host.have(SEED, IMAGE, PIECES))]


def test_an_answer_about_a_run_that_nobody_asked_about_changes_nothing() -> None:
    host, _ = helped()
    before = list(host.host.books.pulls[IMAGE].runs)
    host.tell(located(ms.FragmentsRequest(IMAGE, 0, 0, 4)))
    assert list(host.host.books.pulls[IMAGE].runs) == before


def test_who_sends_corrupt_bytes_of_a_relative_is_charged_for_it_and_asked_no_more() -> None:
    host, fetches = helped()
    first = fetches[0]
    host.tell(ev.FetchFailed(first.request, Fault.CORRUPT, "corrupt", fragment=8))
    assert ef.Say(KIN, ms.Charge(RELATIVE, 5, 8)) in host.effects
    assert {abandon.request for abandon in host.of(ef.Abandon)} == {fetch.request for fetch in fetches[1:]}
    host.have(KIN, RELATIVE, RELATIVE_PIECES)
    assert not host.of(ef.Fetch)
    host.meet_kin(3)
    assert {fetch.node for fetch in host.of(ef.Fetch)} == {KIN_2}


def test_a_piece_of_a_relative_that_is_refused_is_not_asked_for_there_again() -> None:
    host, fetches = helped()
    host.tell(ev.FetchFailed(fetches[0].request, Fault.REFUSED, "not held"))
    kin = host.host.books.pulls[IMAGE].kin[RELATIVE]
    assert not kin.availability.has(KIN, 5)
    assert kin.availability.has(KIN, 4)


def test_whom_a_busy_host_names_may_have_the_relative() -> None:
    host, fetches = helped()
    host.tell(ev.FetchFailed(fetches[0].request, Fault.BUSY, "busy", 0.5, (contact(7),)))
    assert [dial.contact.node for dial in host.of(ef.Dial)] == [node(7)]
    assert node(7) not in host.host.books.pulls[IMAGE].contacts


def test_another_host_is_asked_where_learning_failed_or_took_too_long() -> None:
    host = Scripted()
    host.starve()
    host.meet_kin()
    assert host.of(ef.LearnRelative) == [ef.LearnRelative(IMAGE, RELATIVE, KIN)]
    host.tell(ev.RelativeUnlearned(IMAGE, RELATIVE, KIN, "lost"))
    assert not host.of(ef.LearnRelative)
    host.meet_kin(3)
    assert host.of(ef.LearnRelative) == [ef.LearnRelative(IMAGE, RELATIVE, KIN_2)]
    assert host.host.order("order").state is OrderState.FETCHING  # type: ignore[union-attr]
    host.wait(Policy().kin_learn_s)
    host.meet_kin(4)
    assert not host.of(ef.LearnRelative), "two tries are enough"
    host.learn(peer=KIN_2)  # late, and welcome
    assert host.host.books.pulls[IMAGE].kin[RELATIVE].learned
    host.learn(peer=KIN)
    assert host.host.books.pulls[IMAGE].kin_learned == 1


def test_a_second_relative_is_looked_in_for_what_the_first_has_not() -> None:
    host = Scripted(relatives=(RELATIVE, OTHER))
    host.starve()
    host.meet_kin()
    host.learn(share=0.5)
    runs = [locate.run for locate in host.of(ef.LocateRun)]
    for run in runs:
        host.tell(located(run, of=2))
    host.have(KIN, OTHER, 2)
    assert host.of(ef.LearnRelative) == [ef.LearnRelative(IMAGE, OTHER, KIN)]
    shared_bytes = np.full(PIECES, MIB // 2, np.int64)
    host.tell(ev.RelativeLearned(IMAGE, OTHER, KIN, 2, shared_bytes))
    again = [locate.run for locate in host.of(ef.LocateRun)]
    assert again == [ms.FragmentsRequest(IMAGE, run.piece, 2, 2) for run in runs]


def test_a_have_map_of_a_relative_that_cannot_be_right_ends_the_session() -> None:
    host, _ = helped()
    host.have(KIN, RELATIVE, RELATIVE_PIECES + 1)
    assert [call.node for call in host.of(ef.HangUp)] == [KIN]


def test_when_the_pull_is_over_so_is_the_interest_in_relatives() -> None:
    host, _ = helped()
    host.tell(ev.OrderCancelled("order"))
    assert ef.ForgetRelatives(IMAGE) in host.effects
    assert ef.Say(KIN, ms.Unsubscribe(RELATIVE)) in host.effects
    assert not host.host.books.pulls


def test_a_relative_that_is_pulled_too_stays_of_interest() -> None:
    host, _ = helped()
    host.tell(ev.OrderPlaced(Order("relative", RELATIVE.hex(), host.now)))
    host.tell(ev.TargetResolved("relative", RELATIVE.hex(), RELATIVE))
    host.tell(ev.OrderCancelled("relative"))
    assert ef.Say(KIN, ms.Unsubscribe(RELATIVE)) not in host.effects
