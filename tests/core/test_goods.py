"""What is written becomes durable, then sealed; what is lost is taken back and fetched again; readers are told."""

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.image_book import ImageBook, PieceState
from enticed.core.orders import Failure, Priority
from enticed.core.progress import Progress
from enticed.core.vocabulary import Fault
from protocol import messages as ms
from protocol.limits import MIB
from tests.core.bench import IMAGE, Bench, sizes


def book_of(bench: Bench) -> ImageBook:
    book = bench.host.image(IMAGE)
    assert book is not None
    return book


def progress_of(bench: Bench) -> Progress:
    progress = bench.host.progress(IMAGE)
    assert progress is not None
    return progress


def test_syncs_come_when_much_is_written_or_old_or_all() -> None:
    bench = Bench(sync_batch_bytes=2 * MIB, sync_batch_s=2.0)
    bench.fetching(8)
    fetches = bench.open_all()
    bench.deliver(fetches[:1])
    assert bench.all(ef.MakeDurable) == []
    bench.deliver(fetches[1:2])
    much = bench.one(ef.MakeDurable).pieces
    assert len(much) == 2
    bench.deliver(fetches[2:3])
    bench.tell(ev.Synced(IMAGE, much))
    bench.wait(2.0)
    old = bench.one(ef.MakeDurable).pieces
    assert len(old) == 1
    bench.tell(ev.Synced(IMAGE, old))
    bench.deliver(fetches[3:])
    while not book_of(bench).sealing:
        bench.tell(ev.Synced(IMAGE, tuple(book_of(bench).syncing)))
    assert bench.one(ef.Seal).image == IMAGE


def test_what_a_cancelled_pull_wrote_becomes_durable_and_counts_for_the_next() -> None:
    bench = Bench()
    bench.fetching(4)
    bench.deliver(bench.open_all()[:2])
    bench.tell(ev.OrderCancelled("order"))
    sync = bench.one(ef.MakeDurable)
    assert len(sync.pieces) == 2
    bench.order("again")
    assert bench.one(ef.Reserve).image == IMAGE
    bench.has(1)
    bench.tell(ev.SpaceReserved(IMAGE, np.zeros(4, np.bool_), sizes(4)))
    assert {effect.piece for effect in bench.all(ef.OpenPiece)} == set(range(4)) - set(sync.pieces)
    bench.tell(ev.Synced(IMAGE, sync.pieces))
    assert np.flatnonzero(book_of(bench).durable).tolist() == sorted(sync.pieces)


def test_a_resumed_pull_with_everything_durable_is_only_sealed() -> None:
    bench = Bench()
    bench.fetching(3, durable=[0, 1, 2])
    assert bench.state() == "verifying"
    assert bench.one(ef.Seal).image == IMAGE
    bench.tell(ev.Sealed(IMAGE))
    assert bench.state() == "ready"


def test_a_failed_sync_takes_back_all_that_is_not_durable() -> None:
    bench = Bench(sync_batch_bytes=1)
    bench.fetching(4)
    fetches = bench.open_all()
    bench.meet(2)
    bench.hear(2, ms.Subscribe(IMAGE))
    bench.deliver(fetches[:1])
    first = bench.one(ef.MakeDurable).pieces
    bench.tell(ev.Synced(IMAGE, first))
    bench.deliver(fetches[1:3])
    written = np.flatnonzero(book_of(bench).state == PieceState.WRITTEN).tolist()
    assert len(written) == 2
    bench.tell(ev.SyncFailed(IMAGE, (fetches[1].wanted.piece,), Failure.DISK, "bad disk"))
    assert ms.HaveChange(IMAGE, (), tuple(written)) in bench.said(2)
    assert tuple(np.flatnonzero(book_of(bench).held).tolist()) == first
    order = bench.host.order("order")
    assert order is not None
    assert (str(order.state), order.failure, order.reason) == ("paused", Failure.DISK, "bad disk")
    bench.tell(ev.SyncFailed(IMAGE, (0,), Failure.DISK, "bad disk"))
    assert bench.done == []


def test_rot_of_a_sealed_image_reopens_the_orders_that_lease_it() -> None:
    bench = Bench()
    bench.published()
    bench.order()
    bench.tell(ev.PieceRotten(IMAGE, 2))
    assert bench.one(ef.Announce) == ef.Announce(IMAGE, whole=False)
    assert bench.one(ef.Reserve).image == IMAGE, "the same image, whatever the name means now"
    assert bench.state() == "reserving"
    bench.meet(1)
    bench.has(1)
    bench.tell(ev.SpaceReserved(IMAGE, np.array([True, True, False, True]), sizes(4)))
    assert bench.one(ef.OpenPiece).piece == 2


