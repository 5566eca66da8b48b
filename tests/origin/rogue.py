"""A web server that does what it is told: what origins do wrong, over a real socket."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RogueServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        with suppress(ConnectionError):
            self.server.behaviour(self)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """headers: with `_` for `-`. Content-Length is that of the body unless it is among them."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def range(self) -> tuple[int, int]:
        """First and last byte that are asked for."""
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), int(last)

    def wait(self) -> None:
        """Until the server ends."""
        self.server.over.wait()

    def log_message(self, format: str, *args: object) -> None:
        pass


class RogueServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.asked: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def serving(directory: Path) -> Behaviour:
    """What a web server does: files of a directory, whole or a range of them."""

    def serve(asked: Handler) -> None:
        path = directory / asked.path.lstrip("/")
        if not path.is_file():
            asked.answer(404)
        elif "Range" not in asked.headers:
            asked.answer(200, path.read_bytes())
        else:
            first, last = asked.range
            data = path.read_bytes()
            asked.answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")

    return serve


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Each once for one request, then again from the first."""
    turns = itertools.cycle(behaviours)

    def behave(asked: Handler) -> None:
        next(turns)(asked)

    return behave


@contextmanager
def rogue(behaviour: Behaviour) -> Iterator[RogueServer]:
    with RogueServer(behaviour) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
