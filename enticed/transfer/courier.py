"""A courier: a process of the daemon's that fetches for it, `python -m enticed.transfer.courier DESCRIPTOR NICE`.

Its first thread obeys the daemon, each connection has a thread of its own. It imports little, so that it starts at once
and takes little memory; it decides nothing, and ends when the daemon does.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import sys
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from enticed import __version__
from enticed.identity.tls_context import member_context
from enticed.landing import Landing
from enticed.pace import Paces
from enticed.transfer.bulk_connection import BulkConnection, Job
from enticed.transfer.courier_messages import (
    FROM_COURIER,
    TO_COURIER,
    Begin,
    Believe,
    Break,
    Ended,
    Failed,
    Fetch,
    Landed,
    Ready,
    Shaken,
    Take,
    Withdraw,
    failure_of,
)
from enticed.transfer.errors import BusyError, CourierLostError, PeerLostError, fault_of
from enticed.transfer.limits import COURIER_LOST_RETRY_S, COURIER_MESSAGE_MAX_SIZE_BYTES
from enticed.transfer.receiving import FragmentsReceiver
from enticed.transfer.stream import BulkStream
from enticed.transfer.timing import Timing
from protocol.errors import DeniedError, EnticedError, ExhaustedError, LocalError
from protocol.limits import CERTIFICATE_MAX_SIZE_BYTES
from protocol.messages import ALPN_BULK
from protocol.session import Agreement


class Courier:
    """Everything that this process carries. `sock`: to the daemon, of whole datagrams."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._context: ssl.SSLContext | None = None
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        """Obey until the daemon is gone."""
        self._say(Ready(__version__))
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sock, COURIER_MESSAGE_MAX_SIZE_BYTES, 1)
            except OSError:  # a daemon that had not heard all that was said to it
                return
            if not data:
                return
            self._obey(TO_COURIER.decode(data), descriptors)

    def _obey(self, message: object, descriptors: list[int]) -> None:
        match message:
            case Take(connection) if not descriptors:  # this process has as many as it may
                self._say(Ended(connection, failure_of(CourierLostError())))
            case Fetch(connection, errand) if not descriptors:
                self._say(Failed(connection, errand, failure_of(CourierLostError())))
            case Believe(directory, authorities):
                self._context = member_context(ssl.PROTOCOL_TLS_CLIENT, Path(directory), authorities, [ALPN_BULK])
            case Take() if self._context is not None:
                self._take(message, self._context, descriptors[0])
            case Fetch():
                self._fetch(message, descriptors[0])
            case Begin() | Withdraw() | Break():
                if (known := self._connections.get(message.connection)) is not None:
                    known.obey(message)
            case _:
                raise LocalError(f"a courier cannot obey {message!r} now")

    def _take(self, take: Take, context: ssl.SSLContext, fd: int) -> None:
        with socket.socket(fileno=fd) as sock:
            try:
                tls = context.wrap_socket(sock, do_handshake_on_connect=False)
            except OSError as error:  # the peer has hung up already
                self._say(Ended(take.connection, failure_of(fault_of(error))))
                return
        connection = self._connections[take.connection] = _Connection(take, tls, self._say, self._forget)
        try:
            connection.start()
        except RuntimeError:  # no thread is left
            tls.close()
            self._forget(take.connection)
            self._say(Ended(take.connection, failure_of(CourierLostError())))

    def _fetch(self, fetch: Fetch, fd: int) -> None:
        try:
            if (known := self._connections.get(fetch.connection)) is not None:
                known.fetch(fetch, fd)
        finally:
            os.close(fd)

    def _say(self, message: object) -> None:
        """From any thread: a datagram is sent whole."""
        try:
            self._sock.send(FROM_COURIER.encode(message))
        except OSError:
            pass  # the daemon is gone, and so will this process be

    def _forget(self, connection: int) -> None:
        self._connections.pop(connection, None)


