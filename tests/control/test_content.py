"""An image's bytes over HTTP: ranges, headers, and readers of every kind."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import aiohttp
import pytest

from enticed.control.server import ControlServer
from enticed.limits import CONTENT_CHUNK_SIZE_BYTES, CONTENT_READERS_PER_USER_MAX_COUNT
from protocol.errors import ExhaustedError
from tests.control.engine import MemoryEngine
from tests.control.operations import MemoryOperations
from tests.control.running import Running, serve
from tests.control.test_access import STRANGER_GID, STRANGER_UID, as_user
from tests.programs import need_root

DATA = os.urandom(3 * CONTENT_CHUNK_SIZE_BYTES + 12345)
URL = "http://localhost/v1/images/web:1/content"


def with_image(engine: MemoryEngine) -> str:
    return str(engine._store(DATA, "web:1", "raw").image)


async def get(control: Running, **headers: str) -> tuple[int, bytes, aiohttp.ClientResponse]:
    async with control.session.get(URL, headers=headers) as response:
        return response.status, await response.read(), response


def test_all_of_it_and_what_is_said_of_it(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        image = with_image(control.engine)
        status, body, response = await get(control)
        assert (status, body) == (200, DATA)
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["ETag"] == f'"{image}"'
        async with control.session.head(URL, headers={"Range": "bytes=0-1"}) as head:
            assert (head.status, head.headers["Content-Length"]) == (200, str(len(DATA)))
            assert head.headers["ETag"] == f'"{image}"'
        status, _, _ = await get(control, **{"If-None-Match": f'"{image}"'})
        assert status == 304
        assert control.engine.readers == 0

    serve(tmp_path, test)


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-3000000", 1000000, 3000001),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        (f"bytes={len(DATA) - 1}-{10**30}", len(DATA) - 1, len(DATA)),
    ],
)
def test_a_range_of_it(tmp_path: Path, header: str, first: int, end: int) -> None:
    async def test(control: Running) -> None:
        image = with_image(control.engine)
        status, body, response = await get(control, Range=header)
        assert (status, body) == (206, DATA[first:end])
        assert response.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(DATA)}"
        status, body, _ = await get(control, **{"Range": header, "If-Range": f'"{image}"'})
        assert (status, len(body)) == (206, end - first)
        status, body, _ = await get(control, **{"Range": header, "If-Range": '"another"'})
        assert (status, len(body)) == (200, len(DATA)), "the name means another image by now"

    serve(tmp_path, test)


def test_a_range_beyond_the_end_is_a_problem(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        status, problem = await control.ask("GET", "/v1/images/web:1/content", headers={"Range": f"bytes={len(DATA)}-"})
        assert (status, problem["kind"]) == (416, "usage")
        assert str(len(DATA)) in problem["detail"]
        async with control.session.get(URL, headers={"Range": f"bytes={len(DATA)}-"}) as response:
            assert response.headers["Content-Range"] == f"bytes */{len(DATA)}"

    serve(tmp_path, test)


def test_unknown_images_and_parameters_are_problems(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        for path, expected in (
            ("/v1/images/web:2/content", 404),
            ("/v1/images/no%20name/content", 400),
            ("/v1/images/web:1/content?offset=1", 400),
            ("/v1/images/web:1/content?deadline_s=0", 400),
            ("/v1/images/web:1/content?deadline_s=x", 400),
        ):
            status, _ = await control.ask("GET", path)
            assert status == expected, path

    serve(tmp_path, test)


def test_what_cannot_be_had_at_all_is_told_by_the_status(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        control.engine.read_trouble = ExhaustedError("nobody has piece 7")
        status, problem = await control.ask("GET", "/v1/images/web:1/content")
        assert (status, problem["detail"]) == (503, "nobody has piece 7")

    serve(tmp_path, test)


def test_an_answer_that_breaks_off_does_not_look_whole(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        control.engine.read_trouble = ExhaustedError("nobody has piece 7")
        control.engine.read_trouble_from_bytes = 2 * CONTENT_CHUNK_SIZE_BYTES
        async with control.session.get(URL) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert control.engine.readers == 0

    serve(tmp_path, test)


def test_a_reader_that_stops_reading_is_cut_off(tmp_path: Path) -> None:
    async def test() -> None:
        engine = MemoryEngine(tmp_path)
        with_image(engine)
        path = tmp_path / "sock"
        async with ControlServer(engine, MemoryOperations(tmp_path), path, stalled_reader_s=0.2):
            reader, writer = await asyncio.open_unix_connection(path, limit=1024)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(b"GET /v1/images/web:1/content HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await reader.readline()
            await engine.have_readers(0)
            writer.close()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_reader_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        control.engine.may_read.clear()
        task = asyncio.create_task(get(control))
        await control.engine.have_readers(1)
        task.cancel()
        await control.engine.have_readers(0)

    serve(tmp_path, test)


def test_readers_have_so_many_places(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        control.engine.may_read.clear()
        connector = aiohttp.UnixConnector(str(control.path), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def read() -> int:
                async with session.get(URL) as response:
                    await response.read()
                    return response.status

            readers = [asyncio.create_task(read()) for _ in range(CONTENT_READERS_PER_USER_MAX_COUNT)]
            await control.engine.have_readers(CONTENT_READERS_PER_USER_MAX_COUNT)
            assert await read() == 503
            control.engine.may_read.set()
            assert set(await asyncio.gather(*readers)) == {200}

    serve(tmp_path, test)


def test_a_reader_that_waits_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with_image(control.engine)
        control.engine.may_read.clear()
        task = asyncio.create_task(get(control))
        await control.engine.have_readers(1)
        await asyncio.wait_for(control.server.close(), 2)
        with pytest.raises(aiohttp.ClientError):
            await task

    serve(tmp_path, test)


@pytest.mark.needs_root
def test_who_may_only_look_may_not_read_what_is_in_an_image(tmp_path: Path) -> None:
    need_root()

    async def test(control: Running) -> None:
        with_image(control.engine)
        (status, problem), _ = await as_user(
            control.path, STRANGER_UID, STRANGER_GID, [("GET", "/v1/images/web:1/content", None)]
        )
        assert (status, problem["kind"]) == (403, "denied")

    serve(tmp_path, test)
