"""Descriptors across the socket: what is taken, what is refused, and that none is left open."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from enticed.control import handoff
from enticed.control.access import Caller
from enticed.control.server import handoff_path
from enticed.control.tickets import Tickets
from enticed.limits import (
    HANDOFF_CONNECTIONS_MAX_COUNT,
    HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT,
    HANDOFF_TICKETS_MAX_COUNT,
)
from enticed.problems import UsageError
from protocol.errors import ExhaustedError
from tests.control.running import Running, hand_over, serve


@contextmanager
def opened(path: Path | str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def no_more_open_than(count: int) -> None:
    """What is closed is closed beside the event loop."""
    for thread in threading.enumerate():
        if thread.name == "beside":
            await asyncio.to_thread(thread.join)
    assert open_descriptors() == count


def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * 4096)
    return path


def test_a_ticket_is_good_once(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with opened(disk(tmp_path), os.O_RDONLY) as fd:
            ticket = await control.give(fd)
        lines = await control.lines("/v1/images", {"ticket": ticket, "name": "a"})
        assert "result" in lines[-1]
        status, answer = await control.ask("POST", "/v1/images", {"ticket": ticket, "name": "a"})
        assert (status, answer["kind"]) == (400, "usage")

    serve(tmp_path, test)


def pipe_end() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda path: os.open(path, os.O_WRONLY), "not open for reading"),
        (lambda path: os.open(path, os.O_PATH), "not open for reading"),
        (lambda path: os.open(path.parent, os.O_RDONLY), "neither"),
        (lambda path: os.open("/dev/null", os.O_RDONLY), "neither"),
        (lambda path: pipe_end(), "neither"),
        (lambda path: os.open(path.parent / "empty", os.O_RDWR | os.O_CREAT), "has 0"),
    ],
    ids=["write-only", "path-only", "directory", "device", "pipe", "empty"],
)
def test_only_what_can_be_an_image_is_taken(tmp_path: Path, what: Any, says: str) -> None:
    async def test(control: Running) -> None:
        before = open_descriptors()
        fd = what(disk(tmp_path))
        try:
            answer, _ = await asyncio.to_thread(hand_over, control.path, {"op": "give"}, [fd])
        finally:
            os.close(fd)
        assert answer["error"]["kind"] == "usage"
        assert says in answer["error"]["detail"]
        await no_more_open_than(before)

    serve(tmp_path, test)


@pytest.mark.parametrize(
    ("message", "count"),
    [
        ({"op": "give"}, 0),
        ({"op": "give"}, 2),
        ({"op": "give", "image": "a"}, 1),
        ({"op": "give", "more": 1}, 1),
        ({"op": "open", "image": "a"}, 1),
        ({"op": "open"}, 0),
        ({"op": "open", "image": "No Name"}, 0),
        ({"op": "sing"}, 0),
        ({}, 1),
        (["give"], 1),
        (b"{", 1),
        (b"\xff" * 10, 0),
        (b"[" * 4000, 1),
        ({"op": "x" * 8000}, 1),
    ],
)
def test_any_other_message_is_refused_and_leaves_nothing_open(tmp_path: Path, message: Any, count: int) -> None:
    async def test(control: Running) -> None:
        before = open_descriptors()
        with opened(disk(tmp_path), os.O_RDONLY) as fd:
            answer, received = await asyncio.to_thread(hand_over, control.path, message, [fd] * count)
        assert (answer["error"]["kind"], received) == ("usage", [])
        await no_more_open_than(before)

    serve(tmp_path, test)


def test_a_client_that_says_nothing_or_goes_away_holds_up_nobody(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.connect(os.fspath(handoff_path(control.path)))
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
                gone.connect(os.fspath(handoff_path(control.path)))
                gone.send(b'{"op": "open", "image": "a"}')
            with opened(disk(tmp_path), os.O_RDONLY) as fd:
                assert await control.give(fd)

    before = open_descriptors()
    serve(tmp_path, test)
    assert open_descriptors() == before


def test_a_user_with_many_connections_leaves_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(control: Running) -> None:
        path = os.fspath(handoff_path(control.path))
        with ExitStack() as held:
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(handoff, "caller_of", lambda connection: Caller(1, 65534, 65534))
                for number in range(HANDOFF_CONNECTIONS_MAX_COUNT):
                    silent = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                    silent.connect(path)
                    if number >= HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT:
                        assert await asyncio.to_thread(silent.recv, 1) == b""
            with opened(disk(tmp_path), os.O_RDONLY) as fd:
                assert await control.give(fd)

    serve(tmp_path, test)


def test_an_unused_ticket_expires_and_its_descriptor_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        before = open_descriptors()
        tickets = Tickets(lifetime_s=0.01)
        fd = os.open(disk(tmp_path), os.O_RDONLY)
        ticket = tickets.issue(fd, 0)
        expired = loop.create_future()
        loop.call_later(0.02, expired.set_result, None)
        await expired
        await no_more_open_than(before)
        with pytest.raises(UsageError):
            tickets.redeem(ticket, 0)

    asyncio.run(test())


def test_a_ticket_belongs_to_one_user(tmp_path: Path) -> None:
    async def test() -> None:
        tickets = Tickets()
        fd = os.open(disk(tmp_path), os.O_RDONLY)
        ticket = tickets.issue(fd, 1000)
        for user in (0, 1001):
            with pytest.raises(UsageError):
                tickets.redeem(ticket, user)
        assert tickets.redeem(ticket, 1000) == fd
        os.close(fd)

    asyncio.run(test())


def test_tickets_are_bounded_and_closed_with_the_server(tmp_path: Path) -> None:
    async def test() -> None:
        before = open_descriptors()
        tickets = Tickets()
        path = disk(tmp_path)
        for _ in range(HANDOFF_TICKETS_MAX_COUNT):
            tickets.issue(os.open(path, os.O_RDONLY), 0)
        with pytest.raises(ExhaustedError):
            tickets.issue(os.open(path, os.O_RDONLY), 0)
        await no_more_open_than(before + HANDOFF_TICKETS_MAX_COUNT)
        tickets.close()
        await no_more_open_than(before)

    asyncio.run(test())
