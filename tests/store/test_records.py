"""What else the store remembers, and the space that it accounts for."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from enticed.core.orders import Order, OrderState
from enticed.limits import ADDRESSES_REMEMBERED_MAX_COUNT
from enticed.store.files import DiskError, Files
from enticed.store.layout import read_file
from enticed.store.names import TooManyNamesError
from enticed.store.space import TooLargeError
from enticed.store.sqlite import SqliteCatalogue
from protocol.errors import AbsentError, DeniedError, ExhaustedError, NoSpaceError
from protocol.identifiers import ImageId
from protocol.limits import MIB, RECALL_MAX_SIZE_BYTES
from tests.store.making import all_pieces, hidden, made_of, make_image, open_store, pull

NOBODY = ImageId(bytes(32))


def test_a_name_never_falls_back(tmp_path: Path) -> None:
    first, second = ImageId(bytes(32)), ImageId(bytes([1]) * 32)
    with open_store(tmp_path) as store:
        with pytest.raises(AbsentError):
            store.name("ubuntu:24.04")
        store.save_name("ubuntu:24.04", 5, first, 1000, b"five")
        store.save_name("ubuntu:24.04", 5, first, 1000, b"five")
        with pytest.raises(DeniedError, match="is an older one"):
            store.save_name("ubuntu:24.04", 4, second, 2000, b"four")
        with pytest.raises(DeniedError, match="two meanings"):
            store.save_name("ubuntu:24.04", 5, second, 2000, b"other")
        store.save_name("ubuntu:24.04", 6, second, 2000, b"six")
        store.save_name("debian", 1, first, 3000, b"one")
    (tmp_path / "catalogue.sqlite").write_bytes(b"garbage")
    with open_store(tmp_path) as store:
        assert [saved.name for saved in store.names()] == ["debian", "ubuntu:24.04"]
        saved = store.name("ubuntu:24.04")
        assert (saved.version, saved.image, saved.expires_at, saved.envelope) == (6, second, 2000, b"six")
        with pytest.raises(DeniedError):
            store.save_name("ubuntu:24.04", 5, first, 9000, b"five")


def test_there_are_no_more_names_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.store.names.NAMES_MAX_COUNT", 1)
    with open_store(tmp_path) as store:
        store.save_name("a", 1, NOBODY, 1000, b"a")
        with pytest.raises(TooManyNamesError, match="more than 1 names"):
            store.save_name("b", 1, NOBODY, 1000, b"b")
        store.save_name("a", 2, NOBODY, 1000, b"a")
        assert [(saved.name, saved.version) for saved in store.names()] == [("a", 2)]


def test_a_damaged_name_is_told_and_only_that_one_lost(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.save_name("a", 1, NOBODY, 1000, b"a")
        store.save_name("b", 1, NOBODY, 1000, b"b")
    files = sorted((tmp_path / "names").iterdir())
    data = bytearray(files[0].read_bytes())
    data[40] ^= 1
    files[0].write_bytes(data)
    files[0].with_name(".new-x").write_bytes(b"half")
    with open_store(tmp_path) as store:
        assert len(store.names()) == 1
        assert len(store.troubles) == 1
        assert files[0].name in store.troubles[0]
        store.save_name("a", 1, NOBODY, 1000, b"a")
        store.save_name("b", 1, NOBODY, 1000, b"b")
    with open_store(tmp_path) as store:
        assert (len(store.names()), store.troubles) == (2, ())


def test_a_name_that_the_disk_does_not_give_keeps_no_other_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path) as store:
        store.save_name("a", 1, NOBODY, 1000, b"a")
        store.save_name("b", 1, NOBODY, 1000, b"b")
    bad = min((tmp_path / "names").iterdir()).name

    def read(files: Files, path: str, most_bytes: int) -> bytes:
        if path.endswith(bad):
            raise DiskError(f"cannot read {path}: Input/output error")
        return read_file(files, path, most_bytes)

    monkeypatch.setattr("enticed.store.names.read_file", read)
    with open_store(tmp_path) as store:
        assert len(store.names()) == 1
        assert bad in store.troubles[0]


def test_recalls_stay_as_they_were_signed(tmp_path: Path) -> None:
    other = ImageId(bytes([1]) * 32)
    with open_store(tmp_path) as store:
        store.recall_book.save(NOBODY, b"first")
        store.recall_book.save(NOBODY, b"second")
        store.recall_book.save(other, b"other")
    (tmp_path / "catalogue.sqlite").write_bytes(b"garbage")
    recalls = tmp_path / "recalls"
    (recalls / f".new-{NOBODY}").write_bytes(b"half")
    (recalls / "no image").write_bytes(b"x")
    (recalls / str(ImageId(bytes([2]) * 32))).write_bytes(bytes(RECALL_MAX_SIZE_BYTES + 1))
    with open_store(tmp_path) as store:
        assert store.recall_book.all() == {NOBODY: b"second", other: b"other"}
        assert len([trouble for trouble in store.troubles if "recall" in trouble]) == 2
    assert not (recalls / f".new-{NOBODY}").exists()


def test_only_so_many_recalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.store.records.RECALLS_MAX_COUNT", 1)
    with open_store(tmp_path) as store:
        store.recall_book.save(NOBODY, b"one")
        store.recall_book.save(NOBODY, b"again")
        with pytest.raises(ExhaustedError, match="more than 1 recalls"):
            store.recall_book.save(ImageId(bytes([1]) * 32), b"two")


def test_orders_and_addresses_survive(tmp_path: Path) -> None:
    late, early = Order("late", "a", 2.0), Order("early", "b", 1.0)
    with open_store(tmp_path) as store:
        store.save_order(late)
        store.save_order(early)
        store.save_order(replace(late, state=OrderState.FETCHING, image=NOBODY))
        store.delete_order("early")
        store.save_order(early)
        store.remember_addresses(["b:1", "a:1", "b:1", *(f"c:{port}" for port in range(1000))])
    with open_store(tmp_path) as store:
        assert store.orders() == (early, replace(late, state=OrderState.FETCHING, image=NOBODY))
        assert store.remembered_addresses()[:3] == ("b:1", "a:1", "c:0")
        assert len(store.remembered_addresses()) == ADDRESSES_REMEMBERED_MAX_COUNT
        store.delete_order("late")
        assert store.orders() == (early,)


def test_space_is_claimed_before_the_first_byte(tmp_path: Path) -> None:
    made, other = make_image(1), make_image(2)
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        claimed_bytes = store.space().promised_bytes
        assert made.root.total_data_bytes <= claimed_bytes < made.root.total_data_bytes + 5 * 4096
        assert store.space().used_bytes == 0
        made.write_fd(stored.raw_fd)
        assert store.space().promised_bytes < claimed_bytes
        assert store.space().used_bytes + store.space().promised_bytes == claimed_bytes
        store.mark_durable(made.image, all_pieces(made))
        store.finish(made.image)
        assert store.space().promised_bytes == 0
        assert store.space().used_bytes == claimed_bytes
    with open_store(tmp_path, quota_bytes=claimed_bytes + 1) as store:
        with pytest.raises(
            NoSpaceError, match=r"quota is full: .* needed, 1 bytes left of .* store.quota_bytes: remove"
        ):
            store.begin_pull(other.root.encoded, other.pages, ())
        with store.begin_import() as draft, pytest.raises(NoSpaceError, match="quota is full"):
            draft.commit(other.root, other.pages, ())
        with pytest.raises(TooLargeError, match=r"takes 1\.0 MiB, more than the .* of store\.quota_bytes: raise it"):
            store.begin_import(MIB)
        assert store.image(made.image).ready
        store.forget(made.image)
        store.begin_pull(other.root.encoded, other.pages, ())
    assert hidden(tmp_path) == []


def test_what_is_reserved_for_guests_is_not_taken(tmp_path: Path) -> None:
    made = make_image(1)
    with open_store(tmp_path, reserve_bytes=1 << 60) as store:
        with pytest.raises(NoSpaceError) as refused:
            store.begin_pull(made.root.encoded, made.pages, ())
        assert re.fullmatch(
            rf"the disk is full: [\d.]+ KiB needed in {tmp_path}, [\d.]+ GiB too little: [\d.]+ GiB free, "
            r"1073741824\.0 GiB to stay free \(store\.reserve_bytes\): remove images \(entice rm\) or .*",
            str(refused.value),
        ), "which disk, how much, and what helps"
        assert store.space().room_bytes == 0
        assert store.images() == ()
    with open_store(tmp_path) as store:
        store.begin_pull(made.root.encoded, made.pages, ())
    with open_store(tmp_path, reserve_bytes=1 << 60) as store:
        with pytest.raises(NoSpaceError, match="the disk is full"):
            store.begin_pull(made.root.encoded, made.pages, ())
        assert len(store.images()) == 1, "what was begun stays begun"


def test_a_large_sparse_image_takes_nothing(tmp_path: Path) -> None:
    made = made_of([(0, b"x" * 4096), (63 << 30, b"y" * 4096)], 64 << 30)
    with open_store(tmp_path, quota_bytes=MIB) as store:
        stored = pull(store, made)
        assert store.audit(made.image).all()
        assert stored.allocated_bytes() < MIB


def test_what_is_taken_can_be_asked_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path) as store:
        begun, goes_on = threading.Event(), threading.Event()

        def slow(self: SqliteCatalogue, addresses: tuple[str, ...]) -> None:
            begun.set()
            goes_on.wait(10)

        monkeypatch.setattr(SqliteCatalogue, "put_addresses", slow)
        saving = threading.Thread(target=store.remember_addresses, args=(["127.0.0.1:1"],))
        saving.start()
        assert begun.wait(10)
        assert store.space().used_bytes == 0
        assert saving.is_alive()
        goes_on.set()
        saving.join()
