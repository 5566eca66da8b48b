"""The messages of sessions: every one comes back, fits a frame, and has the number that it always had."""

from dataclasses import fields
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import Vocabulary
from protocol.errors import MalformedError
from protocol.group import GroupProof
from protocol.identifiers import Digest, ImageId, NodeId
from protocol.limits import (
    ADDRESS_MAX_CHARS,
    ADDRESSES_MAX_COUNT,
    ALTERNATIVES_MAX_COUNT,
    CAPABILITIES_MAX_COUNT,
    CAPABILITY_MAX_CHARS,
    FRAME_MAX_SIZE_BYTES,
    HAVE_CHANGE_MAX_PIECES,
    IMAGE_MAX_PIECES,
    REASON_MAX_CHARS,
)
from protocol.messages import (
    BULK,
    CONTROL,
    Acquaint,
    Alternative,
    Belong,
    BulkHello,
    Busy,
    CancelOrder,
    Charge,
    Control,
    Cosigned,
    Data,
    Floors,
    FloorsKnown,
    FragmentsRequest,
    Goodbye,
    HaveChange,
    HaveMap,
    Hello,
    NotHeld,
    OrderFault,
    OrderNews,
    OrderPromise,
    OrderStage,
    Part,
    PartRequest,
    Ping,
    PlaceOrder,
    Pong,
    Recalled,
    Refusal,
    Refused,
    Renewal,
    RenewalRequest,
    Subscribe,
    Trust,
    Unsubscribe,
)
from tests.wire.said import PLAIN, records

IMAGE = ImageId(bytes(range(32)))
NODE = NodeId(bytes(range(20)))
FEW = settings(max_examples=25)
"""For what is tried with each of the messages."""
CONTROL_KINDS: list[type[Any]] = list(get_args(Control))
BULK_KINDS: list[type[Any]] = [BulkHello, FragmentsRequest, PartRequest, Data, Busy, Refused]

WIRE = [
    (CONTROL, Hello(1, 2, ("a",), 3, ("10.0.0.1:1",)), [1, 1, 2, ["a"], 3, ["10.0.0.1:1"]]),
    (CONTROL, Goodbye("done"), [2, "done"]),
    (CONTROL, Ping(7), [3, 7]),
    (CONTROL, Pong(7), [4, 7]),
    (CONTROL, Subscribe(IMAGE), [5, IMAGE]),
    (CONTROL, Unsubscribe(IMAGE), [6, IMAGE]),
    (CONTROL, HaveMap(IMAGE, 9, b"\xff\x80"), [7, IMAGE, 9, b"\xff\x80"]),
    (CONTROL, HaveChange(IMAGE, (1, 2), (3,)), [8, IMAGE, [1, 2], [3]]),
    (CONTROL, NotHeld(IMAGE), [9, IMAGE]),
    (CONTROL, Charge(IMAGE, 1, 2), [10, IMAGE, 1, 2]),
    (CONTROL, Acquaint(IMAGE, (Alternative(NODE, ("[::1]:2",)),)), [11, IMAGE, [[NODE, ["[::1]:2"]]]]),
    (CONTROL, PlaceOrder("k", IMAGE, 1500, 60, "nova"), [12, "k", IMAGE, 1500, 60, "nova"]),
    (CONTROL, CancelOrder("k"), [13, "k"]),
    (
        CONTROL,
        OrderNews("k", OrderStage.FAILED, OrderFault.NO_SPACE, OrderPromise.INFEASIBLE, 125, None, "full"),
        [14, "k", 7, 4, 3, 125, None, "full"],
    ),
    (CONTROL, Recalled(b"signed"), [18, b"signed"]),
    (CONTROL, Cosigned(b"signed"), [20, b"signed"]),
    (CONTROL, FloorsKnown(Digest(IMAGE)), [21, IMAGE]),
    (CONTROL, Floors((b"signed",)), [22, [b"signed"]]),
    (CONTROL, Belong((GroupProof(bytes(32)),)), [19, [bytes(32)]]),
    (CONTROL, Trust(b"sealed"), [15, b"sealed"]),
    (CONTROL, RenewalRequest(), [16]),
    (CONTROL, Renewal(b"der", ""), [17, b"der", ""]),
    (BULK, BulkHello(1, ()), [1, 1, []]),
    (BULK, FragmentsRequest(IMAGE, 1, 2, 3), [2, IMAGE, 1, 2, 3]),
    (BULK, PartRequest(IMAGE, Part.PAGES, 4, 5), [3, IMAGE, 2, 4, 5]),
    (BULK, Data(5, 6), [4, 5, 6]),
    (BULK, Busy(100, ()), [5, 100, []]),
    (BULK, Refused(Refusal.BROKEN_HERE), [6, 3]),
]


