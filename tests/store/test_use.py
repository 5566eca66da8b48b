"""Who stands on an image: processes that have it open, disks of guests in chains."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.store.limits import PIN_MAX_SIZE_BYTES
from enticed.store.notes import Pin, PinBook
from enticed.store.use import Guests, backing_of, file_id, guests_on, is_open_elsewhere, openers
from tests.programs import need
from tests.project.imports import ROOT
from tests.store.making import NOW, make_image, open_store, publish

MADE = make_image(7)


def test_a_file_that_is_open_or_mapped_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(8192))
    own = os.open(path, os.O_RDONLY)
    assert not is_open_elsewhere(own)
    other = os.open(path, os.O_RDONLY)
    assert is_open_elsewhere(own)
    mapped = mmap.mmap(other, 4096, prot=mmap.PROT_READ)
    os.close(other)
    assert is_open_elsewhere(own), "mapped is as good as open"
    mapped.close()
    assert not is_open_elsewhere(own)
    os.close(own)


def test_whoever_opens_it_meanwhile_ends_nobody(tmp_path: Path) -> None:
    """A lease that is broken is told of by a signal, which by itself would end the process."""
    path = tmp_path / "raw"
    path.write_bytes(b"x")
    code = f"""
import fcntl, os, subprocess
from enticed.store import use
fd = os.open({str(path)!r}, os.O_RDONLY)
use.take_lease(fd)
opening = subprocess.Popen(["cat", {str(path)!r}], stdout=subprocess.DEVNULL, close_fds=True)
try:
    opening.wait(1)
except subprocess.TimeoutExpired:
    pass
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
assert opening.wait(10) == 0
print("alive")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "alive\n"


def test_who_has_it_open_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"x")
    with path.open("rb") as opened, subprocess.Popen(["sleep", "60"], stdin=opened) as process:
        assert openers()[file_id(path)] == [f"process {process.pid} (sleep)"]
        process.kill()


def test_the_store_asks_for_an_image_that_nobody_holds_here(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        stored = publish(store, MADE)
        number = stored.raw_fd
        assert not store.is_open_elsewhere(MADE.image)
        with stored.path.open("rb"):
            assert store.is_open_elsewhere(MADE.image)
            with store.hold(MADE.image) as hold:
                assert not store.is_open_elsewhere(MADE.image), "of what is held here it is not asked"
                assert os.pread(hold.image.raw_fd, 1, 0) is not None
        assert not store.is_open_elsewhere(MADE.image)
        assert os.fstat(stored.raw_fd).st_ino == stored.path.stat().st_ino, f"{number} may have another number now"


def test_chains_of_qcow2_files_lead_to_what_they_stand_on(tmp_path: Path) -> None:
    need("qemu-img")
    raw, guests = tmp_path / "raw", tmp_path / "guests"
    (guests / "deep" / "er").mkdir(parents=True)
    raw.write_bytes(bytes(65536))
    create = ("qemu-img", "create", "-q", "-f", "qcow2")
    subprocess.run([*create, "-b", raw, "-F", "raw", guests / "base"], check=True)
    subprocess.run([*create, "-b", "../../base", "-F", "qcow2", guests / "deep" / "er" / "top"], check=True)
    (guests / "loop").symlink_to(guests)
    os.mkfifo(guests / "pipe")
    found = guests_on([guests, tmp_path / "absent"])
    assert set(found.on) == {file_id(raw), file_id(guests / "base")}
    assert found.unread == {tmp_path / "absent": "No such file or directory"}
    raw.unlink()
    assert set(guests_on([guests]).unread) == {guests / "base", guests / "deep" / "er" / "top"}


def test_a_chain_without_end_ends(tmp_path: Path) -> None:
    path = stand(tmp_path / "self", "self")
    found = guests_on([tmp_path])
    assert set(found.on) == {file_id(path)}
    assert found.unread == {path: "it stands on more than 64 others"}


def stand(path: Path, name: str) -> Path:
    """A qcow2 file that gives this name for what it stands on; no guest could start from it."""
    encoded = name.encode()
    path.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 3, 20, len(encoded)) + encoded)
    return path


