"""What peers tell each other: have-maps, changes, subscriptions, charges, lies."""

import sys

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from protocol import messages as ms
from protocol.group import GroupId
from protocol.identifiers import ImageId
from protocol.limits import HAVE_CHANGE_MAX_PIECES, MIB
from tests.core.bench import IMAGE, OTHER, Bench
from tests.core.chaos import contact, node


def test_a_subscriber_gets_the_map_and_the_changes_until_it_unsubscribes() -> None:
    bench = Bench()
    bench.published(3)
    bench.meet(1)
    bench.hear(1, ms.Subscribe(IMAGE))
    assert bench.said(1) == [ms.HaveMap(IMAGE, 3, b"\xe0")]
    bench.tell(ev.PieceRotten(IMAGE, 1))
    assert ms.HaveChange(IMAGE, (), (1,)) in bench.said(1)
    bench.hear(1, ms.Unsubscribe(IMAGE))
    bench.tell(ev.PieceRotten(IMAGE, 0))
    assert bench.said(1) == []


def test_who_asks_for_what_is_not_here_is_told_so() -> None:
    bench = Bench()
    bench.meet(1)
    bench.hear(1, ms.Subscribe(IMAGE))
    assert bench.said(1) == [ms.NotHeld(IMAGE)]


def test_a_host_that_was_dialled_for_a_private_image_is_asked_once_it_has_proven_its_group() -> None:
    bench, group = Bench(), GroupId(bytes(16))
    bench.host.books.groups = frozenset({group})
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, (contact(1),), (), group))
    assert bench.one(ef.Dial).contact == contact(1)
    bench.meet(1)
    assert bench.said(1) == []
    bench.tell(ev.PeerBelongs(node(1), frozenset({group})))
    assert bench.said(1) == [ms.Subscribe(IMAGE)]


def test_who_is_found_under_a_groups_key_makes_no_image_private() -> None:
    """Until it is found under everybody's, a member alone is asked; from then on, everybody."""
    bench, group = Bench(), GroupId(bytes(16))
    bench.host.books.groups = frozenset({group})
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, (contact(1),), (), group))
    bench.meet(1, 2)
    assert bench.said(1) == bench.said(2) == []
    bench.tell(ev.ProvidersFound(IMAGE, (contact(1), contact(2))))
    assert bench.said(2) == [ms.Subscribe(IMAGE)]


def test_who_pulls_what_we_pull_is_asked_back_once_and_acquainted_with_others() -> None:
    bench = Bench()
    bench.order()
    bench.meet(1, 2)
    bench.hear(1, ms.Subscribe(IMAGE))
    assert bench.said(1) == [ms.Subscribe(IMAGE)]
    bench.hear(2, ms.Subscribe(IMAGE))
    alternative = ms.Alternative(node(1), contact(1).addresses)
    assert bench.said(2) == [ms.Acquaint(IMAGE, (alternative,)), ms.Subscribe(IMAGE)]
    bench.hear(1, ms.Subscribe(IMAGE))
    assert ms.Subscribe(IMAGE) not in bench.said(1)


def test_those_who_hoped_for_it_hear_when_the_pull_ends_with_nothing() -> None:
    bench = Bench()
    bench.order()
    bench.meet(1, 2)
    bench.hear(1, ms.Subscribe(IMAGE))
    bench.tell(ev.OrderCancelled("order"))
    assert bench.said(1) == [ms.Unsubscribe(IMAGE), ms.NotHeld(IMAGE)]
    assert bench.said(2) == [ms.Unsubscribe(IMAGE)]


def test_those_who_asked_early_get_the_map_when_the_image_is_there() -> None:
    bench = Bench()
    bench.order()
    bench.meet(2)
    bench.hear(2, ms.Subscribe(IMAGE))
    bench.published(2)
    assert ms.HaveMap(IMAGE, 2, b"\xc0") in bench.said(2)


def test_an_image_that_goes_is_withdrawn_and_unsaid() -> None:
    bench = Bench()
    bench.published()
    bench.meet(1, 2)
    bench.hear(1, ms.Subscribe(IMAGE))
    bench.tell(ev.ImageForgotten(IMAGE))
    assert bench.one(ef.Withdraw).image == IMAGE
    assert bench.said(1) == [ms.NotHeld(IMAGE)]
    assert bench.said(2) == []
    bench.tell(ev.UploadAsked(1, node(1), ms.FragmentsRequest(IMAGE, 0, 0, 1), 1))
    assert bench.done == [ef.RefuseUpload(1)]