@pytest.mark.parametrize(("words", "message", "plain"), WIRE, ids=[type(row[1]).__name__ for row in WIRE])
def test_every_message_has_its_number_and_its_fields_in_their_order(
    words: Vocabulary, message: object, plain: list[Any]
) -> None:
    assert msgpack.unpackb(words.encode(message)) == plain
    assert words.decode(msgpack.packb(plain)) == message


def test_all_messages_are_in_that_list() -> None:
    assert {type(row[1]) for row in WIRE} == set(CONTROL_KINDS) | set(BULK_KINDS)


@pytest.mark.parametrize("kind", CONTROL_KINDS)
@FEW
@given(data=st.data())
def test_control_messages_come_back_and_fit_a_frame(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(records(kind))
    encoded = CONTROL.encode(message)
    assert CONTROL.decode(encoded) == message
    assert len(encoded) <= FRAME_MAX_SIZE_BYTES


@pytest.mark.parametrize("kind", BULK_KINDS)
@FEW
@given(data=st.data())
def test_bulk_messages_come_back(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(records(kind))
    assert BULK.decode(BULK.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        HaveMap(IMAGE, IMAGE_MAX_PIECES, b"\xff" * ((IMAGE_MAX_PIECES + 7) // 8)),
        HaveChange(
            IMAGE, (IMAGE_MAX_PIECES - 1,) * HAVE_CHANGE_MAX_PIECES, (IMAGE_MAX_PIECES - 1,) * HAVE_CHANGE_MAX_PIECES
        ),
        Goodbye("\U0001f4a5" * REASON_MAX_CHARS),
        Hello(
            2**16 - 1,
            2**16 - 1,
            ("\U0001f4a5" * CAPABILITY_MAX_CHARS,) * CAPABILITIES_MAX_COUNT,
            2**64 - 1,
            ("\U0001f4a5" * ADDRESS_MAX_CHARS,) * ADDRESSES_MAX_COUNT,
        ),
        Acquaint(
            IMAGE,
            (Alternative(NODE, ("\U0001f4a5" * ADDRESS_MAX_CHARS,) * ADDRESSES_MAX_COUNT),) * ALTERNATIVES_MAX_COUNT,
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_largest_of_each_fits_a_frame(message: object) -> None:
    assert len(CONTROL.encode(message)) <= FRAME_MAX_SIZE_BYTES


@pytest.mark.parametrize("words", [CONTROL, BULK])
@given(data=st.binary(max_size=100) | st.lists(PLAIN, max_size=7).map(msgpack.packb))
def test_any_bytes_give_a_message_or_malformed(words: Vocabulary, data: bytes) -> None:
    try:
        message = words.decode(data)
    except MalformedError:
        return
    assert words.decode(words.encode(message)) == message


@pytest.mark.parametrize(("words", "message", "plain"), WIRE, ids=[type(row[1]).__name__ for row in WIRE])
@FEW
@given(data=st.data())
def test_a_message_with_one_field_replaced_is_a_message_or_malformed(
    words: Vocabulary, message: object, plain: list[Any], data: st.DataObject
) -> None:
    changed = [*plain]
    changed[data.draw(st.integers(0, len(fields(message))))] = data.draw(PLAIN)  # type: ignore[arg-type]
    try:
        got = words.decode(msgpack.packb(changed))
    except MalformedError:
        return
    assert words.decode(words.encode(got)) == got
