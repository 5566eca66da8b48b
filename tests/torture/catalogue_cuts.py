"""Power cuts under the real SQLite: what it wrote and synced, as strace saw it, cut off anywhere and opened again.

A process does with the catalogue what a daemon does, under strace. Its system calls are played into the twin of the
files, up to a point; there the power goes, and of what was not synced the twin keeps what its dice leave. What is left
is written to real files, and SQLite has to make of it what was acknowledged: no less, no damage, and at the most the
one commit more that was under way.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from enticed.core.campaigns.campaign import Campaign
from enticed.core.orders import Order, OrderState
from enticed.store.catalogue import Catalogue, ImageRecord
from enticed.store.files import Access
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.sqlite import SqliteCatalogue, open_or_rebuild
from protocol.identifiers import ImageId
from tests.programs import need
from tests.project.imports import ROOT
from tests.torture.cuts import BrokenPromiseError

NAME = "catalogue.sqlite"
KINDS = ("new", "upgrade")
"""A catalogue that is made, and one of version 1 that is brought up to date."""
STEPS = 60
REOPEN_EVERY = 11
BITMAP_MAX_SIZE_BYTES = 16_384
"""So that a commit takes several pages, and the log is moved into the file while commits go on."""
Step = Callable[[Catalogue], None]
Call = tuple[str, tuple[Any, ...]]
"""Of `Files`; or ("acknowledged", (how many steps,))."""


@dataclass(frozen=True, slots=True)
class CatalogueCut:
    """at: how many of the calls have happened."""

    kind: str
    at: int
    seed: int

    @property
    def command(self) -> str:
        return f"python -m tests.torture catalogue --kind {self.kind} --at {self.at} --seed {self.seed}"


def steps() -> list[Step]:
    """What is done with the catalogue, one commit each."""
    dice = random.Random(1)
    return [_step(dice, number) for number in range(STEPS)]


def _step(dice: random.Random, number: int) -> Step:
    image = ImageId(bytes([dice.randrange(4)]) * 32)
    bitmap = dice.randbytes(dice.choice((8, 900, BITMAP_MAX_SIZE_BYTES)))
    record = ImageRecord(image, bitmap, ready=False, created_at=1.0, last_used_at=float(number))
    order = replace(Order(f"order-{dice.randrange(4)}", "name", 1.0), state=OrderState.QUEUED, reason="x" * number)
    campaign = Campaign(f"campaign-{dice.randrange(2)}", "name", image, 1.0, hosts=(("a", None),))
    chosen: list[Step] = [
        lambda catalogue: catalogue.put_image(record),
        lambda catalogue: catalogue.put_image(record),
        lambda catalogue: catalogue.delete_image(image),
        lambda catalogue: catalogue.put_order(order),
        lambda catalogue: catalogue.delete_order(order.key),
        lambda catalogue: catalogue.put_campaign(campaign),
        lambda catalogue: catalogue.put_addresses(tuple(f"10.0.0.{each}:1" for each in range(number))),
    ]
    return dice.choice(chosen)


def live(directory: Path) -> None:
    """Do it all, and say so on stdout after each step: what stands there is acknowledged."""
    catalogue = SqliteCatalogue.open(directory / NAME)
    os.write(1, b"0\n")
    for number, step in enumerate(steps(), 1):
        if number % REOPEN_EVERY == 0:
            catalogue.close()
            catalogue = SqliteCatalogue.open(directory / NAME)
        step(catalogue)
        os.write(1, b"%d\n" % number)
    catalogue.close()


# --- what should be there ---


def shown(catalogue: Catalogue) -> tuple[object, ...]:
    return catalogue.images(), catalogue.orders(), catalogue.campaigns(), catalogue.addresses()


@cache
def states(kind: str) -> tuple[tuple[object, ...], ...]:
    """What the catalogue shows after so many steps."""
    twin = MemoryCatalogue()
    if kind == "upgrade":
        _fill(twin)
    found = [shown(twin)]
    for step in steps():
        step(twin)
        found.append(shown(twin))
    return tuple(found)


def _fill(catalogue: Catalogue) -> None:
    """What stands in a catalogue of version 1."""
    catalogue.put_image(ImageRecord(ImageId(b"\7" * 32), b"\xff", ready=True, created_at=1.0, last_used_at=2.0))
    catalogue.put_order(replace(Order("old", "name", 1.0), state=OrderState.QUEUED))
    catalogue.put_addresses(("10.0.0.9:1",))


def _make_old(path: Path) -> None:
    """A catalogue as version 1 left it: it had no campaigns."""
    catalogue = SqliteCatalogue.open(path)
    _fill(catalogue)
    catalogue.close()
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE campaigns; PRAGMA user_version = 1; PRAGMA wal_checkpoint(TRUNCATE);")
    connection.close()


# --- what SQLite does ---


@dataclass(frozen=True, slots=True)
class Trace:
    """before: the files that were there, by name. calls: in the order in which they were made."""

    before: dict[str, bytes]
    calls: tuple[Call, ...]


@cache
def traced(kind: str) -> Trace:
    strace = need("strace")
    with tempfile.TemporaryDirectory() as where:
        directory, log = Path(where) / "state", Path(where) / "log"
        directory.mkdir()
        if kind == "upgrade":
            _make_old(directory / NAME)
        before = {path.name: path.read_bytes() for path in directory.iterdir()}
        calls = "openat,close,pwrite64,write,ftruncate,fsync,fdatasync,unlink,rename"
        under = (strace, "-f", "-qq", "-xx", "-s", "1048576", "-o", log, "-e", f"trace={calls}")
        work = (sys.executable, "-m", "tests.torture.catalogue_cuts", str(directory))
        subprocess.run([*under, *work], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return Trace(before, tuple(_read(log.read_text(), directory)))


_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def _read(log: str, directory: Path) -> Iterator[Call]:
    """The calls that concern the directory; all of SQLite's but for its shared memory, which nobody syncs."""
    paths: dict[int, str] = {}
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None or int(match[3]) < 0:
            continue
        name, arguments, result = match[1], match[2], int(match[3])
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        numbers = [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.])", _TEXT.sub("", arguments))]
        if name == "openat":
            path = Path(os.fsdecode(texts[0]))
            if path == directory or path.parent == directory:
                paths[result] = "." if path == directory else path.name
                if "O_CREAT" in arguments and not path.name.endswith("-shm"):
                    yield "create", (path.name,)
        elif name == "close":
            paths.pop(numbers[0], None)
        elif name == "write" and numbers[0] == 1:
            yield "acknowledged", (int(texts[0]),)
        elif name == "unlink":
            path = Path(os.fsdecode(texts[0]))
            if path.parent == directory and not path.name.endswith("-shm"):
                yield "unlink", (path.name,)
        elif name in ("pwrite64", "ftruncate", "fsync", "fdatasync"):
            path_name = paths.get(numbers[0], "-shm")
            if path_name == ".":
                yield "sync_dir", ()
            elif not path_name.endswith("-shm"):
                details = (texts[0], numbers[-1]) if name == "pwrite64" else tuple(numbers[1:])
                yield name.replace("fsync", "fdatasync"), (path_name, *details)


