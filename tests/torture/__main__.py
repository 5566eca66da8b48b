"""Faults by the thousand, which must lose nothing: `make torture`. What fails is printed with how to see it again."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median
from typing import TypeVar

from tests.torture import catalogue_cuts, cuts, errors, floors, kills, soak
from tests.torture.cuts import BrokenPromiseError

CUTS, FAULTS, CATALOGUE_CUTS, KILLS = 20_000, 8_000, 5_000, 500
FAILURES_SHOWN_MAX_COUNT = 10
KILLS_TOLD_EVERY = 25
FLOOR_HOSTS = 1000
SOAK_MINUTES = 60
VAIN_MAX_COUNT = 4
"""Runs of a kind in a row that ended before their call came: there is none left."""
CATALOGUE = "power cuts under SQLite"
Point = TypeVar("Point")


def main() -> int:
    chosen = _parser().parse_args()
    if chosen.part == "all":
        simulated = run("power cuts", cuts.cuts(CUTS), cuts.play) | run(
            "failing calls", errors.faults(FAULTS), errors.play
        )
        sqlite = run(CATALOGUE, catalogue_cuts.cuts(CATALOGUE_CUTS), catalogue_cuts.play)
        return simulated | sqlite | run_floors(FLOOR_HOSTS, 1) | run_kills(KILLS, kills.kills())
    if chosen.part == "floors":
        return run_floors(chosen.hosts, chosen.seed)
    if chosen.part == "soak":
        return run_soak(chosen.minutes, chosen.seed)
    if chosen.part == "kills":
        kill = [kills.Kill(chosen.doing, chosen.calls, chosen.at)] if chosen.at else kills.kills(chosen.step)
        return run_kills(1 if chosen.at else chosen.points, kill)
    is_one = chosen.seed is not None
    if chosen.part == "catalogue":
        point = [catalogue_cuts.CatalogueCut(chosen.kind, chosen.at, chosen.seed)] if is_one else None
        return run(CATALOGUE, point or catalogue_cuts.cuts(chosen.points), catalogue_cuts.play)
    if chosen.part == "cuts":
        cut = [cuts.Cut(chosen.seed, chosen.at, chosen.again_at, chosen.after_kill)] if is_one else None
        return run("power cuts", cut or cuts.cuts(chosen.points), cuts.play)
    fault = [errors.Fault(chosen.seed, chosen.at, chosen.errno, chosen.for_good)] if is_one else None
    return run("failing calls", fault or errors.faults(chosen.points), errors.play)


def run(name: str, points: Iterable[Point], play: Callable[[Point], None]) -> int:
    """Play them all, print what failed and the totals; the exit status."""
    started_s, tried, failures = time.monotonic(), 0, 0
    for point in points:
        tried += 1
        try:
            play(point)
        except BrokenPromiseError as failure:
            failures += 1
            print(failure, file=sys.stderr)
            if failures == FAILURES_SHOWN_MAX_COUNT:
                break
    took_s = time.monotonic() - started_s
    verdict = f"{failures} FAILED" if failures else "lost 0, wrong bytes 0, left over 0"
    print(f"{name}: {tried} points tried in {took_s:.0f} s, {verdict}")
    return 1 if failures else 0


def run_kills(points: int, candidates: Iterable[kills.Kill]) -> int:
    """Play them until so many have come to a kill, or there is nothing left to kill; the exit status."""
    started_s, killed, failures = time.monotonic(), 0, 0
    vain: Counter[tuple[str, str]] = Counter()
    with kills.victims() as victims:
        for kill in candidates:
            kind = kill.doing, kill.calls
            if min(vain[one] for one in kills.KINDS) >= VAIN_MAX_COUNT:
                break
            if vain[kind] >= VAIN_MAX_COUNT:
                continue
            try:
                is_killed = victims.play(kill)
            except BrokenPromiseError as failure:
                is_killed, failures = True, failures + 1
                print(failure, file=sys.stderr)
            killed += is_killed
            vain[kind] = 0 if is_killed else vain[kind] + 1
            if is_killed and killed % KILLS_TOLD_EVERY == 0:
                print(f"{killed} of {points} killed after {time.monotonic() - started_s:.0f} s", file=sys.stderr)
            if killed == points or failures == FAILURES_SHOWN_MAX_COUNT:
                break
        restarts_s = sorted(victims.restarts_s)
    verdict = f"{failures} FAILED" if failures else "lost 0, wrong bytes 0, left over 0"
    restart = f"restart {median(restarts_s):.1f} s (median), {restarts_s[-1]:.1f} s (slowest)"
    print(f"kills: {killed} points tried in {time.monotonic() - started_s:.0f} s, {verdict}, {restart}")
    return 1 if failures else 0


def run_floors(hosts: int, seed: int) -> int:
    """Have half of the holders of 20 images leave, and print how many copies were taken for those; the exit status."""
    wanted, taken, took_s = floors.leave(hosts, images=20, replicas=8, gone=0.5, seed=seed, hours=4)
    verdict = "" if taken <= floors.EXCESS_MAX * wanted else ": TOO MANY"
    all_there = f"all there after {took_s / 60:.0f} min (simulated)"
    print(f"floors: {hosts} hosts, {wanted} copies wanted, {taken} taken, {all_there}{verdict}")
    return 1 if verdict else 0


def run_soak(minutes: float, seed: int) -> int:
    """Play it, print what was done and what is wrong; the exit status."""
    print(f"soak: seed {seed}", flush=True)
    soaked = soak.play(minutes, seed)
    for line in soaked.wrong:
        print(line, file=sys.stderr)
    done = ", ".join(f"{count} x {name}" for name, count in sorted(soaked.done.items()))
    right = "no descriptor, task, file or reservation leaked, all images right"
    verdict = f"{len(soaked.wrong)} WRONG" if soaked.wrong else right
    print(f"soak: {soak.HOSTS} daemons, {minutes:g} min, {done}: {verdict}; {soaked.figures}")
    return 1 if soaked.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("all", help="all of it, as many as `make torture`")
    for name, points, about in (
        ("cuts", CUTS, "power cuts, simulated, at every k-th call of the store"),
        ("errors", FAULTS, "failing calls, simulated: each error, once and for good"),
        ("catalogue", CATALOGUE_CUTS, "power cuts under the real SQLite, by what strace saw it write and sync"),
    ):
        part = parts.add_parser(name, help=about, description=about)
        part.add_argument("--points", type=int, default=points, help=f"how many ({points})")
        part.add_argument("--seed", type=int, help="play one point again: its seed")
        part.add_argument("--at", type=int, default=1, help="the number of the call that it happens at")
    part = parts.add_parser("kills", help="real daemons killed at system calls", description="Needs strace.")
    part.add_argument("--points", type=int, default=KILLS, help=f"how many ({KILLS})")
    part.add_argument("--step", type=int, default=1, help="at every k-th call (1)")
    part.add_argument("--doing", choices=("pull", "publish"), default="pull", help="with --at: killed while doing what")
    part.add_argument("--calls", choices=tuple(kills.CALLS), default="disk", help="with --at: which calls are counted")
    part.add_argument("--at", type=int, default=0, help="one point: the number of the call")
    part = parts.add_parser("floors", help="hosts leave, others take copies, simulated", description=floors.__doc__)
    part.add_argument("--hosts", type=int, default=FLOOR_HOSTS, help=f"how many ({FLOOR_HOSTS})")
    part.add_argument("--seed", type=int, default=1, help="of who leaves (1)")
    part = parts.add_parser("soak", help="twenty daemons under all of it at random, for long", description=soak.__doc__)
    part.add_argument("--minutes", type=float, default=SOAK_MINUTES, help=f"how long ({SOAK_MINUTES})")
    part.add_argument("--seed", type=int, default=1, help="of what is done (1)")
    kinds, kind = catalogue_cuts.KINDS, catalogue_cuts.KINDS[0]
    parts.choices["catalogue"].add_argument(
        "--kind", choices=kinds, default=kind, help="with --seed: of which catalogue"
    )
    parts.choices["cuts"].add_argument("--again-at", type=int, default=0, help="the call of the next start likewise")
    parts.choices["cuts"].add_argument(
        "--after-kill", action="store_true", help="a kill there, the cut after a restart"
    )
    parts.choices["errors"].add_argument("--errno", type=int, default=5, help="which error (5)")
    parts.choices["errors"].add_argument("--for-good", action="store_true", help="all calls after it fail as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
