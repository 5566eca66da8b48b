"""The stream of events: complete, resumable, alive when nothing happens, and never a queue without bound."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.control.engine import Goods
from tests.control.running import Running, running, serve

ROAD = ["queued", "resolving", "reserving", "fetching", "verifying", "ready"]


class Stream:
    """Server-sent events, parsed."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self.comments: list[str] = []
        self.progress: list[dict[str, Any]] = []
        self.on_progress: Callable[[dict[str, Any]], object] = lambda order: None

    async def next(self) -> tuple[int, dict[str, Any]] | None:
        """Number and order of the next event; None at the end."""
        fields: dict[str, str] = {}
        while line := (await self._content.readline()).decode():
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
            elif line == "\n" and fields:
                if fields["event"] == "progress":
                    self.progress.append(json.loads(fields["data"]))
                    self.on_progress(self.progress[-1])
                    fields = {}
                    continue
                assert fields["event"] == "order"
                return int(fields["id"]), json.loads(fields["data"])
            elif line != "\n":
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
        return None


@asynccontextmanager
async def listening(control: Running, query: str = "", last: int | None = None) -> AsyncIterator[Stream]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    async with control.session.get(f"http://localhost/v1/events{query}", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield Stream(response.content)


async def follow(control: Running) -> None:
    """Every step of an order comes, in order; then again from the middle; then of one order among two."""
    control.engine.shelf["web:1"] = Goods(b"x" * 4096)
    async with listening(control) as stream:
        await control.ask("PUT", "/v1/orders/a", {"image": "web:1"})
        events = [await stream.next() for _ in ROAD]
        assert [event and event[1]["state"] for event in events] == ROAD
    numbers = [event[0] for event in events if event]
    assert numbers == sorted(set(numbers))

    async with listening(control, last=numbers[2]) as stream:
        assert [await stream.next() for _ in ROAD[3:]] == events[3:]

    await control.ask("PUT", "/v1/orders/b", {"image": "nothing"})
    await control.engine.ended("b")
    async with listening(control, "?key=b", last=0) as stream:
        states = [event[1]["state"] for event in [await stream.next() for _ in range(3)] if event]
        assert states == ["queued", "resolving", "failed"]


def test_every_step_comes_and_a_listener_resumes(tmp_path: Path) -> None:
    serve(tmp_path, follow)


def test_the_same_under_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as control:
            await follow(control)

    uvloop.run(main())


def test_a_silent_stream_says_that_it_is_there(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        async with listening(control) as stream:
            await control.ask("PUT", "/v1/orders/a", {"image": "nothing"})
            for _ in range(3):
                await stream.next()
            control.engine.shelf["web:1"] = Goods(b"x", held_back=True)
            waiting = asyncio.create_task(stream.next())
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, asyncio.ensure_future, control.ask("PUT", "/v1/orders/b", {"image": "nothing"}))
            await waiting
        assert stream.comments[0] == "listening"
        assert stream.comments.count("still here") >= 2

    serve(tmp_path, test, heartbeat_s=0.02)


def test_progress_is_told_between_events_while_it_changes(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        goods = control.engine.shelf["web:1"] = Goods(bytes(range(256)) * 16, held_back=True)
        async with listening(control, "?key=a&progress_s=0.1") as stream:
            await control.ask("PUT", "/v1/orders/a", {"image": "web:1"})
            while (event := await stream.next()) and event[1]["state"] != "fetching":
                pass

            def go_on(order: dict[str, Any]) -> None:
                if order["percent"] == 10.0:  # for some intervals nothing changes, and nothing is told
                    asyncio.get_running_loop().call_later(0.3, setattr, control.engine, "percent", 30.0)
                else:
                    goods.gate.set()

            stream.on_progress = go_on
            control.engine.percent = 10.0
            assert [(await stream.next() or (0, {}))[1]["state"] for _ in range(2)] == ["verifying", "ready"]
        assert [order["percent"] for order in stream.progress] == [10.0, 30.0]

        for query in ("?progress_s=1", "?key=a&progress_s=0", "?key=a&progress_s=x"):
            status, answer = await control.ask("GET", f"/v1/events{query}")
            assert (status, answer["kind"]) == (400, "usage")

    serve(tmp_path, test)


def test_what_ends_a_stream_before_it_begins_is_said_by_the_status(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.too_many_watchers = True
        status, answer = await control.ask("GET", "/v1/events")
        assert (status, answer["kind"]) == (503, "temporary")

    serve(tmp_path, test)


def test_streams_end_with_the_server(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        async with listening(control) as stream:
            async with asyncio.timeout(2):
                await control.server.close()
            assert await stream.next() is None

    serve(tmp_path, test)


def test_a_reader_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with socket.socket(socket.AF_UNIX) as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(reader, str(control.path))
            await loop.sock_sendall(reader, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await loop.sock_recv(reader, 200)).startswith(b"HTTP/1.1 200")
            # Far more than all the buffers between here and there.
            for number in range(1500):
                await control.ask("PUT", f"/v1/orders/{number % 10}", {"image": "nothing"})
            received = 0
            async with asyncio.timeout(10):
                try:
                    while data := await loop.sock_recv(reader, 1 << 20):
                        received += len(data)
                except ConnectionError:
                    pass
            assert received > 0

    serve(tmp_path, test, slow_reader_s=0.05)
