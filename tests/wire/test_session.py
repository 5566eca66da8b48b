"""Sessions: a real pair of ends instead of mocks, and every illegal message tried in every state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import LocalError, RemoteError
from protocol.framing import encode_frame
from protocol.identifiers import ImageId
from protocol.limits import REQUEST_MAX_SIZE_BYTES
from protocol.messages import (
    BULK,
    CONTROL,
    PROTOCOL_VERSION,
    BulkHello,
    Busy,
    Control,
    Data,
    FragmentsRequest,
    Goodbye,
    Hello,
    Part,
    PartRequest,
    Ping,
    Pong,
    Refusal,
    Refused,
    Request,
    Subscribe,
)
from protocol.session import (
    CONTROL_RECEIVED,
    CONTROL_SENT,
    Agreement,
    BulkClientSession,
    BulkServerSession,
    ControlSession,
    Question,
    State,
    negotiate,
)
from tests.wire.said import records

FEW = settings(max_examples=20)
"""Where the table decides and the message's fields do not."""

IMAGE = ImageId(bytes(32))
HELLO = Hello(1, 1, (), 1, ())
CONTROL_KINDS: list[type[Any]] = list(get_args(Control))


def hello(lowest: int, highest: int, *capabilities: str) -> Hello:
    return Hello(lowest, highest, capabilities, 1, ())


# --- negotiation ---


@pytest.mark.parametrize(
    ("ours", "theirs", "version"), [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 9), (4, 4), 4)]
)
def test_the_highest_common_version_is_spoken(ours: tuple[int, int], theirs: tuple[int, int], version: int) -> None:
    assert negotiate(hello(*ours), hello(*theirs)).version == version


