"""Sessions: what may be said when, on control and on bulk connections.

Each connection is a state and two tables, one for what is sent and one for what is received; a message that is not in
the table is illegal: `LocalError` if this side wanted to send it, `RemoteError` if the other side did. Nothing here
reads sockets or clocks: bytes come in and go out as arguments and results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

from protocol.errors import EnticedError, LocalError, RemoteError
from protocol.framing import FrameReader, encode_frame
from protocol.messages import (
    BULK,
    CONTROL,
    PROTOCOL_VERSION,
    Acquaint,
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
    OrderNews,
    PartRequest,
    Ping,
    PlaceOrder,
    Pong,
    Recalled,
    Refused,
    Renewal,
    RenewalRequest,
    Reply,
    Request,
    Subscribe,
    Trust,
    Unsubscribe,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both ends of a session speak."""

    version: int
    capabilities: tuple[str, ...]


def negotiate(ours: Hello, theirs: Hello) -> Agreement:
    """The highest version that both speak, and the capabilities that both have (sorted); `RemoteError` if none."""
    version = min(ours.highest_version, theirs.highest_version)
    if version < max(ours.lowest_version, theirs.lowest_version):
        raise RemoteError(
            f"no common version: {ours.lowest_version}-{ours.highest_version} here,"
            f" {theirs.lowest_version}-{theirs.highest_version} there"
        )
    return Agreement(version, tuple(sorted(set(ours.capabilities) & set(theirs.capabilities))))


class State(Enum):
    START = auto()
    """Nothing said yet; a server of bulk waits for the hello."""
    HELLO_WAIT = auto()
    """Control: our hello is said, theirs is awaited."""
    OPEN = auto()
    """Control: both hellos are said. Bulk: no request waits for its reply."""
    ASKED = auto()
    """Bulk: at least one request waits for its reply."""
    BODY = auto()
    """Bulk: raw bytes are under way."""
    CLOSED = auto()


Table = Mapping[tuple[State, type], State]

_ORDERS = (PlaceOrder, CancelOrder, OrderNews)
_TRUST = (Trust, RenewalRequest, Renewal)
_ANY_TIME = (
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    HaveMap,
    HaveChange,
    NotHeld,
    Charge,
    Acquaint,
    *_ORDERS,
    *_TRUST,
    Recalled,
    Belong,
    Cosigned,
    FloorsKnown,
    Floors,
)
_WHEN_OPEN: Table = {(State.OPEN, kind): State.OPEN for kind in _ANY_TIME}

CONTROL_SENT: Table = {
    (State.START, Hello): State.HELLO_WAIT,
    (State.START, Goodbye): State.CLOSED,
    (State.HELLO_WAIT, Goodbye): State.CLOSED,
    (State.OPEN, Goodbye): State.CLOSED,
    **_WHEN_OPEN,
}
CONTROL_RECEIVED: Table = {
    (State.HELLO_WAIT, Hello): State.OPEN,
    (State.HELLO_WAIT, Goodbye): State.CLOSED,
    (State.OPEN, Goodbye): State.CLOSED,
    **_WHEN_OPEN,
}

# Of a bulk connection, as its client: sent and received. For its server the two change places.
_REQUESTS = (FragmentsRequest, PartRequest)
BULK_FORWARD: Table = {
    (State.START, BulkHello): State.OPEN,
    **{(State.OPEN, kind): State.ASKED for kind in _REQUESTS},
    **{(State.ASKED, kind): State.ASKED for kind in _REQUESTS},
    **{(State.BODY, kind): State.BODY for kind in _REQUESTS},
}
BULK_BACK: Table = {
    (State.ASKED, Data): State.BODY,
    (State.ASKED, Busy): State.ASKED,  # or OPEN, when nothing else was asked
    (State.ASKED, Refused): State.ASKED,
}


def _step(table: Table, state: State, message: object, fault: type[EnticedError]) -> State:
    following = table.get((state, type(message)))
    if following is None:
        raise fault(f"{type(message).__name__} is not said in state {state.name}")
    return following


