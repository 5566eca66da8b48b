"""The names of sockets: what an earlier daemon left is cleared away, what is another's is left alone."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from enticed.control.server import ControlServer, handoff_path
from protocol.errors import LocalError
from tests.control.engine import MemoryEngine
from tests.control.operations import MemoryOperations
from tests.control.running import Running, serve


def leave_behind(path: Path, kind: socket.SocketKind) -> None:
    """A socket as a daemon leaves it that was killed."""
    with socket.socket(socket.AF_UNIX, kind) as stale:
        stale.bind(str(path))


def test_takes_the_place_of_a_daemon_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "entice.sock"
    leave_behind(path, socket.SOCK_STREAM)
    leave_behind(handoff_path(path), socket.SOCK_SEQPACKET)

    async def test(control: Running) -> None:
        assert (await control.ask("GET", "/v1/status"))[0] == 200
        for name in (path, handoff_path(path)):
            assert stat.S_IMODE(name.stat().st_mode) == 0o666

    serve(tmp_path, test)
    assert [one.name for one in tmp_path.iterdir()] == ["store"]


def test_a_second_daemon_is_refused_and_the_first_not_disturbed(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        with pytest.raises(LocalError, match="another daemon answers"):
            await ControlServer(MemoryEngine(tmp_path), MemoryOperations(tmp_path), control.path).start()
        assert (await control.ask("GET", "/v1/status"))[0] == 200

    serve(tmp_path, test)


def test_leaves_alone_what_is_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "entice.sock"
    path.write_text("precious")

    async def start(where: Path) -> None:
        await ControlServer(MemoryEngine(tmp_path), MemoryOperations(tmp_path), where).start()

    with pytest.raises(LocalError, match="is no socket"):
        asyncio.run(start(path))
    assert path.read_text() == "precious"
    with pytest.raises(LocalError, match=f"there is no directory {tmp_path / 'nowhere'}: --socket names another"):
        asyncio.run(start(tmp_path / "nowhere" / "entice.sock"))
    with pytest.raises(LocalError, match="cannot listen"):
        asyncio.run(start(tmp_path / ("long" * 40)))


def test_when_the_second_socket_cannot_be_had_the_first_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "entice.sock"
    handoff_path(path).write_text("precious")
    with pytest.raises(LocalError, match="is no socket"):
        asyncio.run(ControlServer(MemoryEngine(tmp_path), MemoryOperations(tmp_path), path).start())
    assert not path.exists()


def test_closing_leaves_a_name_that_is_anothers_by_now(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.path.unlink()
        leave_behind(control.path, socket.SOCK_STREAM)

    serve(tmp_path, test)
    assert (tmp_path / "entice.sock").exists()
