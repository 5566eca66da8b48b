"""Counters that forget what they count none of."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

Key = TypeVar("Key")


def take_off(counter: Counter[Key], key: Key, count: int = 1) -> None:
    """So many less; a key without any goes, so that `len` is how many have some."""
    counter[key] -= count
    if not counter[key]:
        del counter[key]