def test_what_is_not_looked_at_is_not_called_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.store.use.GUEST_DEPTH_MAX_COUNT", 1)
    monkeypatch.setattr("enticed.store.use.GUEST_FILES_MAX_COUNT", 3)
    guests, away = tmp_path / "guests", tmp_path / "away"
    (guests / "a" / "b").mkdir(parents=True)
    away.mkdir()
    (guests / "away").symlink_to(away)
    (guests / "dangling").symlink_to(tmp_path / "nothing")
    (guests / "around").symlink_to(guests / "a")
    (away / "base").write_bytes(b"x")
    stand(away / "vm", str(away / "base"))
    (guests / "vm").symlink_to(away / "vm")
    found = guests_on([guests])
    assert found.on == {file_id(away / "base"): guests / "vm"}, "a link to a file is followed"
    assert found.unread == {
        guests / "a" / "b": "more than 1 directories deep",
        guests / "away": "a link out of the directories that are looked at",
        guests / "dangling": "a link out of the directories that are looked at",
    }
    assert guests / "away" not in guests_on([guests, away]).unread
    for number in range(3):
        (guests / f"w{number}").write_bytes(b"no qcow2 at all")
    assert guests_on([guests]).unread[guests / "w2"] == "there are more than 3 files"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("base", "base"),
        ("file:base", "base"),
        ("./a:b", "./a:b"),
        ("/a:b", "/a:b"),
        ("base\0rest", "base"),
        ('json:{"driver":"raw","file":{"driver":"file","filename":"/base"}}', "/base"),
        ('json:{"driver":"qcow2","file.driver":"file","file.filename":"/base"}', "/base"),
        ('json:{"driver":"file","filename":"/base"}', "/base"),
    ],
)
def test_names_of_files(tmp_path: Path, name: str, file: str) -> None:
    assert backing_of(stand(tmp_path / "vm", name)) == tmp_path / file


@pytest.mark.parametrize(
    "name",
    [
        "nbd+unix:///?socket=/run/entice-x/nbd.sock",
        "nbd:unix:/run/entice-x/nbd.sock",
        "https://images.example/base.qcow2",
        "rbd:pool/base",
        'json:{"driver":"qcow2","file":{"driver":"nbd","path":"/run/entice-x/nbd.sock"}}',
        'json:{"driver":"raw","file.driver":"rbd","file.pool":"pool","file.image":"base"}',
    ],
)
def test_what_stands_on_another_host_or_a_socket_stands_on_no_file(tmp_path: Path, name: str) -> None:
    stand(tmp_path / "vm", name)
    assert guests_on([tmp_path]) == Guests({}, {})


@pytest.mark.parametrize(
    "name",
    [
        "blkdebug::base",
        "json:",
        "json:[]",
        "json:" + "[" * 1000,
        'json:{"driver":"raw","file":"node"}',
        'json:{"driver":["file"],"filename":7}',
        'json:{"driver":"file","filename":"base"}',
        'json:{"driver":"file","filename":"/\\u0000"}',
        'json:{"driver":"file","filename":"/\\ud800"}',
        'json:{"driver":"qcow2","file":{"driver":"file","filename":"/top"},"backing":{"driver":"file","filename":"/base"}}',
    ],
)
def test_a_name_that_says_nothing_is_counted(tmp_path: Path, name: str) -> None:
    path = stand(tmp_path / "vm", name)
    assert list(guests_on([tmp_path]).unread) == [path]


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"QFI\xfb\x00\x00\x00\x03" + tail))
def test_any_bytes_are_a_disk_that_stands_on_something_or_nothing(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(ValueError):
            backing = backing_of(Path(file.name))
            assert backing is None or data.startswith(b"QFI\xfb")


def test_pins_last_until_they_end_and_damaged_ones_hold(tmp_path: Path) -> None:
    image = MADE.image
    with open_store(tmp_path) as store:
        store.pin_book.put(image, Pin(NOW + 10))
    with open_store(tmp_path) as store:
        assert store.pin_book.of(image, NOW + 9) == Pin(NOW + 10)
        assert store.pin_book.of(image, NOW + 10) is None
        store.pin_book.drop_expired(NOW + 10)
        assert list((tmp_path / "pins").iterdir()) == []
        store.pin_book.put(image, Pin())
    (tmp_path / "pins" / str(image)).write_text("no pin")
    (tmp_path / "pins" / ".new-something").write_text("half")
    with open_store(tmp_path) as store:
        assert store.pin_book.of(image, NOW) == Pin()
        assert any("pin of image" in trouble for trouble in store.troubles)
        store.pin_book.drop(image)
        store.pin_book.drop(image)
        (tmp_path / "pins" / str(image)).write_bytes(bytes(PIN_MAX_SIZE_BYTES + 1))  # it cannot be read at all
    with open_store(tmp_path) as store:
        assert store.pin_book.of(image, NOW) == Pin()
        store.pin_book.drop(image)
    assert list((tmp_path / "pins").iterdir()) == []


def test_there_are_no_more_pins_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.store.notes.PINS_MAX_COUNT", 1)
    with open_store(tmp_path) as store:
        store.pin_book.put(MADE.image, Pin())
        with pytest.raises(Exception, match="more than 1 pins"):
            store.pin_book.put(make_image(8).image, Pin())


def test_a_pin_book_reads_what_another_wrote(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.pin_book.put(MADE.image, Pin(5.0))
        assert PinBook(store._files).of(MADE.image, 4.0) == Pin(5.0)
