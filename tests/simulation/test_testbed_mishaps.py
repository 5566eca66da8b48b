"""What goes wrong on the testbed: drawn by the seed alone, and played without a host being asked that cannot answer."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from simnet.faults import Mishap, Trouble
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, scatter
from simnet.testbed.mishaps import Drawn, Mishaps, draw
from simnet.testbed.seeds import Seeds

SIZE_BYTES = 16 * MIB
GROUPS = {"seed": [0, 1], "hosts": [2, 3, 4, 5], "": [0, 1, 2, 3, 4, 5]}
FAULTS = (
    Mishap(Trouble.PAUSE, "hosts", percent=50, over_s=3.0),
    Mishap(Trouble.GONE, "seed", hosts=1, after_seed_copies=0.5, over_s=2.0),
    Mishap(Trouble.SLOW_LINK, percent=20),
)


def drawn(seed: int) -> list[Drawn[int]]:
    return draw(FAULTS, GROUPS.__getitem__, np.random.default_rng(seed))


def test_a_seed_draws_the_same_for_all_mishaps_before_the_first() -> None:
    assert drawn(1) == drawn(1) != drawn(2)
    pause, gone, slow = (one.moments for one in drawn(1))
    assert (len(pause), len(gone), len(slow)) == (2, 1, 1)
    assert all(0 <= at_s <= 3 and host in GROUPS["hosts"] for at_s, host in pause)
    assert gone[0][1] in GROUPS["seed"]
    assert slow[0][0] == 0


@pytest.fixture
def pair() -> Iterator[tuple[Daemon, Daemon]]:
    """One has sent the other a copy."""
    with Testbed() as testbed:
        founder = testbed.found()
        (other,) = testbed.join(1)
        disk = testbed.directory / "disk.raw"
        scatter(disk, SIZE_BYTES, SIZE_BYTES, seed=1)
        founder.json("publish", disk, "image:1")
        yield founder, other


def play(seeds: Seeds, mishaps: list[Drawn[Daemon]], last: Daemon, then: Callable[[], None] = lambda: None) -> None:
    """Play them and, after them, a slow link of the last host; when it is there all is over."""
    over = threading.Event()

    def shape(host: Daemon, factor: float) -> None:
        if factor > 1:
            then()
            over.set()

    end = Drawn(Mishap(Trouble.SLOW_LINK, after_seed_copies=0.0), ((0.1, last),))
    playing = Mishaps([*mishaps, end], seeds, shape)
    playing.play(time.monotonic(), over)
    assert playing.bad == {last.number}, "whose link is slow counts as one"


def moment(what: Trouble, host: Daemon, for_s: float = np.inf, from_s: float = 0.0) -> Drawn[Daemon]:
    return Drawn(Mishap(what, from_s=from_s, for_s=for_s), ((0.0, host),))


@pytest.mark.slow
def test_seeds_that_cannot_answer_count_with_what_they_said_last(pair: tuple[Daemon, Daemon]) -> None:
    """A frozen one is asked neither for the copies that others wait for nor before it is killed."""
    seed, other = pair
    seeds = Seeds([seed], SIZE_BYTES)
    other.json("pull", "image:1")
    copies = seeds.copies()
    assert copies >= 1
    looked: list[float] = []
    began = time.monotonic()
    mishaps = [moment(Trouble.PAUSE, seed), moment(Trouble.CRASH, seed, 1000.0), moment(Trouble.GONE, seed)]
    play(seeds, mishaps, other, lambda: looked.append(seeds.copies()))
    assert time.monotonic() - began < 30
    assert looked == [copies]
    assert seed.control.get("/v1/status")["sent_bytes"] == 0, "the one that came back is another"
    assert seeds.copies() == copies


@pytest.mark.slow
def test_what_lasts_ends_when_all_is_over(pair: tuple[Daemon, Daemon]) -> None:
    seed, other = pair
    seeds = Seeds([seed, other], SIZE_BYTES)
    mishaps = [moment(Trouble.PAUSE, seed), moment(Trouble.PAUSE, seed, for_s=0.0), moment(Trouble.GONE, other)]

    def look() -> None:
        with open(f"/proc/{seed.process.pid}/stat") as file:  # type: ignore[union-attr]
            assert file.read().rpartition(")")[2].split()[0] == "T", "the longer of two pauses counts"

    play(seeds, mishaps, seed, look)
    assert seed.control.get("/v1/status")["sent_bytes"] == 0
    assert other.process is None
    assert seeds.copies() == 0
