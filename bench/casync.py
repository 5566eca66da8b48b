"""casync, as a store that nginx serves: what others have to put an image together from chunks."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

STORE = "store.castr"


def make_store(image: Path, served: Path, index: str) -> None:
    """Cut an image into a store in the directory that is served. index: the name of the file that lists its chunks."""
    command: list[str | Path] = ["casync", "make", f"--store={served / STORE}", served / index, image]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def extract(url: str, index: str, sink: Path, seed: Path | None = None) -> float:
    """Put an image together from what is served, and from the seed; the seconds until it is synced."""
    seeds = [] if seed is None else [f"--seed={seed}"]
    since = time.perf_counter()
    subprocess.run(
        ["casync", "extract", f"--store={url}/{STORE}", *seeds, f"{url}/{index}", sink],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["sync", sink], check=True)
    return time.perf_counter() - since
