"""A control connection on the event loop: frames in and out, a bounded queue, pings.

The socket is non-blocking and read and written by callbacks: messages are few and small, and a thread or a transport
for each of a few hundred peers would cost more than they do.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from enticed.transfer.allowances import Allowance
from enticed.transfer.errors import DisownedError, PeerLostError, PeerSilentError, fault_of
from enticed.transfer.limits import (
    CONTROL_MESSAGE_USUAL_SIZE_BYTES,
    CONTROL_QUEUE_MAX_SIZE_BYTES,
    CONTROL_READ_SIZE_BYTES,
    CONTROL_READS_PER_TURN,
)
from enticed.transfer.ports import Said
from enticed.transfer.timing import Timing
from enticed.transfer.tls import Secured
from protocol.credentials import NodeCredential
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import NodeId
from protocol.limits import REASON_MAX_CHARS
from protocol.messages import REVOKED, Goodbye, Hello, Ping, Pong
from protocol.session import Agreement, ControlSession, State


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds connections, as callbacks on the loop: `opened` once, before any `heard`; `lost` once, last.

    None of them is called for a connection that its owner has closed.
    """

    opened: Callable[[ControlConnection], None]
    heard: Callable[[ControlConnection, Said], None]
    lost: Callable[[ControlConnection, EnticedError], None]


