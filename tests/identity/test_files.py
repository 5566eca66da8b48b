"""Files that are there whole, or not at all."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from enticed.identity.files import draft_directory, read_file, write_file
from protocol.errors import AbsentError, LocalError


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    write_file(path, b"one")
    write_file(path, b"two")
    assert read_file(path, 3) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    with pytest.raises(OSError):
        write_file(tmp_path / "tokens", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_reading(tmp_path: Path) -> None:
    with pytest.raises(AbsentError):
        read_file(tmp_path / "none", 10)
    with pytest.raises(LocalError, match="cannot read"):
        read_file(tmp_path, 10)
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(LocalError, match="larger than 10"):
        read_file(tmp_path / "large", 10)


def give_up(target: Path, meanwhile: Callable[[], object]) -> None:
    with draft_directory(target):
        meanwhile()
        raise KeyboardInterrupt


def test_a_draft_that_is_given_up_unmakes_its_parents(tmp_path: Path) -> None:
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        give_up(tmp_path / "a" / "b" / "identity", lambda: seen.extend(os.listdir(tmp_path / "a")))
    assert seen == ["b"]
    assert list(tmp_path.iterdir()) == []


def test_but_never_what_others_put_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        give_up(tmp_path / "a" / "b" / "identity", (tmp_path / "a" / "theirs").mkdir)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["theirs"]


def test_the_first_of_two_wins(tmp_path: Path) -> None:
    target = tmp_path / "identity"
    with draft_directory(target) as first, draft_directory(target) as second:
        first.publish({"who": b"first"})
        with pytest.raises(LocalError, match="cannot write"):
            second.publish({"who": b"second"})
    assert (target / "who").read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]