def test_rot_while_the_last_sync_is_under_way() -> None:
    bench = Bench()
    bench.fetching(2)
    bench.deliver(bench.open_all())
    assert bench.state() == "verifying"
    bench.tell(ev.PieceRotten(IMAGE, 1))
    assert bench.state() == "fetching"
    bench.tell(ev.Synced(IMAGE, (0, 1)))
    assert book_of(bench).durable.tolist() == [True, False], "what was lost meanwhile is not durable"
    assert bench.all(ef.Seal) == []


def test_rot_while_the_seal_is_under_way() -> None:
    bench = Bench()
    bench.fetching(2)
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, (0, 1)))
    assert bench.one(ef.Seal).image == IMAGE
    bench.tell(ev.PieceRotten(IMAGE, 0))
    bench.tell(ev.Sealed(IMAGE))
    assert bench.state() == "fetching"
    for piece in (0, 7):
        bench.tell(ev.PieceRotten(IMAGE, piece))
        assert bench.done == [], "lost already, or never there"


def test_rot_that_the_seal_meets_first_is_fetched_again() -> None:
    bench = Bench()
    bench.fetching(2)
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, (0, 1)))
    assert bench.one(ef.Seal).image == IMAGE
    bench.tell(ev.NotSealed(IMAGE, (1,)))
    assert bench.state() == "fetching"
    assert not bench.host.disk.degraded
    bench.tell(ev.PieceRotten(IMAGE, 1))
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, (1,)))
    assert bench.one(ef.Seal).image == IMAGE, "once more"
    bench.tell(ev.Sealed(IMAGE))
    assert bench.state() == "ready"


def test_rot_of_all_that_is_durable_withdraws_the_image() -> None:
    bench = Bench()
    bench.published(1)
    bench.tell(ev.PieceRotten(IMAGE, 0))
    assert bench.one(ef.Withdraw).image == IMAGE


def test_events_about_what_is_not_here() -> None:
    bench = Bench()
    for event in (
        ev.Synced(IMAGE, (0,)),
        ev.Sealed(IMAGE),
        ev.NotSealed(IMAGE, (0,)),
        ev.SyncFailed(IMAGE, (0,), Failure.NO_SPACE, "x"),
        ev.PieceRotten(IMAGE, 0),
        ev.PieceUnopened(IMAGE, 0, Failure.DISK, "x"),
        ev.Fetched(7),
        ev.FetchFailed(7, Fault.LOST, "x"),
        ev.UploadEnded(7, 0),
        ev.DemandDropped(7),
    ):
        bench.tell(event)
        assert bench.done == []


def test_an_image_that_is_told_of_while_it_is_pulled() -> None:
    bench = Bench()
    bench.fetching(2)
    bench.tell(ev.ImageOnHand(IMAGE, sizes(2), np.zeros(2, np.bool_), False))
    assert (book_of(bench).state == PieceState.AT_WORK).all(), "what is being done with it is known better here"


def test_progress_adds_up() -> None:
    bench = Bench()
    assert bench.host.progress(IMAGE) is None
    bench.fetching(4, missing=[2, 3], durable=[1])
    progress = progress_of(bench)
    assert (progress.pieces, progress.pieces_done, progress.remaining_s, progress.copies) == (4, 1, None, 1)
    bench.open(0, missing=[])
    fetches = bench.open_all()
    bench.now += 1
    bench.deliver(fetches[:1])
    progress = progress_of(bench)
    assert (progress.done_bytes, progress.bytes_per_s, progress.remaining_s) == (3 * MIB, MIB, 1.0)
    assert sum(progress.bytes_from.values()) == progress.done_bytes
    bench.now += 1
    bench.deliver(fetches[1:])
    assert progress_of(bench).remaining_s == 0.0
    assert bench.state() == "verifying"


def test_an_image_without_pieces_has_no_rarest_one() -> None:
    bench = Bench()
    bench.fetching(0)
    assert progress_of(bench).copies is None
    bench.tell(ev.Sealed(IMAGE))
    assert bench.state() == "ready"


@pytest.mark.parametrize(
    ("priorities", "cold"),
    [([Priority.PREWARM], True), ([Priority.BOOT], False), ([Priority.PREWARM, Priority.READ], False)],
)
def test_only_what_was_fetched_ahead_alone_is_cold(priorities: list[Priority], cold: bool) -> None:
    bench = Bench()
    bench.fetching(4, priority=priorities[0])
    for priority in priorities[1:]:
        bench.order("other", priority=priority)
        bench.tell(ev.TargetResolved("other", "image:1", IMAGE))
    bench.deliver(bench.open_all())
    while not book_of(bench).sealing:
        bench.tell(ev.Synced(IMAGE, tuple(book_of(bench).syncing)))
    assert bench.one(ef.Seal).cold == cold