class ControlConnection:
    """From after the handshake to the end. `start` says hello; the peer's hello opens it.

    dialler: which of the two has dialled. allowance: the peer's, for all of its connections. Everything belongs to the
    loop.
    """

    def __init__(
        self, secured: Secured, dialler: NodeId, hello: Hello, timing: Timing, owner: Owner, allowance: Allowance
    ) -> None:
        self.credential: NodeCredential = secured.credential
        self.address = secured.address
        self.dialler = dialler
        self.rtt_s: float | None = None
        """Of the last ping; None before the first."""
        self._loop = asyncio.get_running_loop()
        self._sock: ssl.SSLSocket = secured.sock
        self._session = ControlSession(hello)
        self._timing = timing
        self._owner = owner
        self._out = bytearray()
        self._writing = False
        self._heard_s = time.monotonic()
        self._allowance = allowance
        self._pause: asyncio.TimerHandle | None = None
        self._pinged_s: float | None = None
        """When a ping was sent that no pong has answered."""
        self._pings = 0
        self._timer: asyncio.TimerHandle | None = None
        self._introduced = asyncio.Event()
        self._why: EnticedError | None = None
        """Why it is over, once no more is heard."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done once the socket is closed, after a goodbye has left."""

    @property
    def node(self) -> NodeId:
        return self.credential.node

    @property
    def is_open(self) -> bool:
        return self._session.state is State.OPEN and self._why is None

    @property
    def agreement(self) -> Agreement:
        return self._session.agreement

    @property
    def hello(self) -> Hello:
        """The peer's. `LocalError` before the connection is open."""
        if self._session.theirs is None:
            raise LocalError("no hello has been received yet")
        return self._session.theirs

    def start(self) -> None:
        """Say hello, and hear what the peer says; nothing if it was closed already."""
        if self._why is not None:
            return
        self._loop.add_reader(self._sock.fileno(), self._on_readable)
        self._timer = self._loop.call_later(self._timing.hello_s, self._on_timer)
        self._queue(self._session.start())

    async def introduced(self) -> None:
        """Wait for the peer's hello; raises why the connection has ended instead. Cancelling closes it."""
        try:
            await self._introduced.wait()
        except asyncio.CancelledError:
            self.close("not needed any more")
            raise
        if self._why is not None:
            raise self._why

    def send(self, message: Said) -> None:
        """Queue a message. `LocalError` if the connection is not open, or the message not sendable."""
        self._queue(self._session.send(message))

    def probe(self) -> None:
        """Ask whether the peer still has this connection; a host that has not will reset it."""
        if self.is_open:
            self._pinged_s = time.monotonic()
            self._pings = (self._pings + 1) % 2**32
            self._queue(self._session.send(Ping(self._pings)))

    def close(self, reason: str) -> None:
        """Say goodbye, hear no more, and close when the peer has, or after `goodbye_s`. Also instead of `start`."""
        if self._why is not None:
            return
        if self._pause is None:  # else it is read again when the pause is over
            self._loop.add_reader(self._sock.fileno(), self._on_readable)
        reason = reason[:REASON_MAX_CHARS]
        if self._session.state is not State.CLOSED:
            self._out += self._session.send(Goodbye(reason))
        self._end(PeerLostError(f"closed here: {reason}"))
        self._timer = self._loop.call_later(self._timing.goodbye_s, self._close_socket)
        self._flush()

    # --- the socket ---

    def _on_readable(self) -> None:
        for _ in range(CONTROL_READS_PER_TURN):
            if self.closed.done() or self._pause is not None or self._rest():
                return
            try:
                data = self._sock.recv(CONTROL_READ_SIZE_BYTES)
            except ssl.SSLWantReadError:
                if self._out and not self._writing:
                    self._flush()
                return
            except ssl.SSLWantWriteError:
                self._loop.add_writer(self._sock.fileno(), self._on_writable)
                return
            except OSError as error:
                self._fail(fault_of(error))
                return
            if not data:
                self._fail(PeerLostError("the peer has closed the connection"))
                return
            self._hear(data)
        self._loop.call_soon(self._on_readable)  # what TLS holds already, no selector sees

    def _on_writable(self) -> None:
        self._flush()
        self._on_readable()  # reading may have waited for this, too: TLS has messages of its own

    def _rest(self) -> bool:
        """Read no more for a while from a peer that floods, on whichever connection: TCP then keeps what it says on its
        own side. False for one that does not."""
        rest_s = self._allowance.rest_s()
        if rest_s <= 0:
            return False
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(rest_s, self._read_on)
        return True

    def _read_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._on_readable)
        self._on_readable()

    def _queue(self, frame: bytes) -> None:
        self._out += frame
        if len(self._out) > CONTROL_QUEUE_MAX_SIZE_BYTES:
            self._loop.call_soon(self._fail, PeerSilentError("the peer does not read what it is sent"))
        elif not self._writing:
            self._writing = True
            self._loop.call_soon(self._flush)  # what is said in one turn leaves together

    def _flush(self) -> None:
        if self.closed.done():
            return
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except ssl.SSLWantWriteError:
            self._writing = True
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
            return
        except ssl.SSLWantReadError:
            self._writing = False  # reading tries again
            return
        except OSError as error:
            self._fail(fault_of(error))
            return
        self._writing = False
        self._loop.remove_writer(self._sock.fileno())
        if self._why is not None:
            # The peer hears the goodbye and closes; closing first could reset the connection before it has read it.
            try:
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            except OSError:
                self._close_socket()  # the peer has not waited for it

    # --- the session ---

    def _hear(self, data: bytes) -> None:
        try:
            messages = self._session.receive(data)
        except EnticedError as error:
            self._fail(error)
            return
        if messages:
            self._heard_s = time.monotonic()
        self._allowance.spend(max(len(messages), len(data) // CONTROL_MESSAGE_USUAL_SIZE_BYTES))
        for message in messages:
            if isinstance(message, Hello):
                self._arm(self._heard_s + self._timing.ping_after_s)
                self._owner.opened(self)
                self._introduced.set()
            elif isinstance(message, Ping):
                if self.is_open:
                    self._queue(self._session.send(Pong(message.token)))
            elif isinstance(message, Pong):
                if message.token == self._pings and self._pinged_s is not None:
                    self.rtt_s, self._pinged_s = self._heard_s - self._pinged_s, None
            elif isinstance(message, Goodbye):
                said = PeerLostError(f"the peer says goodbye: {message.reason!r}")
                self._fail(DisownedError() if message.reason == REVOKED else said)
            else:
                self._owner.heard(self, message)
            if self._why is not None:
                return  # closed by its owner, in a callback

    def _arm(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, due_s - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        """Ping a peer that has been quiet, give up one that has been silent."""
        if not self.is_open:
            self._fail(PeerSilentError("the peer does not say hello"))
            return
        pinged = self._pinged_s is not None and self._pinged_s >= self._heard_s
        due_s = self._heard_s + (self._timing.silent_s if pinged else self._timing.ping_after_s)
        if time.monotonic() < due_s:
            self._arm(due_s)
        elif pinged:
            self._fail(PeerSilentError("the peer is silent"))
        else:
            self.probe()
            self._arm(self._heard_s + self._timing.silent_s)

    def _fail(self, why: EnticedError) -> None:
        if self._why is None:
            self._end(why)
            self._owner.lost(self, why)
        self._close_socket()

    def _end(self, why: EnticedError) -> None:
        self._why = why
        self._introduced.set()
        if self._timer is not None:
            self._timer.cancel()

    def _close_socket(self) -> None:
        if self.closed.done():
            return
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self.closed.set_result(None)
