"""The state directory, where somebody else has put names: nothing that they lead to is read, written or removed."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enticed.store.store import Store
from tests.programs import need_root
from tests.store.making import Made, make_image, open_store, publish, raw_of

SECRET = b"of another user"
OTHERS = [f"{number:064x}" for number in range(1, 8)]
"""Names that an image may have."""


@pytest.fixture
def made() -> Made:
    return make_image(7)


@pytest.fixture
def state(tmp_path: Path, made: Made) -> Path:
    """With one good image in it."""
    with open_store(tmp_path / "state") as store:
        publish(store, made)
    return tmp_path / "state"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory that is none of the store's business, with what the store would read, write or remove."""
    directory = tmp_path / "victim"
    (directory / "deep").mkdir(parents=True)
    for name in ("file", "raw", "root", "pages", "deep/file"):
        (directory / name).write_bytes(SECRET)
        (directory / name).chmod(0o604)
    return directory


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and directory in it: mode, time of its last change, and content."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(directory.rglob("*"))
    }


@contextmanager
def opened(state: Path, made: Made) -> Iterator[Store]:
    """The store opens, and has its good image and no other."""
    with open_store(state) as store:
        assert [stored.image for stored in store.images()] == [made.image]
        assert raw_of(state, made) == made.raw
        yield store


def test_links_in_the_state_directory_lead_nowhere(state: Path, victim: Path, made: Made) -> None:
    before = snapshot(victim)
    images, names = state / "images", state / "names"
    for name in (".incoming-1", ".leaving-2", f".broken-{OTHERS[0]}", f".broken-{made.image}", OTHERS[1]):
        (images / name).symlink_to(victim)
    for number, name in enumerate(("root", "pages", "raw", "statements"), start=2):
        (images / OTHERS[number]).mkdir()
        (images / OTHERS[number] / name).symlink_to(victim / "deep" if name == "statements" else victim / "file")
    (images / ".incoming-3").mkdir()
    (images / ".incoming-3" / "deep").symlink_to(victim)
    (names / OTHERS[0]).symlink_to(victim / "file")
    (names / ".new-a").symlink_to(victim)
    with opened(state, made):
        pass
    with opened(state, made):  # and what the first start has made of it
        assert snapshot(victim) == before


@pytest.mark.parametrize("part", ["raw", "root", "pages", "index", "statements"])
def test_a_part_of_an_image_that_is_a_link_is_not_used(state: Path, victim: Path, made: Made, part: str) -> None:
    """Not read as the image's, and not written through; the store opens all the same."""
    before = snapshot(victim)
    path = state / "images" / str(made.image) / part
    path.rename(state / "was")
    path.symlink_to(victim / "file")
    with open_store(state) as store:
        for stored in store.images():
            assert stored.image == made.image
            assert part not in ("root", "pages")
            assert part != "raw" or not stored.ready
    assert snapshot(victim) == before


@pytest.mark.parametrize("name", ["images", "names", "lock", "version", "catalogue.sqlite"])
def test_a_name_of_the_store_that_is_a_link_is_not_followed(state: Path, victim: Path, name: str) -> None:
    """The daemon does not start, and says why."""
    before = snapshot(victim)
    (state / name).rename(state / "was")
    (state / name).symlink_to(victim if name in ("images", "names") else victim / "file")
    with pytest.raises(Exception, match=name) as raised:
        open_store(state)
    assert type(raised.value).__module__ == "protocol.errors"
    assert str(raised.value).isprintable()
    assert snapshot(victim) == before


def odd_names() -> Iterator[bytes]:
    yield b"two\nlines"
    yield b"\x1b[31mred"
    yield b"\xff\xfe not text"
    yield "\u202egnp.exe".encode()
    yield b"x" * 255
    yield b"-rf"
    yield b"; rm *"
    yield f".new-{OTHERS[0]}".encode()
    yield OTHERS[1].encode()


def test_odd_names_in_the_state_directory_are_left_alone(state: Path, made: Made) -> None:
    """Of files, directories, pipes and sockets: nobody waits for a pipe, and nobody is confused by a name."""
    for where in (b"", b"images", b"names"):
        directory = os.path.join(os.fsencode(state), where)
        for number, name in enumerate(odd_names()):
            kind = number % 3 if name != OTHERS[1].encode() else 0
            path = os.path.join(directory, name)
            if kind == 0:
                os.mkfifo(path)
            elif kind == 1:
                os.mkdir(path)
            else:
                Path(os.fsdecode(path)).write_bytes(b"?")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(state / "images" / "socket"))
        with opened(state, made):
            pass


@pytest.mark.needs_root
def test_devices_in_the_state_directory_are_not_read(state: Path, made: Made) -> None:
    need_root()
    directory = state / "images" / OTHERS[3]
    directory.mkdir()
    for name in ("root", "pages", "raw"):
        os.mknod(directory / name, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zeros without end
    with opened(state, made):
        pass
