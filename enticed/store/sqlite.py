"""The catalogue in SQLite: a write-ahead log, and a commit is on the disk when it returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from enticed.core.campaigns.campaign import Campaign, Ending, Stage
from enticed.core.orders import Failure, Order, OrderState, Priority, Promise
from enticed.store.catalogue import ImageRecord
from enticed.store.files import DiskError, typed
from protocol.errors import CorruptError, EnticedError, LocalError, NoSpaceError
from protocol.identifiers import ImageId, NodeId
from protocol.labels import parse_label_text

SCHEMA_VERSION = 2
_SCHEMA = """
    CREATE TABLE images (
        image BLOB PRIMARY KEY, durable BLOB NOT NULL, ready INTEGER NOT NULL,
        created_at REAL NOT NULL, last_used_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE orders (key TEXT PRIMARY KEY, created_at REAL NOT NULL, terms TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE addresses (place INTEGER PRIMARY KEY, address TEXT NOT NULL);
"""
_SINCE_2 = "CREATE TABLE campaigns (key TEXT PRIMARY KEY, created_at REAL NOT NULL, terms TEXT NOT NULL) WITHOUT ROWID;"
_NO_SENSE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, EnticedError)
"""What reading a row raises whose text or types are not those that were written."""
_COLUMNS = {
    "images": "image, durable, ready, created_at, last_used_at",
    "orders": "key, created_at, terms",
    "campaigns": "key, created_at, terms",
    "addresses": "place, address",
}
_PUT_IMAGE = f"INSERT OR REPLACE INTO images ({_COLUMNS['images']}) VALUES (?, ?, ?, ?, ?)"

Item = TypeVar("Item")


class SqliteCatalogue:
    """`Catalogue` in one SQLite file."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        """path: for people; None for one in memory."""
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> SqliteCatalogue:
        """Open it, or make it. `CorruptError` where it is damaged; `LocalError` where it is of a newer version, or a
        link, which SQLite would follow."""
        for file in (path, *(Path(f"{path}-{kind}") for kind in ("wal", "shm", "journal"))):
            if file.is_symlink():
                raise LocalError(f"{file} is a link: put the file itself there, or remove it")
        with _told():
            # Used from any thread, one at a time; transactions are begun by hand.
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        return cls.over(connection, path)

    @classmethod
    def over(cls, connection: sqlite3.Connection, path: Path | None = None) -> SqliteCatalogue:
        """With a connection that begins no transaction by itself, and is closed where this raises, as `open` does."""
        try:
            with _told(path, opening=True):
                _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def close(self) -> None:
        with _told():
            self._connection.close()

    def images(self) -> tuple[ImageRecord, ...]:
        return tuple(_rows(self._connection, f"SELECT {_COLUMNS['images']} FROM images ORDER BY image", _image_from))

    def put_image(self, record: ImageRecord) -> None:
        row = (bytes(record.image), record.durable, record.ready, record.created_at, record.last_used_at)
        self._commit((_PUT_IMAGE, row))

    def delete_image(self, image: ImageId) -> None:
        self._commit(("DELETE FROM images WHERE image = ?", (bytes(image),)))

    def orders(self) -> tuple[Order, ...]:
        return tuple(_rows(self._connection, "SELECT terms FROM orders ORDER BY created_at, key", _order_from))

    def put_order(self, order: Order) -> None:
        row = (order.key, order.created_at, _order_text(order))
        self._commit(("INSERT OR REPLACE INTO orders (key, created_at, terms) VALUES (?, ?, ?)", row))

    def delete_order(self, key: str) -> None:
        self._commit(("DELETE FROM orders WHERE key = ?", (key,)))

    def campaigns(self) -> tuple[Campaign, ...]:
        query = "SELECT terms FROM campaigns ORDER BY created_at, key"
        return tuple(_rows(self._connection, query, _campaign_from))

    def put_campaign(self, campaign: Campaign) -> None:
        row = (campaign.key, campaign.created_at, _campaign_text(campaign))
        self._commit(("INSERT OR REPLACE INTO campaigns (key, created_at, terms) VALUES (?, ?, ?)", row))

    def delete_campaign(self, key: str) -> None:
        self._commit(("DELETE FROM campaigns WHERE key = ?", (key,)))

    def addresses(self) -> tuple[str, ...]:
        return tuple(_rows(self._connection, "SELECT address FROM addresses ORDER BY place", _address_from))

    def put_addresses(self, addresses: tuple[str, ...]) -> None:
        insert = "INSERT INTO addresses (place, address) VALUES (?, ?)"
        self._commit(("DELETE FROM addresses", ()), *((insert, row) for row in enumerate(addresses)))

    def probe(self) -> None:
        self._commit((f"PRAGMA user_version = {SCHEMA_VERSION}", ()))  # writes its page, whatever it was

    def _commit(self, *changes: tuple[str, tuple[Any, ...]]) -> None:
        with _told(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, row in changes:
                    self._connection.execute(statement, row)
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has itself rolled back after some failures (a full disk), and says so by an error here.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise


def open_or_rebuild(path: Path, set_aside: Path) -> tuple[SqliteCatalogue, str | None]:
    """The catalogue, and None; or, in place of a damaged one, a new one, and one line on what became of the old.

    The damaged files are kept as `set_aside` (replacing what an earlier accident left). Orders and addresses that can
    still be read from them are taken over; what was said about images is not: the images themselves are hashed.
    """
    try:
        return SqliteCatalogue.open(path), None
    except CorruptError:
        orders, campaigns = _replace(path, set_aside)
    return SqliteCatalogue.open(path), (
        f"the catalogue was damaged: it is kept as {set_aside.name}, {orders} orders were saved from it and "
        f"{campaigns} campaigns, and all images are hashed anew"
    )


def _replace(path: Path, set_aside: Path) -> tuple[int, int]:
    """Put a new catalogue in the place of a damaged one, in one step; how many orders and campaigns were saved."""
    new = path.with_name(f"{path.name}.new")
    wal, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    try:
        for left_over in (new, set_aside, Path(f"{set_aside}-wal"), Path(f"{set_aside}-shm")):
            left_over.unlink(missing_ok=True)
        set_aside.hardlink_to(path)
        if wal.exists():
            wal.rename(f"{set_aside}-wal")
        shm.unlink(missing_ok=True)
        orders, campaigns, addresses = _salvage(set_aside)
        with closing(SqliteCatalogue.open(new)) as catalogue:
            for order in orders:
                catalogue.put_order(order)
            for campaign in campaigns:
                catalogue.put_campaign(campaign)
            catalogue.put_addresses(tuple(addresses))
        new.replace(path)
    except OSError as error:
        raise typed(error, "cannot set the damaged catalogue aside") from error
    return len(orders), len(campaigns)


def _salvage(path: Path) -> tuple[list[Order], list[Campaign], list[str]]:
    orders: list[Order] = []
    campaigns: list[Campaign] = []
    addresses: list[str] = []
    # A damaged file gives rows until it gives an error: what came before it is whole.
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        with suppress(sqlite3.Error, EnticedError):
            orders.extend(_rows(connection, "SELECT terms FROM orders", _order_from))
        with suppress(sqlite3.Error, EnticedError):
            campaigns.extend(_rows(connection, "SELECT terms FROM campaigns", _campaign_from))
        with suppress(sqlite3.Error, EnticedError):
            addresses.extend(_rows(connection, "SELECT address FROM addresses ORDER BY place", _address_from))
    return orders, campaigns, addresses


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise LocalError(f"the catalogue is of version {version}, newer than {SCHEMA_VERSION}: run a newer enticed")
    if version == 0:  # a new file; or an old one that has lost its version, whose tables are then in the way
        tables = _SCHEMA + _SINCE_2
        connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version == 1:
        connection.executescript(f"BEGIN IMMEDIATE; {_SINCE_2} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    with suppress(sqlite3.OperationalError):  # no room for it: then the next commit does it
        # A kill may have come between a commit's bytes in the log and their sync: what is read from here on, lasts.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise CorruptError(f"the catalogue is damaged: {verdict}")
    for table, columns in _COLUMNS.items():  # damage can also be in their names
        connection.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchone()


def _rows(connection: sqlite3.Connection, query: str, read: Callable[[Any], Item]) -> Iterator[Item]:
    """Rows that make sense, one by one: a row that does not is as good as none."""
    with _told():
        for row in connection.execute(query):
            with suppress(*_NO_SENSE):
                yield read(row)


def _image_from(row: Any) -> ImageRecord:
    image, durable, ready, created_at, last_used_at = row
    terms = {"durable": durable, "created_at": created_at, "last_used_at": last_used_at}
    return _made(ImageRecord, {"image": ImageId(image), "ready": bool(ready), **terms})


def _address_from(row: Any) -> str:
    (address,) = row
    if not isinstance(address, str):
        raise TypeError("an address is text")
    return address


def _order_text(order: Order) -> str:
    return json.dumps({**asdict(order), "image": None if order.image is None else str(order.image)})


def _order_from(row: Any) -> Order:
    terms = _loaded(row[0])
    made = {
        "priority": Priority(terms["priority"]),
        "state": OrderState(terms["state"]),
        "image": None if terms["image"] is None else ImageId.from_hex(terms["image"]),
        "failure": None if terms["failure"] is None else Failure(terms["failure"]),
        "promise": None if terms.get("promise") is None else Promise(terms["promise"]),
    }
    return _made(Order, {**terms, **made})


def _campaign_text(campaign: Campaign) -> str:
    hosts = [(host, None if node is None else str(node)) for host, node in campaign.hosts]
    labels = [str(label) for label in campaign.labels]
    return json.dumps({**asdict(campaign), "image": str(campaign.image), "hosts": hosts, "labels": labels})


def _campaign_from(row: Any) -> Campaign:
    terms = _loaded(row[0])
    made = {
        "image": ImageId.from_hex(terms["image"]),
        "hosts": tuple((str(host), None if node is None else NodeId.from_hex(node)) for host, node in terms["hosts"]),
        "labels": tuple(map(parse_label_text, terms["labels"])),
        "endings": tuple(map(_ending_from, terms.get("endings", ()))),
    }
    return _made(Campaign, {**terms, **made})


def _ending_from(terms: Any) -> Ending:
    made = {
        "stage": Stage(terms["stage"]),
        "failure": None if terms["failure"] is None else Failure(terms["failure"]),
        "promise": None if terms["promise"] is None else Promise(terms["promise"]),
    }
    return _made(Ending, {**terms, **made})


def _made(kind: Callable[..., Item], values: dict[str, Any]) -> Item:
    """`TypeError` where a value is of another type than the record says: it would hurt later, and somebody else."""
    for name, meant in _types(kind).items():
        value = values.get(name)
        if isinstance(value, int) and isinstance(0.0, meant):  # what is written as 5 in JSON, and means 5.0
            values[name] = float(value)
        elif name in values and not isinstance(value, meant):
            raise TypeError(f"{name} is no {meant}")
    return kind(**values)


@cache
def _types(kind: Callable[..., object]) -> dict[str, Any]:
    """What each field may be, but for those that hold tuples: they are made here."""
    return {name: meant for name, meant in get_type_hints(kind).items() if get_origin(meant) is not tuple}


def _loaded(text: str) -> Any:
    """`ValueError` for what is no JSON, and for NaN, which Python would take."""
    return json.loads(text, parse_constant=_no_number)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


_NOT_DAMAGE = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}


@contextmanager
def _told(path: Path | None = None, *, opening: bool = False) -> Iterator[None]:
    """While opening, whatever SQLite says that is the file's own fault means damage: it has many ways to say so."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        text = f"the catalogue: {error}"
        if code == sqlite3.SQLITE_FULL:
            full = f"the file system of {path or 'the catalogue'} is full, and nothing can be noted there"
            raise NoSpaceError(f"{full}: remove images (entice rm), or make room on it otherwise") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (opening and code not in _NOT_DAMAGE):
            raise CorruptError(text) from error
        raise DiskError(text) from error
    except MemoryError as error:  # a damaged file can have SQLite ask for any amount of it
        raise CorruptError("the catalogue: reading it takes more memory than there is") from error
    except UnicodeError as error:  # even the text of an error may hold what was in the file
        raise CorruptError("the catalogue: its text is no text") from error