@pytest.mark.parametrize(
    "lie",
    [
        ms.HaveMap(IMAGE, 4, b"\xff"),
        ms.HaveMap(IMAGE, 4, b""),
        ms.HaveMap(IMAGE, 5, b"\xf8"),
        ms.HaveChange(IMAGE, (4,), ()),
        ms.HaveChange(IMAGE, (), (4,)),
    ],
)
def test_who_says_what_cannot_be_is_hung_up_on(lie: ms.Control) -> None:
    bench = Bench()
    bench.fetching(4)
    bench.hear(1, lie)
    assert bench.one(ef.HangUp).node == node(1)


def test_what_is_said_of_images_nobody_pulls_is_not_kept() -> None:
    bench = Bench()
    bench.meet(1)
    for message in (
        ms.HaveMap(IMAGE, 4, b"\xf0"),
        ms.HaveChange(IMAGE, (1,), ()),
        ms.NotHeld(IMAGE),
        ms.Charge(IMAGE, 0, 0),
        ms.Ping(1),
    ):
        bench.hear(1, message)
        assert bench.done == []
    bench.hear(9, ms.Subscribe(IMAGE))
    assert bench.done == [], "said by nobody with a session"


def test_a_charge_is_looked_into_so_often_and_no_more() -> None:
    bench = Bench(charges_max=2)
    bench.published(2)
    bench.meet(1, 2)
    for piece in (0, 1, 5):
        bench.hear(1, ms.Charge(IMAGE, piece, 0))
        assert bench.all(ef.Recheck) == ([ef.Recheck(IMAGE, piece)] if piece < 2 else [])
    bench.hear(1, ms.Charge(IMAGE, 0, 0))
    assert bench.done == []
    bench.hear(2, ms.Charge(IMAGE, 0, 0))
    assert bench.done == [ef.Recheck(IMAGE, 0)]


def test_changes_are_told_together_and_in_parts_that_fit() -> None:
    pieces = HAVE_CHANGE_MAX_PIECES + 10
    bench = Bench(opening_pieces=2 * pieces)
    bench.fetching(pieces, missing=[])
    bench.meet(2)
    bench.hear(2, ms.Subscribe(IMAGE))
    here, size = np.zeros(1, np.bool_), np.full(1, 4096, np.int32)
    while opening := sorted(bench.host.books.pulls[IMAGE].opening):  # half of the room at a time
        for piece in opening:
            bench.host.handle(ev.PieceOpened(IMAGE, piece, size, here), bench.now)
    bench.wait(0.1)
    changes = [message for message in bench.said(2) if isinstance(message, ms.HaveChange)]
    assert [len(change.gained) for change in changes] == [HAVE_CHANGE_MAX_PIECES, 9], "the first was told at once"


def test_the_first_news_is_told_at_once_and_what_follows_together() -> None:
    bench = Bench(have_batch_s=0.04)
    bench.fetching(pieces=4)
    bench.meet(2)
    bench.hear(2, ms.Subscribe(IMAGE))
    fetches, told = bench.open_all(), []
    for fetch in fetches[:3]:
        bench.deliver([fetch])
        told += [message.gained for message in bench.said(2) if isinstance(message, ms.HaveChange)]
    assert told == [(fetches[0].wanted.piece,)]
    bench.wait(0.05)
    (rest,) = [message for message in bench.said(2) if isinstance(message, ms.HaveChange)]
    assert set(rest.gained) == {fetch.wanted.piece for fetch in fetches[1:3]}


def test_of_what_hardly_any_mate_has_all_hear_soon() -> None:
    bench = Bench(have_batch_s=0.04, scarce_batch_s=0.01, scarce_share=0.5, rack_owners=False)
    bench.fetching(pieces=4)
    bench.meet(2, 4)
    bench.has(2, [3])
    bench.has(4, [])
    bench.hear(2, ms.Subscribe(IMAGE))
    fetch_of = {fetch.wanted.piece: fetch for fetch in bench.open_all()}
    told = []
    for piece in (0, 3, 1):
        bench.deliver([fetch_of[piece]])
        told += [message.gained for message in bench.said(2) if isinstance(message, ms.HaveChange)]
        bench.wait(0.01)
        told += [message.gained for message in bench.said(2) if isinstance(message, ms.HaveChange)]
    assert told == [(0,), (3, 1)], "a mate has piece 3: that waits for other news"


