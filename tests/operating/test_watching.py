"""`/livez`, `/readyz` and `/metrics`: on the socket, and alone on an address of their own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from enticed.limits import WATCHING_CONNECTIONS_MAX_COUNT
from enticed.operating import watching
from enticed.operating.health import Check
from enticed.operating.watching import WatchingServer
from enticed.problems import CONTENT_TYPE
from protocol.errors import LocalError
from tests.control.operations import MemoryOperations

NO_PEERS = Check("peers", False, "no other host answers", "is UDP open?")


def visit(directory: Path, work: Callable[[aiohttp.ClientSession, str, MemoryOperations], Awaitable[None]]) -> None:
    async def run() -> None:
        operations = MemoryOperations(directory)
        async with WatchingServer(operations, "127.0.0.1", 0) as server, aiohttp.ClientSession() as session:
            await work(session, f"http://127.0.0.1:{server.port}", operations)

    asyncio.run(run())


def test_what_monitoring_asks(tmp_path: Path) -> None:
    async def work(session: aiohttp.ClientSession, base: str, operations: MemoryOperations) -> None:
        async def get(path: str) -> tuple[int, str, str]:
            async with session.get(base + path) as response:
                return response.status, response.content_type, await response.text()

        assert await get("/livez") == (200, "text/plain", "ok\n")
        assert await get("/readyz") == (200, "text/plain", "ok\n")
        assert await get("/readyz?verbose") == (200, "text/plain", "[+] disk: 1.0 GiB free\n")
        operations.failing = (NO_PEERS,)
        status, media, text = await get("/readyz")
        assert (status, media) == (503, CONTENT_TYPE)
        assert "not ready: peers: no other host answers" in text
        assert await get("/readyz?verbose") == (
            503,
            "text/plain",
            "[+] disk: 1.0 GiB free\n[-] peers: no other host answers. is UDP open?\n",
        )
        assert (await get("/livez"))[0] == 200
        status, media, text = await get("/metrics")
        assert (status, media, text.splitlines()[-1]) == (200, "text/plain", "enticed_peers 3")

    visit(tmp_path, work)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/status", 404),
        ("GET", "/v1/config", 404),
        ("GET", "/v1/openapi.json", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/livez", 405),
        ("PUT", "/v1/orders/a", 404),
    ],
)
def test_nothing_else_is_there(tmp_path: Path, method: str, path: str, status: int) -> None:
    async def work(session: aiohttp.ClientSession, base: str, operations: MemoryOperations) -> None:
        async with session.request(method, base + path, data=b"x" * 1000) as response:
            assert (response.status, response.content_type) == (status, CONTENT_TYPE)

    visit(tmp_path, work)


def test_nobody_can_hold_all_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "TERMS", replace(watching.TERMS, lifetime_s=0.2))

    async def run() -> None:
        async with WatchingServer(MemoryOperations(tmp_path), "127.0.0.1", 0) as server:
            idle = [
                await asyncio.open_connection("127.0.0.1", server.port) for _ in range(WATCHING_CONNECTIONS_MAX_COUNT)
            ]
            reader, turned = await asyncio.open_connection("127.0.0.1", server.port)
            assert await reader.read() == b""
            for reader, _ in idle:
                assert await reader.read() == b""
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"ok\n")
            for one in (turned, writer, *(writer for _, writer in idle)):
                one.close()

    asyncio.run(run())


def test_a_monitor_keeps_its_connection_from_one_look_to_the_next(tmp_path: Path) -> None:
    async def work(session: aiohttp.ClientSession, base: str, operations: MemoryOperations) -> None:
        for _ in range(2):
            async with session.get(base + "/metrics") as response:
                assert (response.status, response.headers.get("Connection")) == (200, None)

    visit(tmp_path, work)


def test_who_takes_nothing_loses_its_place_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "TERMS", replace(watching.TERMS, lifetime_s=1.0, keepalive_s=0.1))

    async def run() -> None:
        async with WatchingServer(MemoryOperations(tmp_path), "127.0.0.1", 0) as server, asyncio.timeout(20):
            assert server._socket is not None
            server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            _, deaf = await asyncio.open_connection(sock=connection)
            deaf.transport.pause_reading()  # type: ignore[attr-defined]
            deaf.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 400_000)  # more than all buffers on the way
            with suppress(ConnectionError):
                await deaf.wait_closed()

    asyncio.run(run())


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        async with WatchingServer(MemoryOperations(tmp_path), "127.0.0.1", 0) as first:
            second = WatchingServer(MemoryOperations(tmp_path), "127.0.0.1", first.port)
            with pytest.raises(LocalError, match="metrics_listen"):
                await second.start()
            await second.close()

    asyncio.run(run())
