"""A real control server over a real unix socket, with an engine in memory behind it, and ways to talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from enticed.control.server import ControlServer, handoff_path
from enticed.problems import CONTENT_TYPE
from tests.control.engine import MemoryEngine
from tests.control.operations import MemoryOperations

MESSAGE_SIZE_BYTES = 4096


@dataclass
class Running:
    engine: MemoryEngine
    operations: MemoryOperations
    server: ControlServer
    path: Path
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and JSON of one request; whatever is refused is told in a problem document."""
        async with self.session.request(method, f"http://localhost{path}", json=body, **more) as response:
            if response.status < 400:
                return response.status, await response.json()
            problem = await response.json(content_type=CONTENT_TYPE)
            assert set(problem) == {"type", "title", "status", "detail", "kind"}
            assert problem["status"] == response.status
            return response.status, problem

    async def lines(self, path: str, body: Any = None) -> list[dict[str, Any]]:
        """All lines of a stream of JSON lines."""
        async with self.session.post(f"http://localhost{path}", json=body) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "application/x-ndjson"
            return [json.loads(line) async for line in response.content]

    async def give(self, fd: int) -> str:
        """A ticket for a descriptor."""
        answer, _ = await asyncio.to_thread(hand_over, self.path, {"op": "give"}, [fd])
        return str(answer["ticket"])


@asynccontextmanager
async def running(directory: Path, group: str | None = None, **timing: float) -> AsyncIterator[Running]:
    store = directory / "store"
    store.mkdir(exist_ok=True)
    engine = MemoryEngine(store)
    operations = MemoryOperations(directory)
    path = directory / "entice.sock"
    connector = aiohttp.UnixConnector(str(path))
    try:
        async with (
            ControlServer(engine, operations, path, group, **timing) as server,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            yield Running(engine, operations, server, path, session)
    finally:
        await engine.close()


def serve(directory: Path, test: Callable[[Running], Awaitable[None]], **more: Any) -> None:
    """Run `test` against a server that is there as long as it takes."""

    async def main() -> None:
        async with running(directory, **more) as control:
            await test(control)

    asyncio.run(main())


def hand_over(path: Path, message: object, descriptors: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
    """Say one thing on the socket for descriptors: what is answered, and the descriptors that came with it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(os.fspath(handoff_path(path)))
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        socket.send_fds(connection, [data], list(descriptors))
        answer, received, _, _ = socket.recv_fds(connection, MESSAGE_SIZE_BYTES, 4)
    return json.loads(answer), received
