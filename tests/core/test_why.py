"""Why an order does not go on, in one line: which piece, who was asked, what each of them answered."""

from __future__ import annotations

import re

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, Priority
from enticed.core.vocabulary import Fault, Stretch
from protocol import messages as ms
from protocol.limits import MIB
from tests.core.bench import IMAGE, Bench, sizes
from tests.core.chaos import contact, node


def why(bench: Bench) -> str:
    line = bench.host.why("order", bench.now)
    assert "\n" not in line
    return line


def answers(line: str) -> list[str]:
    """What each host answered, in the order of their ids."""
    return re.findall(r"\w+ \(([^)]*)\)", line.split("asked: ")[1])


def test_who_was_asked_and_what_each_answered() -> None:
    bench = Bench(hedge_after_s=99.0)
    bench.tell(ev.OrderPlaced(Order("order", "name", bench.now, priority=Priority.PREWARM, due_at=bench.now + 900)))
    assert why(bench) == "it is being found out what name means"
    bench.tell(ev.TargetResolved("order", "name", IMAGE))
    assert why(bench) == "no manifest yet; asked: nobody"
    bench.tell(ev.ProvidersFound(IMAGE, (contact(2), contact(3), contact(4))))
    assert set(answers(why(bench))) == {"is being dialled"}
    bench.tell(ev.DialFailed(node(2), "connection refused"))
    bench.meet(3, 4, 5)
    bench.hear(3, ms.NotHeld(IMAGE))
    unanswered = ["has not answered"] * 2
    assert answers(why(bench)) == ["cannot be reached: connection refused", "has none of it", *unanswered]

    bench.has(4, held=[0, 1])
    assert why(bench).startswith(f"its manifest was asked of {node(4).short}")
    bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
    assert "space is being reserved" in why(bench)
    bench.tell(ev.SpaceReserved(IMAGE, np.zeros(4, np.bool_), sizes(4)))
    fetches = bench.open_all()
    assert why(bench).startswith("4 of 4 pieces are missing, piece 2 is with 0 of those who were asked; asked: ")
    assert answers(why(bench))[2] == "has not got it"
    bench.has(5, held=[2, 3])
    fetches += bench.open_all()
    assert why(bench).startswith("it goes on, 4 of 4 pieces are missing: some were asked of ")
    bench.now += 6.0
    assert why(bench).startswith("4 of 4 pieces are missing: some were asked of ")
    assert why(bench).endswith(", of whom nothing has come for 6 s")
    for fetch in list(bench.host.books.requests):
        bench.tell(ev.FetchFailed(fetch.number, Fault.BUSY, "busy", retry_after_s=60.0))
    assert answers(why(bench))[2:] == ["is busy", "has not got it"]
    bench.tell(ev.PeerDown(node(5)))
    assert answers(why(bench))[3] == "went away"


def test_a_host_that_sent_corrupt_bytes_is_named() -> None:
    bench = Bench()
    bench.fetching(2)
    fetch = bench.open_all()[0]
    bench.tell(ev.FetchFailed(fetch.request, Fault.CORRUPT, "wrong", fragment=0))
    assert answers(why(bench)) == ["sent corrupt bytes"]


def test_the_ends() -> None:
    bench = Bench()
    bench.fetching(1)
    bench.deliver(bench.open_all())
    assert "written to the disk for good" in why(bench)
    bench.tell(ev.Synced(IMAGE, (0,)))
    bench.tell(ev.Sealed(IMAGE))
    assert why(bench) == "all of it is here"
    bench.tell(ev.OrderCancelled("order"))
    assert why(bench) == "it is cancelled"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure.NO_SPACE, r"waits for this host's disk, for \d+ s more: full"),
        (Failure.DISK, "until a probe works: full"),
    ],
)
def test_a_paused_order(failure: Failure, said: str) -> None:
    bench = Bench()
    bench.fetching(2)
    bench.tell(ev.PieceUnopened(IMAGE, 0, failure, "full"))
    assert re.search(said, why(bench))


def test_what_is_cloned() -> None:
    bench = Bench()
    bench.fetching(2, missing=[])
    assert bench.all(ef.OpenPiece)
    assert "is being cloned" in why(bench)


def test_what_readers_have_fetched_is_not_missing() -> None:
    """It is here, and waits until they are quiet."""
    bench = Bench(readers_quiet_s=60.0)
    bench.fetching(2, priority=Priority.READ)
    wait = "written to the disk for good once readers have waited for nothing for 60 s"

    def read(number: int, piece: int, first: int, count: int) -> None:
        wanted = (Stretch(piece, first, (MIB // 4,) * count),)
        bench.tell(ev.DemandRaised(number, IMAGE, wanted, bench.now + 10))
        bench.deliver(bench.all(ef.Fetch))

    def done() -> tuple[int, int]:
        progress = bench.host.progress(IMAGE)
        assert progress is not None
        return progress.pieces_done, progress.done_bytes

    read(1, 0, 0, 2)
    assert why(bench).startswith("2 of 2 pieces are missing, ")
    assert done() == (0, 0), "pieces count"
    read(2, 0, 2, 2)
    assert why(bench).startswith(f"1 of 2 pieces are missing (1 more have come for readers, and are {wait}), piece 1 ")
    assert done() == (1, MIB)
    read(3, 1, 0, 4)
    assert why(bench) == "all has come, and is being written to the disk for good"
    assert done() == (2, 2 * MIB)
    for piece in range(2):
        bench.open(piece, missing=[])
        assert done() == (2, 2 * MIB)
    assert "being written to the disk for good" in why(bench)


def test_a_line_names_a_few_hosts_and_says_how_many_more() -> None:
    bench = Bench()
    bench.order()
    bench.meet(*range(1, 9))
    assert why(bench).endswith(" and 3 more")
