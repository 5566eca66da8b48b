"""Images that come from this host's own disk."""

import os
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import CorruptError, LocalError
from protocol.limits import MIB
from tests.store.making import hidden, make_image, mode_of, open_store, publish, raw_of


def test_an_import_is_ready_when_committed(tmp_path: Path) -> None:
    made = make_image(4)
    with open_store(tmp_path) as store:
        with store.begin_import(MIB) as draft:
            assert store.space().promised_bytes == MIB
            made.write_fd(draft.raw_fd)
            assert store.images() == ()
            stored = draft.commit(made.root, made.pages, (b"s",))
            with pytest.raises(LocalError, match="is over"):
                draft.commit(made.root, made.pages, ())
        assert stored.ready
        assert stored.durable.all()
        assert store.audit(made.image).all()
        assert store.space().promised_bytes == 0
        assert mode_of(tmp_path, made) == 0o440
        with pytest.raises(OSError, match="Bad file"):
            os.pwrite(stored.raw_fd, b"x", 0)
    assert hidden(tmp_path) == []
    assert raw_of(tmp_path, made) == made.raw


def test_an_import_that_is_left_leaves_nothing(tmp_path: Path) -> None:
    made = make_image(4)
    with open_store(tmp_path) as store:
        with store.begin_import(MIB) as draft:
            made.write_fd(draft.raw_fd)
        assert store.space().promised_bytes == 0
        with store.begin_import() as draft:
            os.ftruncate(draft.raw_fd, made.root.virtual_size_bytes + 1)
            with pytest.raises(LocalError, match="more than the image's"):
                draft.commit(made.root, made.pages, ())
        with store.begin_import() as draft, pytest.raises(CorruptError):
            draft.commit(make_image(5).root, made.pages, ())
        assert store.images() == ()
    assert list((tmp_path / "images").iterdir()) == []


def test_an_import_of_what_is_here_keeps_what_is_here(tmp_path: Path) -> None:
    made = make_image(4)
    with open_store(tmp_path) as store:
        first = publish(store, made, (b"one",))
        inode = first.path.stat().st_ino
        assert publish(store, made, (b"two",)) is first
        assert first.path.stat().st_ino == inode
        assert first.statements == (b"one", b"two")
    assert hidden(tmp_path) == []


def test_an_import_completes_a_pull(tmp_path: Path) -> None:
    made = make_image(4)
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        made.write_fd(stored.raw_fd, [1, 3])
        store.mark_durable(made.image, np.array([1, 3]))
        assert publish(store, made) is stored
        assert stored.ready
    assert raw_of(tmp_path, made) == made.raw


def test_a_wrong_import_completes_nothing(tmp_path: Path) -> None:
    made, other = make_image(4), make_image(5)
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        with store.begin_import() as draft:
            other.write_fd(draft.raw_fd)
            os.ftruncate(draft.raw_fd, made.root.virtual_size_bytes)
            draft.commit(made.root, made.pages, ())
        assert not stored.ready
        assert not stored.durable.any()
