"""`qemu-img` in a child of its own, under limits of memory, processor time, file size, descriptors and wall time.

The child is told the format in so many words, opens only the descriptors that it is given, and dies with its parent.
`prlimit` and `setpriv` (util-linux) set that up between fork and exec, where Python code had better not run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from enticed.image.limits import (
    QEMU_ANSWER_MAX_SIZE_BYTES,
    QEMU_COMPLAINT_MAX_SIZE_BYTES,
    QEMU_CONVERT_SLOWEST_BYTES_PER_S,
    QEMU_CONVERT_TIMEOUT_S,
    QEMU_FILES_MAX_COUNT,
    QEMU_LOOK_TIMEOUT_S,
    QEMU_MEMORY_MAX_SIZE_BYTES,
)
from protocol.errors import AbsentError, ExhaustedError, LocalError, NoSpaceError

Progress = Callable[[float], None]
"""Called with the share done, 0.0 to 1.0."""

_READ_SIZE_BYTES = 64 * 1024
_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")


@dataclass(frozen=True, slots=True)
class Extent:
    """Data of the disk. end_in_file_bytes: where it ends in the container, None where it does not lie there plainly."""

    size_bytes: int
    end_in_file_bytes: int | None


def node(form: str, fd: int, *, is_device: bool = False) -> str:
    """How qemu is told of an open descriptor: format and kind of file named, backing files shut out."""
    file = {"driver": "host_device" if is_device else "file", "filename": f"/dev/fd/{fd}"}
    described: dict[str, Any] = {"driver": form, "file": file}
    if form == "qcow2":
        described["backing"] = None
    return "json:" + json.dumps(described)


async def look(image: str, fd: int) -> dict[str, Any]:
    """What `qemu-img info` says of an image; `LocalError` with its reason where it cannot be opened."""
    answer = bytearray()

    def keep(part: bytes) -> None:
        answer.extend(part)
        if len(answer) > QEMU_ANSWER_MAX_SIZE_BYTES:
            raise LocalError("qemu-img says too much about the image")

    await _run(["info", "--output=json", image], (fd,), QEMU_LOOK_TIMEOUT_S, 0, keep)
    found: dict[str, Any] = json.loads(answer)
    return found


async def data_map(image: str, fd: int, take: Callable[[Extent], None]) -> None:
    """Give `take` each extent of data in the container, in the order of the disk."""
    rest = b""

    def read(part: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + part).split(b"\n")  # one extent a line
        for extent in _extents(lines):
            take(extent)

    await _run(["map", "--output=json", image], (fd,), QEMU_LOOK_TIMEOUT_S, 0, read)
    for extent in _extents([rest]):
        take(extent)


def _extents(lines: Iterable[bytes]) -> Iterable[Extent]:
    for line in lines:
        text = line.strip(b"[], \r")
        if not text:
            continue
        entry = json.loads(text)
        if entry["data"]:
            at = entry.get("offset")
            yield Extent(entry["length"], None if at is None else at + entry["length"])


async def to_raw(image: str, fd: int, target: int, size_bytes: int, data_bytes: int, progress: Progress | None) -> None:
    """Decode into `target`, a file of `size_bytes` that is all hole. Cancelling kills the child; raises as `look`."""
    arguments = ["-n", "--target-is-zero", "-S", "4k", "-W", "-O", "raw", image, f"/dev/fd/{target}"]
    await _convert(arguments, (fd, target), data_bytes, size_bytes + 4096, progress)


async def to_qcow2(fd: int, target: int, size_bytes: int, progress: Progress | None) -> None:
    """Encode a raw image into `target`, an empty file. Cancelling kills the child; raises as `look`."""
    arguments = ["-S", "4k", "-O", "qcow2", node("raw", fd), f"/dev/fd/{target}"]
    # Tables and reference counts come to far less than this.
    largest = size_bytes + size_bytes // 64 + (64 << 20)
    await _convert(arguments, (fd, target), size_bytes, largest, progress)


async def _convert(
    arguments: list[str], fds: tuple[int, ...], data_bytes: int, largest_bytes: int, progress: Progress | None
) -> None:
    def read(part: bytes) -> None:
        shares = _PERCENT.findall(part)
        if shares and progress:
            progress(min(1.0, float(shares[-1]) / 100))

    timeout_s = QEMU_CONVERT_TIMEOUT_S + data_bytes / QEMU_CONVERT_SLOWEST_BYTES_PER_S
    await _run(["convert", "-p", *arguments], fds, timeout_s, largest_bytes, read)


async def _run(
    arguments: list[str],
    fds: tuple[int, ...],
    timeout_s: float,
    largest_file_bytes: int,
    on_output: Callable[[bytes], None],
) -> None:
    command = _limited(arguments, int(timeout_s), largest_file_bytes)
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=fds,
        start_new_session=True,  # a process group that can be killed as one, and no terminal's Ctrl-C
        cwd="/",
        env={"LC_ALL": "C", "PATH": os.defpath, "MALLOC_ARENA_MAX": "2"},  # arenas count as address space
    )
    assert child.stdout
    assert child.stderr
    complaint = bytearray()

    def keep(part: bytes) -> None:
        complaint.extend(part[: QEMU_COMPLAINT_MAX_SIZE_BYTES - len(complaint)])

    complaints = asyncio.create_task(_drain(child.stderr, keep))
    try:
        async with asyncio.timeout(timeout_s):
            await _drain(child.stdout, on_output)
            status = await child.wait()
    except TimeoutError:
        raise ExhaustedError(f"qemu-img {arguments[0]} took more than {timeout_s:.0f} s") from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        await complaints  # ends with the child, which held the other end
    if status:
        raise _failure(arguments[0], status, bytes(complaint), fds)


async def _drain(stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    while part := await stream.read(_READ_SIZE_BYTES):
        take(part)


def _limited(arguments: list[str], cpu_s: int, largest_file_bytes: int) -> list[str]:
    limits = {
        "as": QEMU_MEMORY_MAX_SIZE_BYTES,
        "cpu": cpu_s * max(1, min(os.cpu_count() or 1, 4)),
        "fsize": largest_file_bytes,
        "nofile": QEMU_FILES_MAX_COUNT,
        "core": 0,
    }
    return [
        _program("prlimit", "util-linux"),
        *(f"--{name}={value}" for name, value in limits.items()),
        "--",
        _program("setpriv", "util-linux"),
        "--pdeathsig=KILL",
        "--no-new-privs",
        "--",
        _program("qemu-img", "qemu-utils"),
        *arguments,
    ]


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise AbsentError(f"{name} is not installed: it reads and writes other formats than raw (Debian: {package})")
    return found


def _failure(action: str, status: int, complaint: bytes, fds: tuple[int, ...]) -> Exception:
    """One clear line from what the child said, or from how it died."""
    if status < 0:
        why = {
            signal.SIGXCPU: "too much processor time",
            signal.SIGXFSZ: "too large a file",
            signal.SIGABRT: "too much memory, or a fault of its own",
        }.get(signal.Signals(-status), f"signal {-status}")
        return ExhaustedError(f"qemu-img {action} was stopped: {why}")
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    text = lines[0].removeprefix("qemu-img: ") if lines else f"exit code {status}"
    for fd in fds:
        text = re.sub(rf"'?(json:\{{.*?\}}\}}|/dev/fd/{fd})'?", "the image", text)
    printable = "".join(char if char.isprintable() else "?" for char in text)[:300]
    kind = NoSpaceError if "No space left" in text else LocalError
    return kind(f"qemu-img {action}: {printable}")