def test_a_session_of_no_use_is_hung_up_and_one_of_use_is_not() -> None:
    bench = Bench(session_idle_s=60.0)
    bench.published()
    bench.meet(1, 2)
    bench.hear(2, ms.Subscribe(IMAGE))
    bench.wait(59.9)
    assert bench.done == []
    bench.wait(0.2)
    assert bench.one(ef.HangUp).node == node(1)
    bench.tell(ev.PeerDown(node(1)))
    bench.hear(2, ms.Unsubscribe(IMAGE))
    bench.wait(50)
    bench.order("order", OTHER)
    bench.wait(1)
    bench.tell(ev.OrderCancelled("order"))
    bench.wait(59)
    assert bench.all(ef.HangUp) == []
    bench.wait(2)
    assert bench.one(ef.HangUp).node == node(2)


@pytest.mark.parametrize("image", [OTHER, IMAGE])
@pytest.mark.parametrize(
    "kind", ["Subscribe", "Unsubscribe", "HaveMap", "NotHeld", "Acquaint", "Charge", "Ping", "OrderNews"]
)
def test_what_nothing_follows_from_costs_the_same_however_much_is_pulled(kind: str, image: ImageId) -> None:
    """A peer may say such things 2,000 times a second. OTHER is not here, and IMAGE is whole."""
    messages: dict[str, ms.Control] = {
        "Subscribe": ms.Subscribe(OTHER),
        "Unsubscribe": ms.Unsubscribe(image),
        "HaveMap": ms.HaveMap(image, 8, b"\xff"),
        "NotHeld": ms.NotHeld(image),
        "Acquaint": ms.Acquaint(image, ()),
        "Charge": ms.Charge(image, 0, 0),
        "Ping": ms.Ping(1),
        "OrderNews": ms.OrderNews("order", ms.OrderStage.QUEUED, None, None, 0, None, ""),
    }
    message = messages[kind]

    def calls(pulls: int) -> int:
        bench, counted = Bench(), 0
        bench.published()
        bench.meet(1)
        for number in range(pulls):
            bench.order(f"order {number}", ImageId.of(b"%d" % number))
        bench.hear(1, message)

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            bench.host.handle(ev.Heard(node(1), message), bench.now)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(9) == calls(0)


def test_uploads_wait_for_a_slot_and_are_put_off_beyond_the_places() -> None:
    bench = Bench(uploads_transmitting=1, uploads_queued=1)
    bench.published()
    bench.meet(1, 2, 3)
    for number in (1, 2, 3):
        bench.hear(number, ms.Subscribe(IMAGE))
    request = ms.FragmentsRequest(IMAGE, 0, 0, 4)
    bench.tell(ev.UploadAsked(1, node(1), request, MIB))
    assert bench.done == [ef.GrantUpload(1)]
    bench.tell(ev.UploadAsked(2, node(2), ms.FragmentsRequest(IMAGE, 2, 0, 4), MIB))
    assert bench.done == []
    bench.tell(ev.UploadAsked(3, node(3), ms.FragmentsRequest(IMAGE, 1, 0, 4), MIB))
    deferred = bench.one(ef.DeferUpload)
    assert {other.node for other in deferred.alternatives} == {node(1), node(2)}
    assert deferred.alternatives[0].node == node(1), "of the same rack as the asker"
    bench.tell(ev.UploadEnded(1, 1))
    assert bench.done == [ef.GrantUpload(2)]
    bench.tell(ev.UploadAsked(4, node(3), ms.FragmentsRequest(IMAGE, 4, 0, 4), MIB))
    assert bench.done == [ef.RefuseUpload(4)]


def test_what_was_lost_while_it_waited_for_a_slot_is_refused() -> None:
    bench = Bench(uploads_transmitting=1)
    bench.published()
    bench.meet(1, 2)
    for ticket, piece in enumerate((0, 1, 2)):
        bench.tell(ev.UploadAsked(ticket, node(1), ms.FragmentsRequest(IMAGE, piece, 0, 4), 1))
    bench.tell(ev.PieceRotten(IMAGE, 1))
    bench.tell(ev.UploadEnded(0, 1))
    assert bench.one(ef.RefuseUpload).ticket == 1
    assert bench.one(ef.GrantUpload).ticket == 2
    assert (bench.host.uploads().sending, bench.host.uploads().queued) == (1, 0)
