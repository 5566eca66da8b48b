"""A TLS connection as one thread reads and writes it: blocking, exact, with deadlines, and interruptible.

One thread reads and writes; any thread may `wake` it while it waits, or `interrupt` it wherever it is.
"""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import threading
import time
from enum import Enum, auto

from enticed.pace import Paces
from enticed.transfer.errors import PeerLostError, PeerSilentError, fault_of
from protocol.errors import LocalError
from protocol.framing import FRAME_HEADER_SIZE_BYTES, frame_size_bytes


class Woken(Enum):
    """What ended a wait."""

    CONNECTION = auto()
    BELL = auto()
    DEADLINE = auto()


class BulkStream:
    """Every method but `wake` and `interrupt` belongs to the connection's thread.

    They raise `PeerLostError`, `PeerSilentError` past their deadline (in `time.monotonic` seconds), or `RemoteError`
    for what is no TLS; the stream is of no use after any of them.
    """

    def __init__(self, sock: ssl.SSLSocket, paces: Paces) -> None:
        self.sent_bytes = 0
        self._paces = paces
        self._sock = sock
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._limited_to_s: float | None = None
        self._closing = threading.Lock()
        self._closed = False

    # --- from any thread ---

    def wake(self) -> None:
        """Make `wait` return, now or when it is called next."""
        with self._closing:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def interrupt(self) -> None:
        """End the connection under whatever its thread is doing: that raises `PeerLostError`."""
        with self._closing:
            if self._closed:
                return
            try:
                # Not SSLSocket.shutdown: it would take the TLS layer off, under the thread that uses it.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            except OSError:
                pass  # the peer was faster
            os.eventfd_write(self._bell, 1)

    # --- in the connection's thread ---

    def wait(self, events: int, deadline_s: float) -> Woken:
        """Wait for poll events (POLLIN, POLLRDHUP) of the connection, or to be woken, or until the deadline."""
        if events & select.POLLIN and self._sock.pending():
            return Woken.CONNECTION
        self._poll.register(self._sock, events)
        ready = [fd for fd, _ in self._poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)]
        if self._bell in ready:
            os.eventfd_read(self._bell)
            ready.remove(self._bell)
            return Woken.CONNECTION if ready else Woken.BELL
        return Woken.CONNECTION if ready else Woken.DEADLINE

    def receive_frame(self, deadline_s: float) -> bytes:
        """One frame's payload. `MalformedError` for a bad length."""
        header = bytearray(FRAME_HEADER_SIZE_BYTES)
        self.fill(memoryview(header), deadline_s)
        payload = bytearray(frame_size_bytes(header))
        self.fill(memoryview(payload), deadline_s)
        return bytes(payload)

    def receive_some(self, size_bytes: int, deadline_s: float) -> bytes:
        """At least one byte, at most so many."""
        self._limit(deadline_s)
        try:
            data = self._sock.recv(size_bytes)
        except OSError as error:
            raise fault_of(error) from error
        if not data:
            raise PeerLostError("the peer has closed the connection")
        return data

    def receive_now(self, size_bytes: int) -> bytes:
        """What has come and can be read without waiting, at most so many bytes; empty if that is nothing."""
        self._sock.settimeout(0.0)
        self._limited_to_s = None
        try:
            data = self._sock.recv(size_bytes)
        except ssl.SSLWantReadError:
            return b""
        except OSError as error:
            raise fault_of(error) from error
        if not data:
            raise PeerLostError("the peer has closed the connection")
        return data

    def fill(self, view: memoryview, deadline_s: float) -> None:
        """Fill the whole view."""
        self._limit(deadline_s)
        got, size = 0, len(view)
        try:
            while got < size:
                received = self._sock.recv_into(view[got:], size - got)
                if received == 0:
                    raise PeerLostError("the peer has closed the connection")
                got += received
                self._paces.down.take(received)
                self._check(deadline_s)
        except OSError as error:
            raise fault_of(error) from error

    def send(self, data: bytes | memoryview, deadline_s: float, stalled_s: float = math.inf) -> None:
        """Send all of it. stalled_s: for each portion of RATE_PORTION_SIZE_BYTES."""
        self._limit(min(deadline_s, time.monotonic() + stalled_s))
        view, pace = memoryview(data), self._paces.up
        try:
            while view:
                portion = view[: pace.portion_bytes]
                pace.take(len(portion))
                sent = self._sock.send(portion)
                self.sent_bytes += sent
                view = view[sent:]
                self._check(deadline_s)
        except OSError as error:
            raise fault_of(error) from error

    def close(self) -> None:
        with self._closing:
            self._closed = True
            self._sock.close()
            os.close(self._bell)

    def _limit(self, deadline_s: float) -> None:
        # Set once for a whole reply, not for each fragment or record: it is a system call, for which the GIL is given
        # up and waited for. So one call may last as long as all of the reply; `_check` catches who only trickles.
        if deadline_s != self._limited_to_s:
            self._sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            self._limited_to_s = deadline_s

    def _check(self, deadline_s: float) -> None:
        if time.monotonic() > deadline_s:
            raise PeerSilentError("the peer is too slow")


class Body:
    """The raw bytes behind one frame: no more of the stream than that."""

    def __init__(self, stream: BulkStream, size_bytes: int, deadline_s: float) -> None:
        self._stream = stream
        self._left_bytes = size_bytes
        self._deadline_s = deadline_s

    def fill(self, view: memoryview) -> None:
        """Fill the view; raises as the stream does, `LocalError` beyond the end."""
        if len(view) > self._left_bytes:
            raise LocalError(f"{len(view)} bytes wanted of a body that has {self._left_bytes} left")
        self._stream.fill(view, self._deadline_s)
        self._left_bytes -= len(view)

    def drain(self, scratch: memoryview) -> None:
        """Throw away what is left."""
        while self._left_bytes:
            self.fill(scratch[: min(len(scratch), self._left_bytes)])
