"""Planted bugs are seen by the fuzz; and a change of the core under a mutant is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from protocol.errors import LocalError
from simnet.command import main
from simnet.mutants import changed, plant, source_of
from simnet.planted import MUTANTS, Mutant

SAMPLE = (
    "offer what is being fetched",
    "announce as whole what is not durable",
    "send without looking whether it is here",
)
"""All of them are planted by `python -m simnet mutants`."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fits_the_core_in_one_place(mutant: Mutant) -> None:
    source = source_of(mutant)
    assert changed(mutant, source) != source
    compile(changed(mutant, source), mutant.module, "exec")


def test_there_are_enough_and_all_are_of_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


@pytest.mark.hundreds
def test_a_sample_is_seen() -> None:
    result = CliRunner().invoke(main, ["mutants", "--seeds", "10", *SAMPLE])
    assert result.exit_code == 0, result.output
    assert f"{len(SAMPLE)} of {len(SAMPLE)} seen" in result.output


def test_what_is_no_bug_is_not_seen_and_that_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = Mutant("none at all", "uploads", "self._clock_bytes = 0", "self._clock_bytes = 1")
    monkeypatch.setattr("simnet.mutants.MUTANTS", (harmless,))
    result = CliRunner().invoke(main, ["mutants", "--seeds", "2", "--jobs", "1"])
    assert result.exit_code == 1
    assert "NOT SEEN: none at all" in result.output


def test_a_text_that_stands_elsewhere_or_nowhere_is_refused() -> None:
    mutant = MUTANTS[0]
    for text, times in (("self", "[0-9]{2,}"), ("no such text", "0")):
        with pytest.raises(LocalError, match=f"stands {times} times in {mutant.module}"):
            changed(replace(mutant, text=text), source_of(mutant))


def test_nothing_is_planted_in_what_is_imported_already() -> None:
    with pytest.raises(LocalError, match="is imported already"):
        plant(MUTANTS[0])


def test_an_unknown_one_is_refused() -> None:
    result = CliRunner().invoke(main, ["mutants", "such"])
    assert (result.exit_code, "no mutant is called 'such'" in result.stderr) == (2, True)
