"""A courier as the daemon sees it: a process at the other end of a socket pair, which carries connections."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from itertools import count

from enticed import __version__
from enticed.identity.host import HostIdentity
from enticed.transfer.courier_connection import CourierConnection, News
from enticed.transfer.courier_messages import (
    FROM_COURIER,
    TO_COURIER,
    Believe,
    Ready,
    Take,
)
from enticed.transfer.errors import CourierLostError
from enticed.transfer.limits import (
    COURIER_END_TIMEOUT_S,
    COURIER_IDLE_S,
    COURIER_MESSAGE_MAX_SIZE_BYTES,
    COURIER_QUEUE_MAX_COUNT,
    COURIER_REST_LOAD_COUNT,
    COURIER_REST_S,
    COURIER_START_TIMEOUT_S,
)
from enticed.transfer.timing import Timing
from protocol.errors import LocalError, MalformedError
from protocol.identifiers import NodeId

log = logging.getLogger(__name__)


class CourierProcess:
    """One process. It ends when it is closed, or has had nothing to carry for a while; `on_ended` is called once then.

    Everything belongs to the event loop on which it was started.
    """

    def __init__(self, nice: int) -> None:
        """Starts it: `LocalError` where that is not possible."""
        self._loop = asyncio.get_running_loop()
        try:
            self._sock, self._process = _spawn(nice)
        except OSError as error:
            raise LocalError(f"no process can be started: {error.strerror}") from error
        self.is_open = True
        self.connections: dict[int, CourierConnection] = {}
        self.on_ended: Callable[[], None] = lambda: None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._numbers = count(1)
        self._idle: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._sock.fileno(), self._read)
        self.linger()

    async def ready(self) -> None:
        """Until it has started: `LocalError` if it has ended instead, or takes too long."""
        try:
            async with asyncio.timeout(COURIER_START_TIMEOUT_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self.close()
            raise LocalError("a process takes too long to start") from None

    def believe(self, identity: HostIdentity) -> None:
        """Show and believe from now on what this identity says."""
        self.say(Believe(str(identity.directory), identity.trust.authorities))

    def linger(self) -> None:
        """End in a while, if nothing comes to be carried until then."""
        self._cancel_idle()
        if not self.connections and self.is_open:
            self._idle = self._loop.call_later(COURIER_IDLE_S, self.close)

    def take(self, sock: socket.socket, node: NodeId, timing: Timing) -> CourierConnection:
        """Have it shake hands on this socket, which is closed here."""
        self._cancel_idle()
        connection = CourierConnection(next(self._numbers), node, self.say, self._forget, timing.idle_s)
        self.connections[connection.number] = connection
        times_s = (timing.handshake_s, timing.reply_s, timing.served_idle_s)
        with sock:
            self.say(Take(connection.number, *(int(1000 * time_s) for time_s in times_s)), sock.fileno())
        if not self.is_open:
            connection.end(CourierLostError())
        return connection

    def say(self, message: object, fd: int | None = None) -> None:
        """Tell it, in order. The descriptor may be closed afterwards."""
        if not self.is_open:
            return
        data = TO_COURIER.encode(message)
        if self._unsent or not self._send(data, fd):
            try:
                self._unsent.append((data, None if fd is None else os.dup(fd)))
            except OSError as error:  # no descriptor is left; in no case may a message be lost and the next one not
                log.error("a courier cannot be told what to fetch, and is ended: %s", error.strerror)
                self.close()
                return
            self._loop.add_writer(self._sock.fileno(), self._write)
        if len(self._unsent) > COURIER_QUEUE_MAX_COUNT:
            log.error("a courier does not read what it is told, and is ended")
            self.close()

    def close(self, why: str = "a process has ended before it could fetch") -> None:
        """End it, and every connection that it carries. why: for who waits until it is ready."""
        if not self.is_open:
            return
        self.is_open = False
        self._cancel_idle()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()  # which tells it
        for _, fd in self._unsent:
            if fd is not None:
                os.close(fd)
        self._unsent.clear()
        for connection in list(self.connections.values()):
            connection.end(CourierLostError())
        if not self._ready.done():
            self._ready.set_exception(LocalError(why))
            self._ready.exception()  # whoever waited may have gone
        self.on_ended()

    async def wait(self) -> int | None:
        """Once it is closed: until the process has ended, its status. One that does not end is killed; None if it
        has not ended even then: it waits for a disk."""
        if self._process.poll() is None and not await self._ends_in_time():
            self._process.kill()
            await self._ends_in_time()
        return self._process.poll()

    async def _ends_in_time(self) -> bool:
        ended = asyncio.Event()
        try:
            pidfd = os.pidfd_open(self._process.pid)
        except OSError:  # it has ended, or no descriptor is left
            return self._process.poll() is not None
        self._loop.add_reader(pidfd, ended.set)
        try:
            async with asyncio.timeout(COURIER_END_TIMEOUT_S):
                return await ended.wait()
        except TimeoutError:
            return False
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _forget(self, number: int) -> None:
        self.connections.pop(number, None)
        self.linger()

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _send(self, data: bytes, fd: int | None) -> bool:
        """Whether it is sent, or never will be."""
        try:
            socket.send_fds(self._sock, [data], [] if fd is None else [fd])
        except BlockingIOError:
            return False
        except OSError:
            self._loop.call_soon(self.close)  # it is gone
        return True

    def _write(self) -> None:
        while self._unsent:
            data, fd = self._unsent[0]
            if not self._send(data, fd):
                return
            self._unsent.popleft()
            if fd is not None:
                os.close(fd)
        self._loop.remove_writer(self._sock.fileno())

    def _read(self) -> None:
        try:
            while self.is_open:
                data = self._sock.recv(COURIER_MESSAGE_MAX_SIZE_BYTES)
                if not data:
                    self.close()
                    return
                self._heard(FROM_COURIER.decode(data))
        except BlockingIOError:
            self._rest()
        except (OSError, MalformedError) as error:
            log.error("a courier is ended: %s", error)
            self.close()

    def _rest(self) -> None:
        """While it has enough to do, hear of a few errands at once: to wake for each takes longer than all that is to
        be decided."""
        if sum(connection.load for connection in self.connections.values()) >= COURIER_REST_LOAD_COUNT:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.call_later(COURIER_REST_S, self._listen)

    def _listen(self) -> None:
        if self.is_open:
            self._loop.add_reader(self._sock.fileno(), self._read)

    def _heard(self, message: Ready | News) -> None:
        if isinstance(message, Ready):
            if message.release != __version__:
                self.close(f"this daemon is of release {__version__}, and on the disk is {message.release}: restart it")
            elif not self._ready.done():
                self._ready.set_result(None)
        elif (connection := self.connections.get(message.connection)) is not None:
            connection.heard(message)


def _spawn(nice: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Our end of a socket pair, and the process that has the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        with theirs:
            return ours, subprocess.Popen(
                (sys.executable, "-P", "-m", "enticed.transfer.courier", str(theirs.fileno()), str(nice)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # a terminal's Ctrl-C is for the daemon, and with the daemon it ends
            )
    except OSError:
        ours.close()
        raise