@pytest.mark.parametrize(("ours", "theirs"), [((1, 2), (3, 4)), ((3, 4), (1, 2)), ((2, 2), (2, 1))])
def test_without_a_common_version_nothing_is_spoken(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    with pytest.raises(RemoteError, match="no common version"):
        negotiate(hello(*ours), hello(*theirs))


@given(st.lists(st.text("abc", min_size=1, max_size=2)), st.lists(st.text("abc", min_size=1, max_size=2)))
def test_both_sides_agree_on_the_same_capabilities(ours: list[str], theirs: list[str]) -> None:
    agreement = negotiate(hello(1, 1, *ours), hello(1, 1, *theirs))
    assert agreement == negotiate(hello(1, 1, *theirs), hello(1, 1, *ours))
    assert set(agreement.capabilities) == set(ours) & set(theirs)


# --- control ---


def open_pair(ours: Hello = HELLO, theirs: Hello = HELLO) -> tuple[ControlSession, ControlSession]:
    one, other = ControlSession(ours), ControlSession(theirs)
    first, second = one.start(), other.start()
    assert other.receive(first) == [ours]
    assert one.receive(second) == [theirs]
    return one, other


def test_both_say_hello_and_then_anything() -> None:
    one, other = open_pair(hello(1, 2, "a", "b"), hello(1, 1, "b", "c"))
    assert one.agreement == other.agreement == Agreement(1, ("b",))
    assert one.theirs == hello(1, 1, "b", "c")
    said: list[Control] = [Ping(1), Subscribe(IMAGE), Pong(2)]
    assert other.receive(b"".join(one.send(message) for message in said)) == said


@given(
    st.lists(st.one_of(*(records(kind) for kind in CONTROL_KINDS if kind is not Hello)), max_size=6), st.integers(1, 9)
)
def test_what_is_said_is_heard_up_to_the_goodbye(messages: list[Any], step: int) -> None:
    one, other = open_pair()
    stream, legal = b"", []
    for message in messages:
        if one.state is State.CLOSED:
            with pytest.raises(LocalError):
                one.send(message)
        else:
            stream += one.send(message)
            legal.append(message)
    heard = [m for at in range(0, len(stream), step) for m in other.receive(stream[at : at + step])]
    assert heard == legal
    assert other.state is one.state


def in_state(state: State) -> ControlSession:
    session = ControlSession(HELLO)
    if state is State.START:
        return session
    session.start()
    if state is State.OPEN:
        session.receive(encode_frame(CONTROL.encode(HELLO)))
    if state is State.CLOSED:
        session.send(Goodbye("done"))
    assert session.state is state
    return session


CONTROL_STATES = [State.START, State.HELLO_WAIT, State.OPEN, State.CLOSED]


@pytest.mark.parametrize("state", CONTROL_STATES)
@pytest.mark.parametrize("kind", CONTROL_KINDS)
@FEW
@given(data=st.data())
def test_what_the_table_does_not_have_is_not_sent(state: State, kind: type[Any], data: st.DataObject) -> None:
    session, message = in_state(state), data.draw(records(kind))
    following = CONTROL_SENT.get((state, kind))
    if following is None:
        with pytest.raises(LocalError):
            session.send(message)
        assert session.state is state
    else:
        session.send(message)
        assert session.state is following


@pytest.mark.parametrize("state", [State.START, State.HELLO_WAIT, State.OPEN])
@pytest.mark.parametrize("kind", CONTROL_KINDS)
@FEW
@given(data=st.data())
def test_what_the_table_does_not_have_ends_the_session(state: State, kind: type[Any], data: st.DataObject) -> None:
    session = in_state(state)
    message = HELLO if kind is Hello else data.draw(records(kind))
    frame = encode_frame(CONTROL.encode(message))
    following = CONTROL_RECEIVED.get((state, kind))
    if following is None:
        with pytest.raises(RemoteError):
            session.receive(frame)
        assert session.state is State.CLOSED
        assert session.receive(frame) == []
    else:
        assert session.receive(frame) == [message]
        assert session.state is following


def test_after_a_goodbye_nothing_is_heard() -> None:
    one, other = open_pair()
    stream = one.send(Goodbye("done"))
    assert other.receive(stream + encode_frame(CONTROL.encode(Ping(1))) + b"\xff" * 9) == [Goodbye("done")]
    assert other.receive(encode_frame(CONTROL.encode(Ping(1)))) == []
    assert one.receive(encode_frame(CONTROL.encode(Ping(1)))) == []


def test_a_session_may_be_refused_without_a_hello() -> None:
    one, other = ControlSession(HELLO), ControlSession(HELLO)
    other.start()
    assert other.receive(one.send(Goodbye("full"))) == [Goodbye("full")]
    with pytest.raises(LocalError):
        other.agreement  # noqa: B018


def test_a_peer_of_another_version_is_not_spoken_to() -> None:
    one = ControlSession(hello(1, 1))
    one.start()
    with pytest.raises(RemoteError, match="no common version"):
        one.receive(encode_frame(CONTROL.encode(hello(2, 3))))
    assert one.state is State.CLOSED


def test_what_cannot_be_packed_changes_nothing() -> None:
    one, _ = open_pair()
    with pytest.raises(LocalError):
        one.send(Goodbye("x" * 300))
    assert one.state is State.OPEN


@given(st.binary(max_size=200))
def test_any_bytes_end_a_session_at_most_once(data: bytes) -> None:
    session = in_state(State.OPEN)
    try:
        session.receive(data)
    except RemoteError:
        assert session.state is State.CLOSED
        assert session.receive(data) == []


# --- bulk ---

FRAGMENTS = Question(FragmentsRequest(IMAGE, 0, 0, 2), 8192)
PART = Question(PartRequest(IMAGE, Part.ROOT, 100, 50), 50)


def bulk_pair() -> tuple[BulkClientSession, BulkServerSession]:
    client, server = BulkClientSession(), BulkServerSession(("a",))
    assert server.receive(client.start(Agreement(PROTOCOL_VERSION, ("a",)))) == []
    return client, server


def frame_of(data: bytes) -> bytes:
    return data[4:]


def test_requests_are_answered_in_their_order() -> None:
    client, server = bulk_pair()
    assert server.receive(client.ask(FRAGMENTS) + client.ask(PART)) == [FRAGMENTS.request, PART.request]
    assert client.receive(frame_of(server.reply(Data(8192, 0)))) == Data(8192, 0)
    assert (client.state, server.state) == (State.BODY, State.BODY)
    client.ask(FRAGMENTS)  # asking ahead while bytes are under way
    client.body_received()
    server.body_sent()
    assert client.receive(frame_of(server.reply(Data(50, 1000)))) == Data(50, 1000)
    client.body_received()
    server.body_sent()
    assert (client.state, server.state) == (State.ASKED, State.OPEN)


@pytest.mark.parametrize("reply", [Busy(100, ()), Refused(Refusal.NOT_HELD)])
def test_a_reply_without_bytes_is_over_at_once(reply: Busy | Refused) -> None:
    client, server = bulk_pair()
    server.receive(client.ask(FRAGMENTS) + client.ask(FRAGMENTS))
    assert client.receive(frame_of(server.reply(reply))) == reply
    assert (client.state, server.state) == (State.ASKED, State.ASKED)
    assert client.receive(frame_of(server.reply(reply))) == reply
    assert (client.state, server.state) == (State.OPEN, State.OPEN)


@pytest.mark.parametrize(
    ("question", "data"),
    [
        (FRAGMENTS, Data(8191, 0)),
        (FRAGMENTS, Data(8193, 0)),
        (FRAGMENTS, Data(8192, 8192)),
        (FRAGMENTS, Data(0, 0)),
        (PART, Data(51, 1000)),
        (PART, Data(49, 1000)),
        (PART, Data(50, 149)),
        (PART, Data(1, 100)),
        (PART, Data(1, 0)),
    ],
)
def test_data_of_another_size_than_was_asked_for_is_refused(question: Question, data: Data) -> None:
    client, server = bulk_pair()
    server.receive(client.ask(question))
    with pytest.raises(RemoteError, match="asked for"):
        client.receive(frame_of(server.reply(data)))


@pytest.mark.parametrize(
    "data", [Data(50, 150), Data(50, 10**12), Data(49, 149), Data(1, 101), Data(0, 100), Data(0, 0)]
)
def test_a_part_may_end_before_what_was_asked_for(data: Data) -> None:
    client, server = bulk_pair()
    server.receive(client.ask(PART))
    assert client.receive(frame_of(server.reply(data))) == data


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    client, _ = bulk_pair()
    with pytest.raises(RemoteError):
        client.receive(BULK.encode(Busy(1, ())))


@pytest.mark.parametrize("message", [BulkHello(1, ()), FRAGMENTS.request, PART.request])
def test_a_server_does_not_ask(message: object) -> None:
    client, _ = bulk_pair()
    client.ask(FRAGMENTS)
    with pytest.raises(RemoteError):
        client.receive(BULK.encode(message))


@pytest.mark.parametrize("message", [Data(1, 0), Busy(1, ()), Refused(Refusal.NOT_HELD), BulkHello(1, ())])
def test_a_client_does_not_answer_nor_say_hello_twice(message: object) -> None:
    _, server = bulk_pair()
    with pytest.raises(RemoteError):
        server.receive(encode_frame(BULK.encode(message)))


def test_a_request_before_the_hello_is_refused() -> None:
    with pytest.raises(RemoteError):
        BulkServerSession(()).receive(encode_frame(BULK.encode(FRAGMENTS.request)))


@pytest.mark.parametrize("agreement", [Agreement(PROTOCOL_VERSION + 1, ()), Agreement(PROTOCOL_VERSION, ("a", "b"))])
def test_a_hello_of_what_is_not_spoken_here_is_refused(agreement: Agreement) -> None:
    with pytest.raises(RemoteError):
        BulkServerSession(("a",)).receive(BulkClientSession().start(agreement))


def ask_before_hello() -> None:
    BulkClientSession().ask(FRAGMENTS)


def answer_nothing() -> None:
    bulk_pair()[1].reply(Busy(1, ()))


def answer_in_a_body() -> None:
    client, server = bulk_pair()
    server.receive(client.ask(FRAGMENTS) + client.ask(FRAGMENTS))
    server.reply(Data(8192, 0))
    server.reply(Data(8192, 0))


def end_no_body() -> None:
    bulk_pair()[1].body_sent()


def receive_no_body() -> None:
    bulk_pair()[0].body_received()


def ask_the_impossible() -> None:
    bulk_pair()[0].ask(Question(FragmentsRequest(IMAGE, 0, 0, 0), 0))


@pytest.mark.parametrize(
    "misuse",
    [ask_before_hello, answer_nothing, answer_in_a_body, end_no_body, receive_no_body, ask_the_impossible],
)
def test_misuse_here_is_a_local_error(misuse: Callable[[], None]) -> None:
    with pytest.raises(LocalError):
        misuse()


@given(st.binary(max_size=100))
def test_any_bytes_to_a_server_give_requests_or_an_error_of_the_peer(data: bytes) -> None:
    _, server = bulk_pair()
    try:
        requests: list[Request] = server.receive(data)
    except RemoteError:
        return
    assert all(isinstance(one, FragmentsRequest | PartRequest) for one in requests)


@given(st.binary(max_size=40))
def test_any_frame_to_a_client_gives_a_reply_or_an_error_of_the_peer(data: bytes) -> None:
    client, _ = bulk_pair()
    client.ask(Question(PartRequest(IMAGE, Part.ROOT, 0, REQUEST_MAX_SIZE_BYTES), REQUEST_MAX_SIZE_BYTES))
    try:
        reply = client.receive(data)
    except RemoteError:
        return
    assert isinstance(reply, Data | Busy | Refused)
