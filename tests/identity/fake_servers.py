"""Real TLS servers that pose as a founding host and write down all that they are told."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 10.0


def server_tls(directory: Path, certificate: str = "node.crt", key: str = "node.key") -> ssl.SSLContext:
    """A server that shows this certificate and asks for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / certificate, directory / key)
    return context


@dataclass
class Recorder:
    """What a server was told, all of it; and where it listens."""

    port: int
    heard: bytearray = field(default_factory=bytearray)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


Reply = Callable[[bytes], bytes]
"""From the request as it came, to all the bytes to answer with."""


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def by_path(answers: Mapping[str, bytes]) -> Reply:
    """Answer by the path asked for; 404 for any other."""
    return lambda request: answers.get(request.split(b" ")[1].decode(), http(b"", "404 Not Found"))


@contextmanager
def recording_server(context: Callable[[int], ssl.SSLContext | None], reply: Reply) -> Iterator[Recorder]:
    """A server for a few connections. `context`: of the n-th, from 0; None: plain, and silent for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    recorder = Recorder(listener.getsockname()[1])
    waiting: list[socket.socket] = []

    def serve() -> None:
        number = 0
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(TIMEOUT_S)
            chosen = context(number)
            number += 1
            if chosen is None:
                waiting.append(plain)
            else:
                _converse(plain, chosen, reply, recorder)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield recorder
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for plain in waiting:
            plain.close()


def _converse(plain: socket.socket, context: ssl.SSLContext, reply: Reply, recorder: Recorder) -> None:
    try:
        with plain, context.wrap_socket(plain, server_side=True) as tls:
            request = tls.recv(65536)
            recorder.heard += request
            if request:
                tls.sendall(reply(request))
                socket.socket.shutdown(tls, socket.SHUT_WR)  # the end of the answer; what is said after it is heard
            while more := tls.recv(65536):
                recorder.heard += more
    except OSError:
        pass  # the other end hangs up as soon as it does not like something
