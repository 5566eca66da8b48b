"""Reading images over the loopback address: their bytes, for whoever calls it by its own name, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from enticed.control.loopback import LoopbackServer
from protocol.errors import LocalError
from tests.control.engine import MemoryEngine

DATA = bytes(range(256)) * 64


def visit(directory: Path, work: Callable[[aiohttp.ClientSession, str], Awaitable[None]]) -> None:
    async def run() -> None:
        engine = MemoryEngine(directory)
        engine._store(DATA, "web:1", "raw")
        async with LoopbackServer(engine, "127.0.0.1", 0) as server, aiohttp.ClientSession() as session:
            await work(session, f"http://127.0.0.1:{server.port}")

    asyncio.run(run())


def test_bytes_and_nothing_else(tmp_path: Path) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        url = f"{base}/v1/images/web:1/content"
        async with session.get(url, headers={"Range": "bytes=10-19"}) as response:
            assert (response.status, await response.read()) == (206, DATA[10:20])
        for method, path, status in (
            ("GET", "/v1/images/web:2/content", 404),
            ("GET", "/v1/images", 404),
            ("GET", "/v1/status", 404),
            ("DELETE", "/v1/images/web:1", 404),
            ("PUT", "/v1/images/web:1/content", 405),
        ):
            async with session.request(method, base + path) as response:
                assert response.status == status, (method, path)

    visit(tmp_path, work)


@pytest.mark.parametrize("host", ["evil.example", "10.0.2.2", "127.0.0.1.evil.example", "[fe80::1]"])
def test_it_listens_to_no_other_name(tmp_path: Path, host: str) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/v1/images/web:1/content", headers={"Host": host}) as response:
            assert response.status == 403

    visit(tmp_path, work)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::"])
def test_only_on_loopback(tmp_path: Path, host: str) -> None:
    with pytest.raises(LocalError, match="no loopback address"):
        LoopbackServer(MemoryEngine(tmp_path), host, 0)


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        engine = MemoryEngine(tmp_path)
        async with LoopbackServer(engine, "127.0.0.1", 0) as first:
            with pytest.raises(LocalError, match="content_listen"):
                await LoopbackServer(engine, "127.0.0.1", first.port).start()

    asyncio.run(run())
