"""Peers that misbehave: real members with real certificates, whose bulk connections do what a script says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from enticed.identity.host import HostIdentity
from enticed.identity.tls import client_context
from enticed.transfer.addresses import HostPort
from enticed.transfer.listener import Listener
from enticed.transfer.sessions import SessionEvents, Sessions
from enticed.transfer.tls import Handshakes, Secured
from protocol.codec import Vocabulary
from protocol.framing import FrameReader, encode_frame
from protocol.messages import ALPN_BULK, BULK, BulkHello, Data, FragmentsRequest, Hello
from tests.transfer.hosts import QUICK, Disk

Script = Callable[[ssl.SSLSocket], None]


@asynccontextmanager
async def rogue(identity: HostIdentity, script: Script) -> AsyncIterator[str]:
    """A member whose sessions are good; each bulk connection runs the script in a thread. Gives its address."""
    scripts: set[asyncio.Future[None]] = set()
    handshakes = Handshakes(identity, time.time, QUICK)
    events = SessionEvents(*[lambda *_: None] * 4)
    sessions = Sessions(identity.node, handshakes, lambda: Hello(1, 1, (), 1, ()), (), QUICK, events)

    def on_secured(secured: Secured) -> None:
        if secured.alpn == ALPN_BULK:
            scripts.add(asyncio.get_running_loop().run_in_executor(None, _play, script, secured.sock))
        else:
            sessions.answer(secured)

    listener = Listener(handshakes, on_secured, sessions.turn_away)
    listener.open([HostPort.parse("127.0.0.1:0")])
    try:
        yield str(listener.addresses[0])
    finally:
        await listener.close()
        await sessions.close("done")
        await asyncio.gather(*scripts)


def _play(script: Script, sock: ssl.SSLSocket) -> None:
    with sock:
        sock.settimeout(10)
        try:
            script(sock)
        except (ConnectionError, ssl.SSLEOFError):
            pass  # the other side was fed up


def connect(identity: HostIdentity, address: str, alpn: str) -> ssl.SSLSocket:
    """A blocking connection of this member: for a client that misbehaves."""
    sock = socket.create_connection(HostPort.parse(address).sockaddr, timeout=10)
    return client_context(identity, [alpn]).wrap_socket(sock)


class Frames:
    """Messages on a blocking socket, one after another."""

    def __init__(self, sock: ssl.SSLSocket, words: Vocabulary) -> None:
        self._sock = sock
        self._words = words
        self._reader = FrameReader()

    def receive(self) -> object:
        while True:
            for frame in self._reader.frames():
                return self._words.decode(frame)
            data = self._sock.recv(4096)
            if not data:
                raise ConnectionError("closed")
            self._reader.feed(data)

    def send(self, message: object) -> None:
        self._sock.sendall(encode_frame(self._words.encode(message)))


def until_closed(sock: ssl.SSLSocket) -> None:
    """Read and forget, until the other side closes."""
    while sock.recv(65536):
        pass


def serve(sock: ssl.SSLSocket, disk: Disk) -> None:
    """What a good server does, one request after another."""
    frames = Frames(sock, BULK)
    assert isinstance(frames.receive(), BulkHello)
    content = disk.path.read_bytes()
    while True:
        request = frames.receive()
        assert isinstance(request, FragmentsRequest)
        wanted = disk.page(request.piece)[request.first : request.first + request.count]
        places = zip(wanted.offsets_bytes.tolist(), wanted.sizes_bytes.tolist(), strict=True)
        body = b"".join(content[offset : offset + size] for offset, size in places)
        frames.send(Data(len(body), 0))
        sock.sendall(body)
