"""Planted bugs: small changes to the core, each of which the fuzz has to see. They prove that its checkers look.

A mutant is a text that stands once in a module of the core, and what stands there instead. It is put in while the
module is imported, in a process of its own; no file changes. This module imports nothing of the core, so that it can.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, FrameType, ModuleType

from protocol.errors import LocalError
from simnet.planted import MUTANTS, Mutant

SEED_MAX_S = 60.0
"""A seed that takes more of a processor's time hangs, and is seen by that."""


@dataclass(frozen=True, slots=True)
class Catch:
    """What saw a mutant; `seed` is None where nothing did."""

    mutant: Mutant
    seed: int | None
    problem: str


def hunt_all(mutants: Sequence[Mutant], seeds: int, jobs: int) -> Iterator[Catch]:
    """Each mutant's fate within so many seeds, in order; `LocalError` before any where one does not fit."""
    for mutant in mutants:
        changed(mutant, source_of(mutant))
    with get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap(partial(hunt, seeds=seeds), mutants)


def hunt(mutant: Mutant, seeds: int) -> Catch:
    """Play seeds with the mutant in place until one fails. Only in a process that has not imported its module yet."""
    plant(mutant)
    from simnet.fuzz import play

    signal.signal(signal.SIGPROF, _too_long)
    for seed in range(seeds):
        signal.setitimer(signal.ITIMER_PROF, SEED_MAX_S)
        verdict = play(seed)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if verdict.problem:
            return Catch(mutant, seed, verdict.problem)
    return Catch(mutant, None, "")


def plant(mutant: Mutant) -> None:
    """From now on the module is imported with the change; `LocalError` where it was imported before."""
    if mutant.module in sys.modules:
        raise LocalError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))


def changed(mutant: Mutant, source: str) -> str:
    """The module's source with the change; `LocalError` where its text does not stand there just once."""
    times = source.count(mutant.text)
    if times != 1:
        raise LocalError(f"mutant {mutant.name!r}: its text stands {times} times in {mutant.module}")
    return source.replace(mutant.text, mutant.instead)


def source_of(mutant: Mutant) -> str:
    """The module's source as it is."""
    path = Path(__file__).parents[1].joinpath(*mutant.module.split(".")).with_suffix(".py")
    return path.read_text(encoding="utf-8")


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names, or all; `LocalError` for a name that there is not."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in names:
        if name not in known:
            raise LocalError(f"no mutant is called {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(MUTANTS)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._mutant)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Of the changed source, past any cache."""
        source = changed(self._mutant, Path(self.path).read_text(encoding="utf-8"))
        return compile(source, self.path, "exec", dont_inherit=True)


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"it hangs: more than {SEED_MAX_S} s")
