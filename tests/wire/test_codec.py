"""The codec: what is in its bounds comes back as it was, and nothing else gets through, in either direction."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, make_dataclass
from enum import IntEnum
from typing import Annotated, Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import U8, U16, U32, U64, Between, Vocabulary, pack_record, unpack_record
from protocol.errors import LocalError, MalformedError
from protocol.identifiers import ImageId
from protocol.limits import ARRAY_MAX_COUNT, FRAME_MAX_SIZE_BYTES
from tests.wire.said import PLAIN, records


class Colour(IntEnum):
    RED = 1
    BLUE = 7


@dataclass(frozen=True, slots=True)
class Inner:
    size: U8
    flag: bool


@dataclass(frozen=True, slots=True)
class Everything:
    image: ImageId
    colour: Colour
    inner: Inner
    maybe: Inner | None
    text: Annotated[str, Between(1, 4)]
    raw: Annotated[bytes, Between(0, 3)]
    many: Annotated[tuple[Inner, ...], Between(0, 2)]
    small: U16
    middle: U32
    large: U64


GOOD = Everything(
    ImageId(b"i" * 32), Colour.BLUE, Inner(255, True), None, "häé", b"", (Inner(0, False),), 0, 2**32 - 1, 2**64 - 1
)
IMAGE = b"i" * 32
PLAIN_GOOD: list[Any] = [IMAGE, 7, [255, True], None, "häé", b"", [[0, False]], 0, 2**32 - 1, 2**64 - 1]


def test_a_record_is_the_array_of_its_fields() -> None:
    assert msgpack.unpackb(pack_record(GOOD)) == PLAIN_GOOD


@given(records(Everything))
def test_records_come_back(record: Everything) -> None:
    back = unpack_record(Everything, pack_record(record))
    assert back == record
    assert type(back.image) is ImageId
    assert type(back.colour) is Colour


@given(st.binary(max_size=200) | PLAIN.map(msgpack.packb))
def test_any_bytes_give_a_record_or_malformed(data: bytes) -> None:
    try:
        record = unpack_record(Everything, data)
    except MalformedError:
        return
    assert unpack_record(Everything, pack_record(record)) == record


@given(st.integers(0, len(PLAIN_GOOD) - 1), PLAIN)
def test_any_value_in_any_field_gives_a_record_or_malformed(index: int, value: Any) -> None:
    plain = [*PLAIN_GOOD]
    plain[index] = value
    try:
        record = unpack_record(Everything, msgpack.packb(plain))
    except MalformedError:
        return
    assert msgpack.unpackb(pack_record(record))[index] == value


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, b"short"),
        (0, "i" * 32),
        (1, 2),
        (1, True),
        (1, 1.0),
        (2, None),
        (2, [1]),
        (2, [1, True, 1]),
        (2, [256, True]),
        (2, [-1, True]),
        (2, [True, True]),
        (2, [1, 1]),
        (2, {1: True}),
        (3, 0),
        (4, ""),
        (4, "fivec"),
        (4, b"text"),
        (5, b"four"),
        (5, "abc"),
        (6, [[0, False]] * 3),
        (6, {}),
        (7, 2**16),
        (7, 1.0),
        (8, None),
        (9, -1),
    ],
)
def test_what_is_out_of_bounds_or_of_another_type_is_malformed(index: int, value: Any) -> None:
    plain = [*PLAIN_GOOD]
    plain[index] = value
    with pytest.raises(MalformedError):
        unpack_record(Everything, msgpack.packb(plain))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        msgpack.packb(PLAIN_GOOD) + b"\x00",
        msgpack.packb(PLAIN_GOOD)[:-1],
        msgpack.packb([*PLAIN_GOOD, 0]),
        msgpack.packb(PLAIN_GOOD[:-1]),
        msgpack.packb(dict(enumerate(PLAIN_GOOD))),
        b"\xdd\xff\xff\xff\xff",  # an array of 4 G items
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\xdf\xff\xff\xff\xff",  # a map of 4 G entries
        b"\x91" * 100_000,  # arrays in arrays
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xa1\xff",  # no UTF-8
    ],
    ids=range(12),
)
def test_what_is_no_record_at_all_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack_record(Everything, data)


def test_arrays_that_declare_much_cost_little() -> None:
    """One frame of arrays in arrays, each of which says that it is as long as the frame."""
    frame = (b"\xdd" + (FRAME_MAX_SIZE_BYTES - 1).to_bytes(4, "big")) * (FRAME_MAX_SIZE_BYTES // 5)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError):
            unpack_record(Everything, frame)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * FRAME_MAX_SIZE_BYTES


@dataclass(frozen=True, slots=True)
class Line:
    text: Annotated[str, Between(0, 4)]


@pytest.mark.parametrize("text", ["fivec", 3, None, b"x", "\ud800"])
def test_what_the_other_side_would_refuse_is_not_packed(text: Any) -> None:
    with pytest.raises(LocalError):
        pack_record(Line(text))
    with pytest.raises(LocalError):
        Vocabulary({1: Line}).encode(Line(text))


@dataclass(frozen=True, slots=True)
class Several:
    items: Annotated[tuple[U8, ...], Between(0, 4)]


def test_a_list_is_no_tuple() -> None:
    assert pack_record(Several((1, 2))) == msgpack.packb([[1, 2]])
    with pytest.raises(LocalError):
        pack_record(Several([1, 2]))  # type: ignore[arg-type]


WORDS = Vocabulary({1: Line, 9: Inner})


@given(records(Line) | records(Inner))
def test_messages_come_back_with_their_type(message: Line | Inner) -> None:
    assert WORDS.decode(WORDS.encode(message)) == message


def test_a_message_is_its_type_and_its_fields() -> None:
    assert msgpack.unpackb(WORDS.encode(Inner(3, True))) == [9, 3, True]
    assert WORDS.decode(memoryview(msgpack.packb([1, "a"]))) == Line("a")


@given(st.binary(max_size=60) | st.lists(PLAIN, max_size=4).map(msgpack.packb))
def test_any_bytes_give_a_message_or_malformed(data: bytes) -> None:
    try:
        message = WORDS.decode(data)
    except MalformedError:
        return
    assert isinstance(message, Line | Inner)


@pytest.mark.parametrize("plain", [[], [2, "a"], [True, "a"], ["1", "a"], [1], [1, "a", "b"], "a", None])
def test_an_unknown_message_is_malformed(plain: Any) -> None:
    with pytest.raises(MalformedError):
        WORDS.decode(msgpack.packb(plain))


def test_what_is_not_of_the_vocabulary_is_not_said() -> None:
    with pytest.raises(LocalError, match="Everything is not said here"):
        WORDS.encode(GOOD)


def test_one_message_has_one_number() -> None:
    with pytest.raises(LocalError):
        Vocabulary({1: Line, 2: Line})


TOO_MANY = Annotated[tuple[U8, ...], Between(0, ARRAY_MAX_COUNT + 1)]


@pytest.mark.parametrize("annotation", [int, str, dict, list[int], int | str, Inner | Line, TOO_MANY])
def test_a_field_without_bounds_cannot_be_declared(annotation: Any) -> None:
    loose = make_dataclass("Loose", [("field", annotation)], frozen=True)
    with pytest.raises(LocalError):
        pack_record(loose(1))


@dataclass(frozen=True, slots=True)
class Perhaps:
    inner: Inner | None


def test_none_stands_where_it_may() -> None:
    assert unpack_record(Perhaps, pack_record(Perhaps(None))) == Perhaps(None)
    assert unpack_record(Perhaps, pack_record(Perhaps(Inner(1, True)))) == Perhaps(Inner(1, True))
