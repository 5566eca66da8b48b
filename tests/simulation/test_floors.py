"""A small version of what `python -m tests.torture floors` plays with a thousand hosts."""

from __future__ import annotations

from tests.torture.floors import EXCESS_MAX, leave


def test_what_left_comes_back_and_hardly_more() -> None:
    wanted, taken, took_s = leave(hosts=60, images=6, replicas=5, gone=0.5, seed=1, hours=3)
    print(f"{wanted} copies wanted, {taken} taken, all there after {took_s / 60:.0f} min")
    assert wanted >= 10
    assert took_s <= 25 * 60, "long before what the dead have announced expires"
    assert taken <= EXCESS_MAX * wanted
