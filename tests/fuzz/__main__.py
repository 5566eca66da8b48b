"""`make fuzz`: ten million inputs for each parser, found by what they make the parser do (atheris, libFuzzer).

    python -m tests.fuzz                          all of them, as many at once as there are processors
    python -m tests.fuzz root --runs 100000       one of them
    python -m tests.fuzz --keep                   afterwards, keep in tests/fuzz/corpus what reaches most with least

What breaks a parser is left in build/fuzz, and printed: put it into tests/fuzz/corpus/NAME.hex, for every test to try.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RUNS = 10_000_000
WORK = Path("build/fuzz")
LONGEST_BYTES = 4096
SLOWEST_INPUT_S = 1200
"""By the clock: a run may stand behind everybody else for a while."""
MEMORY_MAX_MIB = 2048
KEPT_COUNT = 8
KEPT_MAX_SIZE_BYTES = 1024
"""Of each target's corpus so many of the smallest inputs that reach something new: every test run tries them."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", help="targets; all of them, if none is named")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(f"skipped: atheris is not there for Python {sys.version_info.major}.{sys.version_info.minor}")
        return 0
    if asked.inside:
        inside(asked.names[0], asked.runs)
    from tests.fuzz.seeds import all_targets

    names = asked.names or list(all_targets())
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        good = list(pool.map(lambda name: fuzz(name, asked.runs), names))
    if asked.keep:
        for name in names:
            keep(name)
    print(f"{sum(good)} of {len(names)} targets let nothing out but their own errors")
    return 0 if all(good) else 1


def fuzz(name: str, runs: int) -> bool:
    """One target in a process of its own, which libFuzzer ends. Whether all went well."""
    from tests.fuzz.seeds import all_targets, corpus

    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate((*all_targets()[name].seeds, *corpus(name))):
        (work / f"seed-{number}").write_bytes(data)
    began_s = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz", name, "--inside", "--runs", str(runs)]
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=in_memory) as directory:  # libFuzzer ends without cleaning up
        environment = {**os.environ, "TMPDIR": directory}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
    tried = [int(count) for count in re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE)]
    print(f"{name}: {max(tried, default=0)} inputs in {time.monotonic() - began_s:.0f} s", flush=True)
    if done.returncode:
        print(done.stderr[-3000:])
    return done.returncode == 0


def inside(name: str, runs: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["enticed", "protocol"]):
        from tests.fuzz.seeds import all_targets
    target = all_targets()[name]
    longest_bytes = max(LONGEST_BYTES, *map(len, target.seeds))  # libFuzzer cuts off what is longer
    limits = [f"-max_len={longest_bytes}", f"-timeout={SLOWEST_INPUT_S}", f"-rss_limit_mb={MEMORY_MAX_MIB}"]
    atheris.Setup(
        [sys.argv[0], f"-runs={runs}", f"-artifact_prefix={WORK}/{name}-", *limits, str(WORK / name)],
        target,
    )
    atheris.Fuzz()


def keep(name: str) -> None:
    """What was kept before, and the smallest of what this run has found, but for the seeds: they are made anew."""
    from tests.fuzz.seeds import CORPUS, corpus

    files = [file for file in (WORK / name).iterdir() if not file.name.startswith("seed-")]
    found = sorted({file.read_bytes() for file in files}, key=lambda data: (len(data), data))
    small = [data for data in found if 0 < len(data) <= KEPT_MAX_SIZE_BYTES][:KEPT_COUNT]
    kept = dict.fromkeys((*corpus(name), *small))
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}.hex").write_text("".join(f"{data.hex()}\n" for data in kept))


if __name__ == "__main__":
    sys.exit(main())
