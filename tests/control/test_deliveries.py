"""Answers that nobody takes: they are cut off, and one user has no more than so much of them."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from pathlib import Path

import pytest

from enticed.control import deliveries
from enticed.engine.port import OrderTerms
from protocol.limits import MIB
from tests.control.running import Running, serve
from tests.control.test_access import CROWD, STRANGER_GID, STRANGER_UID, as_user
from tests.programs import need_root

ORDERS_COUNT = 1500
"""Their list is far more than all buffers between here and there, and not 1 MiB twice."""


async def place_many(control: Running) -> None:
    for number in range(ORDERS_COUNT):
        await control.engine.place_order(f"o{number}", OrderTerms("nothing"))
    async with control.session.get("http://localhost/v1/orders") as answer:
        assert MIB / 2 < len(await answer.read()) < MIB


def test_who_does_not_take_an_answer_is_cut_off(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        await place_many(control)
        with socket.socket(socket.AF_UNIX) as reader:
            reader.settimeout(10)
            reader.connect(str(control.path))
            reader.sendall(b"GET /v1/orders HTTP/1.1\r\nHost: localhost\r\n\r\n")
            hung_up = select.poll()
            hung_up.register(reader, 0)
            assert await asyncio.to_thread(hung_up.poll, 10_000)
            received = b""
            try:
                while data := reader.recv(1 << 20):
                    received += data
            except ConnectionError:
                pass
            assert received.startswith(b"HTTP/1.1 200")
            assert len(received) < MIB / 2
        assert (await control.ask("GET", "/v1/orders"))[0] == 200

    serve(tmp_path, test, slow_reader_s=0.05)


@pytest.mark.needs_root
def test_a_reader_that_takes_nothing_gets_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    monkeypatch.setattr(deliveries, "CONTROL_UNTAKEN_PER_READER_MAX_SIZE_BYTES", MIB)

    async def test(control: Running) -> None:
        await place_many(control)
        await as_user(control.path, STRANGER_UID, STRANGER_GID, [])  # opens the way to the socket
        crowd = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", CROWD, str(control.path), str(STRANGER_UID), "9", "/v1/orders",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd="/",
        )  # fmt: skip
        assert crowd.stdout is not None
        assert int(await crowd.stdout.readline()) == 2
        assert (await control.ask("GET", "/v1/orders"))[0] == 200
        await crowd.communicate(b"")
        requests = [("GET", "/v1/orders", None)] * 4
        *answers, _ = await as_user(control.path, STRANGER_UID, STRANGER_GID, requests)
        assert [status for status, _ in answers] == [200] * 4

    serve(tmp_path, test)
