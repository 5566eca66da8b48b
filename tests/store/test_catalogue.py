"""One suite for the SQLite catalogue and its twin; then what only a file can suffer."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.campaigns.campaign import Campaign, Ending, Stage
from enticed.core.orders import Failure, Order, OrderState, Priority, Promise
from enticed.store.catalogue import Catalogue, ImageRecord, bitmap_of, pieces_of
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.sqlite import SqliteCatalogue, open_or_rebuild
from protocol.errors import CorruptError, LocalError
from protocol.identifiers import ImageId, NodeId
from protocol.labels import HostLabel
from tests.fuzz.seeds import corpus

IMAGE, OTHER = ImageId(bytes(range(32))), ImageId(bytes(32))
RECORD = ImageRecord(IMAGE, b"\xf0", False, 1.5, 2.5)
PLAIN = Order("a", "ubuntu:24.04", 10.0)
FULL = Order(
    "b/é", str(IMAGE), 5.0, 99.5, Priority.PREWARM, 60.0, OrderState.FAILED, IMAGE, Failure.NO_SPACE, "full", 7.0, 8.0
)


@pytest.fixture(params=["sqlite", "memory"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    made: Catalogue = SqliteCatalogue.open(tmp_path / "c") if request.param == "sqlite" else MemoryCatalogue()
    yield made
    made.close()


def test_images(catalogue: Catalogue) -> None:
    assert catalogue.images() == ()
    catalogue.put_image(RECORD)
    catalogue.put_image(replace(RECORD, image=OTHER, ready=True))
    changed = replace(RECORD, durable=b"\xff", ready=True, last_used_at=9.0)
    catalogue.put_image(changed)
    assert catalogue.images() == (replace(RECORD, image=OTHER, ready=True), changed)
    catalogue.delete_image(OTHER)
    catalogue.delete_image(OTHER)
    assert catalogue.images() == (changed,)


def test_orders(catalogue: Catalogue) -> None:
    catalogue.put_order(PLAIN)
    catalogue.put_order(FULL)
    assert catalogue.orders() == (FULL, PLAIN)
    catalogue.put_order(replace(PLAIN, state=OrderState.READY, image=IMAGE))
    assert catalogue.orders() == (FULL, replace(PLAIN, state=OrderState.READY, image=IMAGE))
    assert isinstance(catalogue.orders()[0].image, ImageId)
    catalogue.delete_order("a")
    catalogue.delete_order("none")
    assert catalogue.orders() == (FULL,)


def test_campaigns(catalogue: Catalogue) -> None:
    node = NodeId(bytes(range(20)))
    full = Campaign(
        "b", "web:1", IMAGE, 5.0, (("h1", None), (str(node), node)), 9.5, 60.0, (HostLabel("zone", "a"),), False, 7,
        "scheduler:nova", True, 70.5,
        (Ending("h1", Stage.FAILED, Failure.DENIED, Promise.INFEASIBLE, "no"), Ending(str(node), Stage.CANCELLED)),
    )  # fmt: skip
    plain = Campaign("a", "web:1", IMAGE, 6.0, ())
    for campaign in (plain, full):
        catalogue.put_campaign(campaign)
    assert catalogue.campaigns() == (full, plain)
    assert isinstance(catalogue.campaigns()[0].hosts[1][1], NodeId)
    catalogue.put_campaign(replace(plain, cancelled=True))
    catalogue.delete_campaign("b")
    catalogue.delete_campaign("b")
    assert catalogue.campaigns() == (replace(plain, cancelled=True),)


def test_addresses(catalogue: Catalogue) -> None:
    catalogue.put_addresses(("b:1", "a:1"))
    assert catalogue.addresses() == ("b:1", "a:1")
    catalogue.put_addresses(("[::1]:2",))
    assert catalogue.addresses() == ("[::1]:2",)
    catalogue.put_addresses(())
    assert catalogue.addresses() == ()


@given(st.lists(st.booleans(), max_size=70))
def test_a_bitmap_comes_back(durable: list[bool]) -> None:
    pieces = np.array(durable, np.bool_)
    assert pieces_of(bitmap_of(pieces), len(durable)).tolist() == durable
    assert not pieces_of(bitmap_of(pieces) + b"\xff", len(durable)).any()


# --- the file alone ---


def test_all_is_there_after_opening_again(tmp_path: Path) -> None:
    with closing(SqliteCatalogue.open(tmp_path / "c")) as catalogue:
        catalogue.put_image(RECORD)
        catalogue.put_order(FULL)
        catalogue.put_addresses(("a:1",))
    with closing(SqliteCatalogue.open(tmp_path / "c")) as catalogue:
        assert (catalogue.images(), catalogue.orders(), catalogue.addresses()) == ((RECORD,), (FULL,), ("a:1",))


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    with closing(SqliteCatalogue.open(tmp_path / "c")), closing(sqlite3.connect(tmp_path / "c")) as other:
        (mode,) = other.execute("PRAGMA journal_mode").fetchone()
        assert mode == "wal"
    with closing(SqliteCatalogue.open(tmp_path / "c")) as catalogue:
        (level,) = catalogue._connection.execute("PRAGMA synchronous").fetchone()
        assert level == 2, "FULL"


def test_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    SqliteCatalogue.open(tmp_path / "c").close()
    with closing(sqlite3.connect(tmp_path / "c")) as other:
        other.execute("PRAGMA user_version = 3")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(LocalError, match="of version 3, newer than 2"):
        open_or_rebuild(tmp_path / "c", tmp_path / "damaged")
    assert (tmp_path / "c").read_bytes() == before
    assert not (tmp_path / "damaged").exists()


def filled(path: Path, orders: int = 200) -> None:
    with closing(SqliteCatalogue.open(path)) as catalogue:
        catalogue.put_image(RECORD)
        catalogue.put_addresses(("a:1", "b:2"))
        for number in range(orders):
            catalogue.put_order(replace(PLAIN, key=f"order {number:04}", created_at=float(number)))


def test_garbage_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"garbage" * 1000)
    (tmp_path / "c-wal").write_bytes(b"more garbage")
    catalogue, trouble = open_or_rebuild(tmp_path / "c", tmp_path / "damaged")
    with closing(catalogue):
        assert catalogue.images() == ()
    assert trouble is not None
    assert "kept as damaged, 0 orders were saved" in trouble
    assert (tmp_path / "damaged").read_bytes() == b"garbage" * 1000
    assert open_and_close(tmp_path) is None


def open_and_close(tmp_path: Path) -> str | None:
    catalogue, trouble = open_or_rebuild(tmp_path / "c", tmp_path / "damaged")
    catalogue.close()
    return trouble


def test_what_can_be_read_of_a_damaged_catalogue_is_saved(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    data = bytearray((tmp_path / "c").read_bytes())
    data[-4096:] = b"\xaa" * 4096  # a page of the orders, the largest table
    (tmp_path / "c").write_bytes(data)
    catalogue, trouble = open_or_rebuild(tmp_path / "c", tmp_path / "damaged")
    with closing(catalogue):
        saved = catalogue.orders()
        assert 0 < len(saved) < 200
        assert all(order == replace(PLAIN, key=order.key, created_at=order.created_at) for order in saved)
        assert catalogue.images() == (), "nothing is believed about images"
        assert catalogue.addresses() == ("a:1", "b:2")
    assert trouble is not None
    assert f"{len(saved)} orders were saved" in trouble


def test_a_catalogue_without_its_tables_is_damaged(tmp_path: Path) -> None:
    filled(tmp_path / "c", 3)
    campaign = Campaign("roll", "a:1", RECORD.image, 1.0, (("h1", None),), None, 60.0, (), True, 0, "")
    with closing(SqliteCatalogue.open(tmp_path / "c")) as catalogue:
        catalogue.put_campaign(campaign)
    with closing(sqlite3.connect(tmp_path / "c")) as other:
        other.execute("DROP TABLE images")
    catalogue, trouble = open_or_rebuild(tmp_path / "c", tmp_path / "damaged")
    with closing(catalogue):
        assert len(catalogue.orders()) == 3
        assert catalogue.campaigns() == (campaign,)
        assert catalogue.images() == ()
    assert trouble is not None


def test_a_row_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    filled(tmp_path / "c", 2)
    with closing(sqlite3.connect(tmp_path / "c")) as other, other:
        other.execute("INSERT INTO images VALUES (x'00', x'', 1, 0, 0)")
        other.execute("INSERT INTO images VALUES (zeroblob(32), 1 << 50, 1, 0, 0)")
        other.execute("INSERT INTO orders VALUES ('x', 0, 'no json'), ('y', 0, '{}'), ('z', 0, '[]')")
        (terms,) = other.execute("SELECT terms FROM orders").fetchone()
        for name, value in (
            ("key", 7),
            ("created_at", "today"),
            ("due_at", math.nan),
            ("keep_s", []),
            ("origin", None),
        ):
            changed = json.dumps({**json.loads(terms), name: value})
            other.execute("INSERT INTO orders VALUES (?, 0, ?)", (name, changed))
        other.execute("INSERT INTO orders VALUES ('deep', 0, ?)", ("[" * 100_000,))
        other.execute("INSERT INTO addresses VALUES (99, x'00')")
    with closing(SqliteCatalogue.open(tmp_path / "c")) as catalogue:
        assert catalogue.images() == (RECORD,)
        assert len(catalogue.orders()) == 2
        assert all(isinstance(address, str) for address in catalogue.addresses())


def test_damage_met_later_is_told(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    with closing(SqliteCatalogue.open(tmp_path / "c")) as catalogue:
        with closing(sqlite3.connect(tmp_path / "c")) as other:  # so that the first must read the file again
            other.execute("DELETE FROM addresses")
            other.commit()
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "c").open("r+b") as file:
            file.write(b"\xaa" * (tmp_path / "c").stat().st_size)
        with pytest.raises(CorruptError):
            catalogue.images()


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_gives_a_catalogue(tmp_path: Path, seed: int) -> None:
    dice = np.random.default_rng(seed)
    filled(tmp_path / "c", 30)
    data = bytearray((tmp_path / "c").read_bytes())
    for at in dice.integers(0, len(data), 1 + seed * 10):
        data[at] ^= int(dice.integers(1, 256))
    data[60:64] = bytes(3) + b"\1"  # but for the version: a newer one is refused, not repaired
    (tmp_path / "c").write_bytes(data[: len(data) - seed % 3 * 2000])
    open_and_close(tmp_path)
    assert open_and_close(tmp_path) is None, "and then a sound one"


@pytest.mark.parametrize("name", ["terms", "key", "place", "durable"])
def test_a_column_that_lost_its_name_is_damage(tmp_path: Path, name: str) -> None:
    filled(tmp_path / "c", 30)
    damaged = (tmp_path / "c").read_bytes().replace(name.encode() + b" ", name[:-1].encode() + b"x ")
    (tmp_path / "c").write_bytes(damaged)
    assert open_and_close(tmp_path)
    assert open_and_close(tmp_path) is None


@pytest.mark.parametrize("data", corpus("catalogue"), ids=len)
def test_what_broke_it_once_gives_a_catalogue(tmp_path: Path, data: bytes) -> None:
    """One of them has SQLite ask for more memory than there is."""
    (tmp_path / "c").write_bytes(data)
    open_and_close(tmp_path)
    assert open_and_close(tmp_path) is None


def test_a_campaign_of_before_it_was_noted_that_one_is_over(tmp_path: Path) -> None:
    path, campaign = tmp_path / "c", Campaign("a", "web:1", IMAGE, 6.0, (("h1", None),))
    with closing(SqliteCatalogue.open(path)) as catalogue:
        catalogue.put_campaign(campaign)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE campaigns SET terms = json_remove(terms, '$.over_at', '$.endings')")
    with closing(SqliteCatalogue.open(path)) as catalogue:
        assert catalogue.campaigns() == (campaign,)


def test_a_catalogue_of_before_there_were_campaigns(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with closing(SqliteCatalogue.open(path)) as catalogue:
        catalogue.put_order(PLAIN)
    with closing(sqlite3.connect(path)) as other:
        other.executescript("DROP TABLE campaigns; PRAGMA user_version = 1;")
    with closing(SqliteCatalogue.open(path)) as catalogue:
        catalogue.put_campaign(Campaign("a", "web:1", IMAGE, 6.0, ()))
        assert (len(catalogue.orders()), len(catalogue.campaigns())) == (1, 1)
