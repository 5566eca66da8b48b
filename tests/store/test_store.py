"""The store on real files: pulls, imports, what is durable, what is refused."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from enticed.store.files import DiskError
from enticed.store.inspection import right_fragments
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.power import Fuse
from enticed.store.store import Store
from protocol.errors import AbsentError, CorruptError, LocalError, MalformedError
from protocol.identifiers import ImageId
from protocol.limits import MIB, STATEMENT_MAX_SIZE_BYTES, STATEMENTS_MAX_COUNT
from tests.store.making import (
    NOW,
    all_pieces,
    hidden,
    made_of,
    make_image,
    mode_of,
    open_store,
    publish,
    pull,
    raw_of,
    store_over,
)

NOBODY = ImageId(bytes(32))


def test_a_pull_from_nothing_to_ready(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        assert store.images() == ()
        stored = store.begin_pull(made.root.encoded, made.pages, (b"statement",))
        assert store.images() == (stored,)
        assert not stored.durable.any()
        assert stored.created_at == NOW
        assert os.fstat(stored.raw_fd).st_size == made.root.virtual_size_bytes
        assert stored.allocated_bytes() == 0
        made.write_fd(stored.raw_fd, [0, 2])
        store.mark_durable(made.image, np.array([0, 2]))
        assert np.flatnonzero(stored.durable).tolist() == [0, 2]
        assert not store.vouch(made.image).ready
        with pytest.raises(LocalError, match="not whole"):
            store.finish(made.image)
        fd = stored.raw_fd
        made.write_fd(fd)
        store.mark_durable(made.image, all_pieces(made))
        store.finish(made.image)
        store.finish(made.image)
        assert stored.ready
        assert stored.raw_fd == fd, "whoever reads from it goes on"
        with pytest.raises(OSError, match="Bad file"):
            os.pwrite(fd, b"x", 0)
        assert stored.path.read_bytes() == made.raw
        assert mode_of(tmp_path, made) == 0o440
        assert hidden(tmp_path) == []
        assert store.troubles == ()


def test_what_is_stored_is_there_after_opening_again(tmp_path: Path) -> None:
    whole, half = make_image(1), make_image(2)
    with open_store(tmp_path) as store:
        publish(store, whole, (b"one", b"two"))
        stored = store.begin_pull(half.root.encoded, half.pages, ())
        half.write_fd(stored.raw_fd, [1])
        store.mark_durable(half.image, np.array([1]))
    with open_store(tmp_path) as store:
        assert store.troubles == ()
        first, second = store.image(whole.image), store.image(half.image)
        assert (first.ready, sorted(first.statements)) == (True, [b"one", b"two"])
        assert first.root.encoded == whole.root.encoded
        assert second.durable.tolist() == [False, True, False, False, False, False]
        pull(store, half)
        assert raw_of(tmp_path, half) == half.raw


def test_an_image_of_zeros_is_ready_at_once(tmp_path: Path) -> None:
    made = made_of([], 5 * MIB)
    with open_store(tmp_path) as store:
        store.begin_pull(made.root.encoded, made.pages, ())
        assert store.vouch(made.image).ready
    assert raw_of(tmp_path, made) == made.raw


def test_an_image_of_one_byte(tmp_path: Path) -> None:
    made = made_of([(0, b"x")], 1)
    with open_store(tmp_path) as store:
        assert pull(store, made).ready
        assert store.audit(made.image).all()
    assert raw_of(tmp_path, made) == b"x"


def test_the_manifest_is_read_back(tmp_path: Path) -> None:
    made = make_image(3)
    with open_store(tmp_path) as store:
        stored = publish(store, made)
        everything = stored.all_fragments()
        assert np.array_equal(everything.offsets_bytes, made.fragments.offsets_bytes)
        assert np.array_equal(everything.digests, made.fragments.digests)
        assert stored.cached_fragments(2) is None
        first, after = made.root.first_fragments[2:4].tolist()
        assert np.array_equal(stored.fragments(2).digests, made.fragments.digests[first:after])
        near = stored.cached_fragments(3)
        assert near is not None
        assert np.array_equal(near.offsets_bytes, made.fragments[after : made.root.first_fragments[4]].offsets_bytes)
        assert stored.read_pages(36, 36) == made.pages[36:72]
        assert stored.read_pages(len(made.pages) - 1, 100) == made.pages[-1:]


def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    made = make_image(3)
    with open_store(tmp_path) as store:
        stored = publish(store, made)
        with (stored.path.parent / "pages").open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(CorruptError):
            stored.fragments(0)
        first, after = made.root.first_fragments[1:3].tolist()
        assert np.array_equal(stored.fragments(1).digests, made.fragments.digests[first:after])
        assert store.audit(made.image).tolist() == [False, True, True, True, True, True]
        os.truncate(stored.path.parent / "pages", 10)
        with pytest.raises(CorruptError, match="cut short"):
            stored.all_fragments()
        with pytest.raises(CorruptError, match="cut short"):
            stored.fragments(4)


@pytest.mark.parametrize("at", [0, 40])
def test_a_manifest_that_is_none_leaves_nothing(tmp_path: Path, at: int) -> None:
    made = make_image(1)
    broken = bytearray(made.pages)
    broken[at] ^= 1
    with open_store(tmp_path) as store:
        with pytest.raises(CorruptError):
            store.begin_pull(made.root.encoded, bytes(broken), ())
        with pytest.raises(MalformedError):
            store.begin_pull(made.root.encoded[:-1], made.pages, ())
        with pytest.raises(LocalError, match="a statement has at most"):
            store.begin_pull(made.root.encoded, made.pages, (bytes(STATEMENT_MAX_SIZE_BYTES + 1),))
        assert store.images() == ()
        assert store.space().promised_bytes == 0
    assert list((tmp_path / "images").iterdir()) == []


def test_a_begun_pull_goes_on(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, (b"one",))
        assert store.begin_pull(made.root.encoded, made.pages, (b"two", b"one")) is stored
        assert stored.statements == (b"one", b"two")


def test_statements_are_kept_once_and_so_many(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        publish(store, made, (b"0", b"0"))
        for number in range(2 * STATEMENTS_MAX_COUNT):
            store.add_statement(made.image, str(number).encode())
        kept = store.image(made.image).statements
        assert kept == tuple(str(number).encode() for number in range(STATEMENTS_MAX_COUNT))
        with pytest.raises(AbsentError):
            store.add_statement(NOBODY, b"x")
    with open_store(tmp_path) as store:
        assert set(store.image(made.image).statements) == set(kept)


def test_a_damaged_statement_is_dropped(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        publish(store, made, (b"one", b"two"))
    statements = tmp_path / "images" / str(made.image) / "statements"
    first, second = sorted(statements.iterdir())
    first.write_bytes(b"damaged")
    second.with_name(".new-x").write_bytes(b"half")
    with open_store(tmp_path) as store:
        assert len(store.image(made.image).statements) == 1
    assert len(list(statements.iterdir())) == 1


# --- forgetting, holding ---


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    made, other = make_image(1), make_image(2)
    with open_store(tmp_path) as store:
        publish(store, made)
        publish(store, other)
        used_bytes = store.space().used_bytes
        store.forget(made.image)
        assert store.space().used_bytes < used_bytes
        with pytest.raises(AbsentError):
            store.image(made.image)
        with pytest.raises(AbsentError):
            store.forget(made.image)
        for call in (store.hold, store.vouch, store.finish, store.audit, store.touch):
            with pytest.raises(AbsentError):
                call(made.image)
    assert [entry.name for entry in (tmp_path / "images").iterdir()] == [str(other.image)]
    with open_store(tmp_path) as store:
        assert [image.image for image in store.images()] == [other.image]
        publish(store, made)


def test_what_is_held_is_not_forgotten(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        publish(store, made)
        first, second = store.hold(made.image), store.hold(made.image)
        assert first.image is store.image(made.image)
        first.close()
        first.close()
        assert store.held(made.image) == 1
        with pytest.raises(LocalError, match="is open"):
            store.forget(made.image)
        second.close()
        store.forget(made.image)


def test_a_descriptor_is_opened_when_needed_and_closed_when_forgotten(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        publish(store, made)
        before = len(os.listdir("/proc/self/fd"))
        with store.hold(made.image) as hold:
            assert hold.image.raw_fd == hold.image.raw_fd
            assert len(os.listdir("/proc/self/fd")) == before + 1
        store.forget(made.image)
        assert len(os.listdir("/proc/self/fd")) == before


def test_use_is_remembered(tmp_path: Path) -> None:
    made = make_image(1)
    times = iter([2.0, 3.0, 4.0])
    with Store.open(tmp_path, None, 0, lambda: next(times)) as store:
        stored = publish(store, made)
        assert (stored.created_at, stored.last_used_at) == (2.0, 2.0)
        store.touch(made.image)
    with open_store(tmp_path) as store:
        assert (store.image(made.image).created_at, store.image(made.image).last_used_at) == (2.0, 3.0)


# --- right and wrong ---


def test_an_audit_finds_what_is_wrong_and_changes_nothing(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        stored = publish(store, made)
        os.chmod(stored.path, 0o600)
        with stored.path.open("r+b") as file:
            file.seek(2 * MIB)
            file.write(b"rot")
        assert store.audit(made.image).tolist() == [True, True, False, True, True, True]
        assert store.audit(made.image, np.array([2, 5])).tolist() == [False, True]
        assert stored.ready


def test_what_cannot_be_read_is_not_right() -> None:
    made = make_image(1)
    fuse = Fuse()
    files = MemoryFiles(fuse)
    with store_over(files, MemoryCatalogue()) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        made.write(files, stored.raw_fd, range(6))
        store.mark_durable(made.image, all_pieces(made))
        fuse.failures = {fuse.calls + call: errno.EIO for call in range(1, 6)}
        with pytest.raises(DiskError):  # the manifest
            stored.read_fragments(0)
        fd, fragments = stored.raw_fd, made.fragments
        fuse.failures = {fuse.calls + 2: errno.EIO}  # the first read, after a look for holes
        right = right_fragments(files, fd, fragments)
        assert not right[0]
        assert right[3:].all()


def test_what_is_retracted_is_written_again(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        stored = publish(store, made)
        fd = stored.raw_fd
        store.retract(made.image, np.array([2]))
        assert not stored.ready
        assert np.flatnonzero(~stored.durable).tolist() == [2]
        assert mode_of(tmp_path, made) == 0o600
        assert stored.raw_fd == fd
        made.write_fd(fd, [2])
        store.mark_durable(made.image, np.array([2]))
        store.finish(made.image)
        assert mode_of(tmp_path, made) == 0o440


def test_what_nobody_vouches_for_is_hashed(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        made.write_fd(stored.raw_fd, [0, 1, 3])
        os.pwrite(stored.raw_fd, b"wrong", 3 * MIB)
        store.mark_durable(made.image, np.array([0]))
    with open_store(tmp_path) as store:
        assert np.flatnonzero(store.image(made.image).durable).tolist() == [0]
        assert np.flatnonzero(store.vouch(made.image).durable).tolist() == [0, 1]
        made.write_fd(store.image(made.image).raw_fd)
        assert store.vouch(made.image).ready