class _Connection:
    """One connection. `obey`, `fetch` and `start` belong to the courier's first thread."""

    def __init__(
        self, take: Take, tls: ssl.SSLSocket, say: Callable[[object], None], forget: Callable[[int], None]
    ) -> None:
        self._id = take.connection
        self._timing = Timing(
            handshake_s=take.handshake_ms / 1000, reply_s=take.reply_ms / 1000, idle_s=take.idle_ms / 1000
        )
        self._say = say
        self._forget = forget
        self._tls = tls
        self._begun: queue.SimpleQueue[EnticedError | None] = queue.SimpleQueue()
        """Whether to begin: None, or why not."""
        self._connection: BulkConnection | None = None
        self._jobs: dict[int, Job] = {}

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"bulk-fetch {self._id}", daemon=True).start()

    def obey(self, message: Begin | Withdraw | Break) -> None:
        match message:
            case Begin(_, version, capabilities):
                self._begin(Agreement(version, capabilities))
            case Withdraw(_, errand) if (job := self._jobs.pop(errand, None)) is not None:
                assert self._connection is not None
                self._connection.withdraw(job)
            case Break() if self._connection is not None:
                self._connection.interrupt(PeerLostError("the daemon has ended the connection"))
            case Break():
                self._begun.put(PeerLostError("the connection has ended"))
                with suppress(OSError):
                    socket.socket.shutdown(self._tls, socket.SHUT_RDWR)

    def fetch(self, fetch: Fetch, fd: int) -> None:
        """Take an errand on, its descriptor duplicated. If the connection has ended, the daemon is told so, or will be,
        which goes for all errands."""
        offsets, sizes = array("q", fetch.offsets), array("i", fetch.sizes)
        landing = Landing(fd, tuple(offsets), tuple(sizes), fetch.digests)
        try:
            receiver = FragmentsReceiver(fetch.request, landing)
        except ExhaustedError:  # no descriptor left here: another time
            self._say(Failed(self._id, fetch.errand, failure_of(BusyError(COURIER_LOST_RETRY_S, ()))))
            return
        job = Job(receiver, partial(self._report, fetch.errand))
        self._jobs[fetch.errand] = job
        if self._connection is None or not self._connection.submit(job):
            del self._jobs[fetch.errand]
            job.receiver.close()

    def _begin(self, agreement: Agreement) -> None:
        """In the first thread, so that what is fetched next finds the connection there."""
        try:
            stream = BulkStream(self._tls, Paces())
        except OSError:  # no descriptor left here: another time
            self._begun.put(CourierLostError())
            return
        self._connection = BulkConnection(stream, agreement, self._timing)
        self._begun.put(None)

    def _report(self, errand: int, _: object, error: EnticedError | None) -> None:
        """In the connection's thread."""
        if self._jobs.pop(errand, None) is None:
            return  # withdrawn
        said = Landed(self._id, errand) if error is None else Failed(self._id, errand, failure_of(error))
        self._say(said)

    def _run(self) -> None:
        why: EnticedError = PeerLostError("the connection has ended")
        try:
            self._say(Shaken(self._id, self._shake_hands()))
            why = self._begun.get() or self._run_connection()
        except OSError as error:
            why = fault_of(error)
        except EnticedError as error:
            why = error
        finally:
            self._tls.close()
            self._forget(self._id)
            self._say(Ended(self._id, failure_of(why)))

    def _run_connection(self) -> EnticedError:
        assert self._connection is not None
        return self._connection.run()

    def _shake_hands(self) -> bytes:
        """The certificate of who is there. `OSError`; `DeniedError` for one that is none of ours."""
        self._tls.settimeout(self._timing.handshake_s)
        self._tls.do_handshake()
        certificate = self._tls.getpeercert(binary_form=True) or b""
        if not 1 <= len(certificate) <= CERTIFICATE_MAX_SIZE_BYTES or self._tls.selected_alpn_protocol() != ALPN_BULK:
            raise DeniedError("the peer is no member that serves bytes")
        return certificate


def main() -> None:
    # Going up takes no privilege; a unit that forbids even that is no reason to fetch nothing.
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, max(int(sys.argv[2]), os.getpriority(os.PRIO_PROCESS, 0)))
    Courier(socket.socket(fileno=int(sys.argv[1]))).run()
    # The daemon is gone, and with it whoever wanted what the threads are at: no reason to wait for them.
    os._exit(0)


if __name__ == "__main__":
    main()