class ControlSession:
    """One end of a control connection; both ends are alike. `start` comes first, on both: or a goodbye, to refuse."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._reader = FrameReader()
        self._agreement: Agreement | None = None
        self.state = State.START
        self.theirs: Hello | None = None
        """The other side's hello, once it was received."""

    @property
    def agreement(self) -> Agreement:
        """`LocalError` before both hellos were said."""
        if self._agreement is None:
            raise LocalError("no hello has been received yet")
        return self._agreement

    def start(self) -> bytes:
        """Our hello, to be sent before anything is received."""
        return self.send(self._hello)

    def send(self, message: Control) -> bytes:
        """The bytes of a message; `LocalError` where it is not to be said now or not sendable."""
        state = _step(CONTROL_SENT, self.state, message, LocalError)
        frame = encode_frame(CONTROL.encode(message))
        self.state = state
        return frame

    def receive(self, data: bytes | memoryview) -> list[Control]:
        """The messages that are whole now; nothing is heard after a goodbye of either side, or after an error.

        `RemoteError` where the other side broke the protocol; the session is closed then.
        """
        if self.state is State.CLOSED:
            return []
        heard: list[Control] = []
        try:
            self._reader.feed(data)
            for frame in self._reader.frames():
                message = cast(Control, CONTROL.decode(frame))
                self.state = _step(CONTROL_RECEIVED, self.state, message, RemoteError)
                if isinstance(message, Hello):
                    self._agreement, self.theirs = negotiate(self._hello, message), message
                heard.append(message)
                if self.state is State.CLOSED:
                    self._reader.discard()
        except RemoteError:
            self.state = State.CLOSED
            self._reader.discard()
            raise
        return heard


@dataclass(frozen=True, slots=True)
class Question:
    """A request under way. `size_bytes` is what its data must have, or may have at most if it asks for a part."""

    request: Request
    size_bytes: int


class BulkClientSession:
    """The asking end of a bulk connection. Requests may be sent ahead; their replies come in their order.

    The caller reads frames exactly, since raw bytes may follow each one. After an error the connection is of no use.
    """

    def __init__(self) -> None:
        self.state = State.START
        self._asked: deque[Question] = deque()

    def start(self, agreement: Agreement) -> bytes:
        return self._send(BulkHello(agreement.version, agreement.capabilities))

    def ask(self, question: Question) -> bytes:
        """The bytes of a request. `LocalError` where it is not sendable or the session not started."""
        frame = self._send(question.request)
        self._asked.append(question)
        return frame

    def receive(self, frame: bytes) -> Reply:
        """The reply to the oldest request; after a `Data`, call `body_received` once its bytes are read.

        `RemoteError` for what is no reply, was not asked for, or is of another size than was asked for.
        """
        message = BULK.decode(frame)
        state = _step(BULK_BACK, self.state, message, RemoteError)
        question = self._asked.popleft()
        if isinstance(message, Data):
            _check_size(question, message)
        self.state = state if state is State.BODY else self._resting()
        return cast(Reply, message)

    def body_received(self) -> None:
        if self.state is not State.BODY:
            raise LocalError(f"no bytes are under way in state {self.state.name}")
        self.state = self._resting()

    def _send(self, message: BulkHello | Request) -> bytes:
        state = _step(BULK_FORWARD, self.state, message, LocalError)
        frame = encode_frame(BULK.encode(message))
        self.state = state
        return frame

    def _resting(self) -> State:
        return State.ASKED if self._asked else State.OPEN


def _check_size(question: Question, data: Data) -> None:
    request = question.request
    if isinstance(request, FragmentsRequest):
        right = data.size_bytes == question.size_bytes and data.total_bytes == 0
    else:
        rest = max(0, data.total_bytes - request.offset_bytes)
        right = data.size_bytes == min(question.size_bytes, rest)
    if not right:
        raise RemoteError(f"{data.size_bytes} bytes came where {question.size_bytes} were asked for")


class BulkServerSession:
    """The answering end of a bulk connection: one reply to each request, in their order."""

    def __init__(self, capabilities: tuple[str, ...]) -> None:
        self._capabilities = capabilities
        self._reader = FrameReader()
        self._waiting = 0
        self.state = State.START

    def receive(self, data: bytes | memoryview) -> list[Request]:
        """The requests that are whole now. `RemoteError` where the other side broke the protocol."""
        requests = []
        self._reader.feed(data)
        for frame in self._reader.frames():
            message = BULK.decode(frame)
            self.state = _step(BULK_FORWARD, self.state, message, RemoteError)
            if isinstance(message, BulkHello):
                self._check_hello(message)
            else:
                self._waiting += 1
                requests.append(cast(Request, message))
        return requests

    def reply(self, message: Reply) -> bytes:
        """The bytes of a reply to the oldest request; a `Data`'s raw bytes follow, then comes `body_sent`."""
        state = _step(BULK_BACK, self.state, message, LocalError)
        frame = encode_frame(BULK.encode(message))
        self._waiting -= 1
        self.state = state if state is State.BODY else self._resting()
        return frame

    def body_sent(self) -> None:
        if self.state is not State.BODY:
            raise LocalError(f"no bytes are under way in state {self.state.name}")
        self.state = self._resting()

    def _check_hello(self, hello: BulkHello) -> None:
        if hello.version != PROTOCOL_VERSION:
            raise RemoteError(f"version {hello.version} is not spoken here")
        if unknown := set(hello.capabilities) - set(self._capabilities):
            raise RemoteError(f"capabilities that are not agreed: {', '.join(sorted(unknown))}")

    def _resting(self) -> State:
        return State.ASKED if self._waiting else State.OPEN
