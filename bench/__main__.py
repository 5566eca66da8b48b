"""All benchmarks one after another, each in a process of its own; or those that are named.

python -m bench                          # and keep what was found in bench/results/
python -m bench swarm small_image
python -m bench --quick                  # the main ratios, small, beside those on record; exit code 0 whatever they are
python -m bench --quick --record         # put them on record
python -m bench --table                  # what is on record, in Markdown, as it stands in docs/performance.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import Row, read_rows, table

RESULTS = Path(__file__).parent / "results"
QUICK_RECORD = "quick"
BENCHMARKS: dict[str, Sequence[str]] = {
    "pull_one_peer": ("pull_one_peer.py",),
    "pull_in_memory": ("pull_one_peer.py", "--directory", "/dev/shm", "--size-gib", "2"),
    "pull_four_peers": ("pull_four_peers.py",),
    "pull_libtorrent": ("pull_libtorrent.py",),
    "growth": ("growth.py",),
    "import_image": ("import_image.py",),
    "versions": ("versions.py",),
    "many_images": ("many_images.py",),
    "idle": ("idle.py",),
    "plan_large": ("plan_large.py",),
    "small_image": ("small_image.py",),
    "memory": ("memory.py",),
    "rates": ("rates.py",),
    "swarm": ("swarm.py",),
    "crowd": ("crowd.py",),
    "campaign": ("campaign.py",),
    "read_image": ("read_image.py",),
    "boot": ("boot.py",),
}
"""Script and arguments of each."""
QUICK = {
    "pull_one_peer": ["--size-gib", "1", "--rounds", "2"],
    "import_image": ["--rounds", "1"],
    "small_image": ["--count", "20"],
}
"""Under two minutes together."""
WORSE_BY = 0.2
"""What may be noise on a machine that others use, too."""


def run(name: str, arguments: Sequence[str] = ()) -> tuple[int, list[Row]]:
    """The benchmark's exit code, and its rows."""
    print(f"--- {name}", flush=True)
    script, *own = BENCHMARKS[name]
    with tempfile.NamedTemporaryFile("r", prefix="enticed-bench-") as found:
        path = Path(__file__).with_name(script)
        command: list[str | Path] = [sys.executable, path, "--rows", found.name, *own, *arguments]
        return subprocess.run(command, check=False).returncode, read_rows(found)


def keep(name: str, rows: Sequence[Row]) -> None:
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def on_record(name: str) -> list[Row]:
    path = RESULTS / f"{name}.json"
    return [Row(**row) for row in json.loads(path.read_text())["rows"]] if path.exists() else []


def recorded_table(names: Iterable[str] = BENCHMARKS) -> str:
    return table(row for name in names for row in on_record(name))


def machine() -> dict[str, object]:
    """What figures depend on."""
    about = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in about if line.startswith("model name")), "unknown")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 1),
    }


def compare(now: Sequence[Row], before: Sequence[Row]) -> list[str]:
    """A line for each row whose figure is worse than the recorded one by more than WORSE_BY; where either of them is
    nothing, for each that no longer reaches its goal."""
    recorded = {row.name: row.value for row in before}
    worse = []
    for row in now:
        was = recorded.get(row.name)
        if was is None or row.value is None or not row.goal:
            continue
        if not (was and row.value):
            if not row.reached:
                worse.append(f"{row.name}: {row.shown}, and {was:.3g} on record")
            continue
        change = (row.value / was if row.at_most is not None else was / row.value) - 1
        if change > WORSE_BY:
            worse.append(f"{row.name}: {row.shown}, worse than the recorded {was:.3g} by {change:.0%}")
    return worse


def run_quickly(*, record: bool) -> int:
    rows = [row for name, arguments in QUICK.items() for row in run(name, arguments)[1]]
    if record:
        keep(QUICK_RECORD, rows)
        return 0
    before = on_record(QUICK_RECORD)
    if not before:
        print("--- nothing is on record: python -m bench --quick --record")
        return 0
    worse = compare(rows, before)
    print("\n".join(["--- worse than on record:", *worse] if worse else ["--- nothing is worse than on record"]))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="the main ratios, beside those on record")
    parser.add_argument("--record", action="store_true", help="with --quick: put them on record")
    parser.add_argument("--table", action="store_true", help="print what is on record")
    arguments = parser.parse_args()
    names = arguments.names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    if arguments.table:
        print(recorded_table(names))
        return 0
    if arguments.quick:
        return run_quickly(record=arguments.record)
    missed = []
    for name in names:
        code, rows = run(name)
        if rows:
            keep(name, rows)
        if code:
            missed.append(name)
    if missed:
        print(f"--- missed or failed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
