"""What the store makes of a state directory that is not as it left it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from enticed.store.store import Store
from protocol.errors import CorruptError, LocalError
from tests.store.making import Made, all_pieces, hidden, make_image, open_store, publish, pull

HOLD_LOCK = """
import sys
from pathlib import Path
from enticed.store.store import Store
store = Store.open(Path(sys.argv[1]), None, 0, lambda: 0.0)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def made() -> Made:
    return make_image(7)


def directory_of(state_dir: Path, made: Made) -> Path:
    return state_dir / "images" / str(made.image)


def test_a_second_daemon_is_told_who_has_it(tmp_path: Path, made: Made) -> None:
    arguments = [sys.executable, "-c", HOLD_LOCK, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(LocalError, match=f"is in use by process {holder.pid} on "):
            open_store(tmp_path)
        holder.kill()
    with open_store(tmp_path) as store:
        publish(store, made)
        with pytest.raises(LocalError, match=f"process {os.getpid()} on "):
            open_store(tmp_path)
    open_store(tmp_path).close()


@pytest.mark.parametrize("version", ["2", "10"])
def test_a_newer_store_is_left_alone(tmp_path: Path, version: str) -> None:
    open_store(tmp_path).close()
    (tmp_path / "version").write_text(f"{version}\n")
    (tmp_path / "images" / ".incoming-1").mkdir()
    for _ in range(2):  # the lock has been let go again
        with pytest.raises(LocalError, match=f"the store is of version {version}, newer than 1"):
            open_store(tmp_path)
    assert hidden(tmp_path) == [".incoming-1"]


def test_a_version_that_is_none_is_told(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "version").write_bytes(b"\xff\xfe")
    with pytest.raises(CorruptError, match="which is none"):
        open_store(tmp_path)


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError):
        open_store(tmp_path / "file" / "state")


def test_leftovers_are_swept(tmp_path: Path, made: Made) -> None:
    with open_store(tmp_path) as store:
        publish(store, made)
    for name in (".incoming-7", ".leaving-9"):
        shutil.copytree(directory_of(tmp_path, made), tmp_path / "images" / name)
    with open_store(tmp_path) as store:
        assert store.troubles == ()
        assert len(store.images()) == 1
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 1000])
def test_a_damaged_catalogue_is_rebuilt_from_the_files(tmp_path: Path, made: Made, garbage: bytes) -> None:
    half = make_image(8)
    with open_store(tmp_path) as store:
        publish(store, made, (b"statement",))
        stored = store.begin_pull(half.root.encoded, half.pages, ())
        half.write_fd(stored.raw_fd, [0, 5])
        store.mark_durable(half.image, np.array([0, 5]))
    (tmp_path / "catalogue.sqlite").write_bytes(garbage)
    with open_store(tmp_path) as store:
        assert len(store.troubles) == (3 if garbage else 2)
        assert [image.ready for image in store.images()] == [False, False]
        assert store.vouch(made.image).ready
        assert store.image(made.image).statements == (b"statement",)
        assert np.flatnonzero(store.vouch(half.image).durable).tolist() == [0, 5]
    with open_store(tmp_path) as store:
        assert store.troubles == ()
        assert store.image(made.image).ready


def test_a_rebuilt_catalogue_believes_no_wrong_byte(tmp_path: Path, made: Made) -> None:
    with open_store(tmp_path) as store:
        stored = publish(store, made)
    (tmp_path / "catalogue.sqlite").unlink()
    stored.path.chmod(0o600)
    with stored.path.open("r+b") as file:
        file.write(b"rot")
    with open_store(tmp_path) as store:
        assert store.vouch(made.image).durable.tolist() == [False, True, True, True, True, True]
        pull(store, made)


@pytest.mark.parametrize("accident", ["longer", "shorter", "gone"])
def test_a_raw_file_of_another_size_is_hashed_anew(tmp_path: Path, made: Made, accident: str) -> None:
    with open_store(tmp_path) as store:
        path = publish(store, made).path
    match accident:
        case "longer":
            os.truncate(path, made.root.virtual_size_bytes + 10)
        case "shorter":
            os.truncate(path, 3 << 20)
        case _:
            path.unlink()
    with open_store(tmp_path) as store:
        assert len(store.troubles) == 1
        assert "missing or of a wrong size" in store.troubles[0]
        assert not store.image(made.image).durable.any()
        right = np.flatnonzero(store.vouch(made.image).durable).tolist()
        assert right == {"longer": [0, 1, 2, 3, 4, 5], "shorter": [0, 1, 2], "gone": []}[accident]
        if accident != "longer":
            pull(store, made)
        assert path.read_bytes() == made.raw


@pytest.mark.parametrize("name", ["root", "pages"])
def test_an_image_without_its_manifest_keeps_its_bytes(tmp_path: Path, made: Made, name: str) -> None:
    with open_store(tmp_path) as store:
        publish(store, made)
    os.truncate(directory_of(tmp_path, made) / name, 20)
    with open_store(tmp_path) as store:
        assert store.images() == ()
        assert "has to be pulled again" in store.troubles[0]
        store.begin_pull(made.root.encoded, made.pages, ())
        assert store.vouch(made.image).ready, "nothing had to be fetched but the manifest"
    assert hidden(tmp_path) == []
    assert (directory_of(tmp_path, made) / "raw").read_bytes() == made.raw


def test_an_image_whose_files_are_gone_is_gone(tmp_path: Path, made: Made) -> None:
    with open_store(tmp_path) as store:
        publish(store, made)
    shutil.rmtree(directory_of(tmp_path, made))
    with open_store(tmp_path) as store:
        assert store.images() == ()
        assert "its files are gone" in store.troubles[0]
        assert not store.begin_pull(made.root.encoded, made.pages, ()).durable.any()


def test_what_is_no_image_is_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    for name in ("lost+found", "A" * 64, "f" * 63):
        (tmp_path / "images" / name).mkdir()
    with open_store(tmp_path) as store:
        assert store.images() == ()
    assert len(list((tmp_path / "images").iterdir())) == 3


def test_others_are_shut_out_of_directories_that_stood_open(tmp_path: Path, made: Made) -> None:
    with open_store(tmp_path) as store:
        publish(store, made)
        assert store.troubles == ()
    stood_open = [tmp_path, tmp_path / "images", tmp_path / "pins"]
    for directory in stood_open:
        directory.chmod(0o777)
    with open_store(tmp_path) as store:
        for directory, line in zip(stood_open, store.troubles, strict=True):
            assert f"{directory} (mode 0777)" in line
            assert directory.stat().st_mode & 0o777 == 0o755, "who may read is the operator's to say"


def test_modes_are_made_good(tmp_path: Path, made: Made) -> None:
    with open_store(tmp_path) as store:
        path = publish(store, made).path
    path.chmod(0o644)
    open_store(tmp_path).close()
    assert path.stat().st_mode & 0o777 == 0o440


def test_a_relative_path_is_made_absolute(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open(Path("state"), None, 0, lambda: 0.0) as store:
        assert publish(store, made).path.is_absolute()
        store.mark_durable(made.image, all_pieces(made))
