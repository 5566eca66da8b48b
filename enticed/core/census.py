"""The census: how many other hosts hold an image, by what the DHT answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.records import ProviderRecord, ProviderState


@dataclass(frozen=True, slots=True)
class Count:
    """Other hosts that hold all of an image, and some of it. An estimate where there are many."""

    whole: int
    partial: int


def count_of(providers: Sequence[ProviderRecord], population: int, *, is_own_counted: bool) -> Count:
    """providers: a sample of others; population: how many there seem to be, this host among them if is_own_counted.

    A sample has a holder of all of it if there is any; beyond that, its shares are taken for those of the population.
    """
    seen = len(providers)
    if not seen:
        return Count(0, 0)
    whole = sum(one.state is ProviderState.WHOLE for one in providers)
    all_of_them = max(seen, population - is_own_counted)
    estimated = max(whole, round(all_of_them * whole / seen))
    return Count(estimated, all_of_them - estimated)
