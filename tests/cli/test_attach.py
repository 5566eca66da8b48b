"""What `entice attach --owner` hands over to another user: its socket, and no other file."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from enticed.cli.attach import _private_directory
from enticed.cli.nbdkit import NbdServer
from tests.programs import need_root

NOBODY = 65534


def test_a_file_that_was_put_in_place_of_the_socket_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root()
    secret, path = tmp_path / "secret", tmp_path / "nbd.sock"
    secret.touch()

    class Replaced(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            super().bind(address)
            path.unlink()
            path.symlink_to(secret)

    monkeypatch.setattr(socket, "socket", Replaced)
    with NbdServer("no.sock", "a:1", path, owner=NOBODY):
        assert secret.stat().st_uid == 0


def test_the_directory_is_not_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with _private_directory(NOBODY) as directory:
        found = directory.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o711)