def _play_into(files: MemoryFiles, calls: tuple[Call, ...]) -> int:
    """How many steps were acknowledged, -1 for not even the opening."""
    fds: dict[str, int] = {}
    acknowledged = -1
    for call, arguments in calls:
        if call == "acknowledged":
            (acknowledged,) = arguments
        elif call == "sync_dir":
            files.sync_dir(".")
        elif call == "create":
            (name,) = arguments
            if name not in files.list_dir("."):
                fds[name] = files.open(name, Access.CREATE)
        elif call == "unlink":
            fds.pop(arguments[0], None)
            files.unlink(arguments[0])
        else:
            name, *details = arguments
            fd = fds[name] = fds[name] if name in fds else files.open(name, Access.WRITE)
            if call == "pwrite64":
                files.pwrite(fd, *details)
            elif call == "ftruncate":
                files.truncate(fd, *details)
            else:
                files.datasync(fd)
    return acknowledged


# --- the cuts ---


def cuts(points: int) -> Iterator[CatalogueCut]:
    """All over what happens, again and again with other dice."""
    lengths = {kind: len(traced(kind).calls) + 1 for kind in KINDS}
    every = max(1, 2 * sum(lengths.values()) // max(1, points)) | 1
    done = seed = 0
    while True:
        for kind in KINDS:
            for at in range(seed % every, lengths[kind], every):
                if done == points:
                    return
                done += 1
                yield CatalogueCut(kind, at, seed)
        seed += 1


def play(cut: CatalogueCut) -> None:
    """`BrokenPromiseError` where a promise is broken."""
    try:
        _play(cut)
    except Exception as error:
        raise BrokenPromiseError(f"{type(error).__name__}: {error}\nagain: {cut.command}") from error


def _play(cut: CatalogueCut) -> None:
    trace, dice = traced(cut.kind), random.Random(f"{cut.kind} {cut.at} {cut.seed}")
    files = MemoryFiles()
    for name, content in trace.before.items():
        fd = files.open(name, Access.CREATE)
        files.pwrite(fd, content, 0)
        files.datasync(fd)
    files.sync_dir(".")
    acknowledged = _play_into(files, trace.calls[: cut.at])
    after = files.after_cut(dice)
    with tempfile.TemporaryDirectory(dir=_quick_directory()) as where:
        path = Path(where) / NAME
        for name in after.list_dir("."):
            fd = after.open(name, Access.READ)
            (Path(where) / name).write_bytes(after.pread(fd, after.status(fd).size_bytes, 0))
        if dice.random() < 0.5:  # of what was shared memory there may be anything
            Path(f"{path}-shm").write_bytes(dice.randbytes(32_768))
        allowed = states(cut.kind)[max(0, acknowledged) : acknowledged + 2]
        for _ in range(2):  # what was seen once is there again
            catalogue, trouble = open_or_rebuild(path, Path(where) / "damaged")
            try:
                assert trouble is None, trouble
                found = shown(catalogue)
                assert found in allowed, f"after {acknowledged} steps: {found}"
                allowed = (found,)
            finally:
                catalogue.close()


def _quick_directory() -> str | None:
    """Memory, where there is some: what lasts is not the question here."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    live(Path(sys.argv[1]))
