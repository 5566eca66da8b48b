"""The pace of bytes: never more than it says, whoever takes them, and nobody waits once it is closed."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.limits import RATE_BURST_S, RATE_PORTION_SIZE_BYTES
from enticed.pace import Pace
from enticed.transfer.tls import LOWER_EFFORT_TRAFFIC_CLASS, _mark_lower_effort

RATE = 50_000_000


@given(st.lists(st.tuples(st.integers(1, 300_000), st.floats(0, 0.2)), max_size=60))
def test_no_stretch_of_time_has_more_than_the_pace_and_one_burst(takes: list[tuple[int, float]]) -> None:
    """takes: how much each time, and how long after it was let go."""
    pace, now = Pace(RATE), 100.0
    gone: list[tuple[float, int]] = []
    for size_bytes, idle_s in takes:
        now += max(0.0, pace.due_s(size_bytes, now))
        gone.append((now, size_bytes))
        now += idle_s
    for first, (start, _) in enumerate(gone):
        for last, (end, size_bytes) in enumerate(gone[first:], first):
            before_it = sum(size for _, size in gone[first:last])
            assert before_it <= RATE * (end - start + RATE_BURST_S) + 300_000 + 1, (start, end, size_bytes)


def test_without_a_pause_it_gives_the_whole_rate() -> None:
    pace, now, taken = Pace(RATE), 100.0, 0
    while now < 110.0:
        now += max(0.0, pace.due_s(pace.portion_bytes, now))
        taken += pace.portion_bytes
    assert taken == pytest.approx(10 * RATE, rel=0.01)


def test_without_a_limit_nobody_waits_and_portions_are_large() -> None:
    pace = Pace()
    assert pace.portion_bytes == RATE_PORTION_SIZE_BYTES
    assert pace.due_s(1 << 40, 0.0) == 0.0


def test_a_new_limit_holds_from_now_on() -> None:
    pace = Pace(1_000_000)
    pace.due_s(100_000_000, 0.0)  # a hundred seconds' worth
    pace.limit(None)
    assert pace.due_s(1 << 40, 1.0) == 0.0
    pace.limit(1_000_000)
    assert pace.due_s(1_000_000, 2.0) <= 0.0
    assert pace.due_s(1, 2.0) == pytest.approx(1.0 - RATE_BURST_S)


def test_portions_are_small_where_the_pace_is() -> None:
    assert Pace(1_000_000).portion_bytes == 1_000_000 * RATE_BURST_S


def test_who_waits_goes_on_at_once_when_it_is_closed() -> None:
    pace = Pace(1_000_000)
    pace.due_s(10**12, 0.0)
    waits = threading.Thread(target=pace.take, args=(1,))
    waits.start()
    pace.close()
    waits.join(10)
    assert not waits.is_alive()


@pytest.mark.parametrize(
    ("family", "level", "option"),
    [
        (socket.AF_INET, socket.IPPROTO_IP, socket.IP_TOS),
        (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
    ],
)
def test_lower_effort_is_what_the_kernel_marks(family: int, level: int, option: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        _mark_lower_effort(sock)
        assert sock.getsockopt(level, option) == LOWER_EFFORT_TRAFFIC_CLASS
