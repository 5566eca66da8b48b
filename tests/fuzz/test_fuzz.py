"""Each parser for five seconds: whatever bytes come, only its own errors come out. `make fuzz` tries ten million."""

from __future__ import annotations

import time
from random import Random

import pytest

from tests.fuzz.mutating import mutations
from tests.fuzz.seeds import all_targets, corpus

SECONDS = 5.0
AT_ONCE = 50
"""Inputs between two looks at the clock."""

NAMES = (
    "root", "page", "statement", "statements", "name", "profile", "trust", "envelope", "record", "control", "bulk",
    "dht", "session", "served", "reply", "datagram", "hello", "certificate", "authority", "request", "join", "joined",
    "token", "group", "recall", "floor", "privacy", "text_names", "body", "parameters", "configuration",
    "prefix", "container", "catalogue",
)  # fmt: skip


def test_all_targets_are_run() -> None:
    assert set(NAMES) == set(all_targets())


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_corpus_are_taken(name: str) -> None:
    target = all_targets()[name]
    for data in (*target.seeds, *corpus(name), b""):
        target(data)


@pytest.mark.hundreds
@pytest.mark.parametrize("name", NAMES)
def test_only_the_typed_error_comes_out(name: str) -> None:
    target, seed = all_targets()[name], time.time_ns()
    tried, data, until_s = 0, b"", time.monotonic() + SECONDS
    print(f"{name}: seed {seed}")
    try:
        for data in mutations((*target.seeds, *corpus(name)), Random(seed)):
            target(data)
            tried += 1
            if tried % AT_ONCE == 0 and time.monotonic() > until_s:
                break
    except Exception:
        print(f"input {tried}: {data[:4000].hex()}")
        raise
    print(f"{tried} inputs")
