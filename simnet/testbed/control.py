"""A daemon's control socket, for programs that simply wait: testbed, demo, benchmarks."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from simnet.testbed.processes import TestbedError

TIMEOUT_S = 60.0
ENDED = ("ready", "failed", "cancelled")
EVENT_LINE_MAX_SIZE_BYTES = 1 << 20


class ControlError(TestbedError):
    """What a daemon answered instead of a result; `kind` as `enticed.problems.Kind` has it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _orders(stream: http.client.HTTPResponse, timeout_s: float) -> Iterator[dict[str, Any]]:
    until = time.monotonic() + timeout_s
    while line := stream.readline(EVENT_LINE_MAX_SIZE_BYTES):
        if line.startswith(b"data:"):
            order: dict[str, Any] = json.loads(line[5:])
            yield order
        if time.monotonic() >= until:
            raise TimeoutError(f"no such event within {timeout_s:g} s")


class Control:
    """One daemon's control API, a connection for each request. `OSError` where no daemon answers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def delete(self, path: str) -> dict[str, Any]:
        return self._ask("DELETE", path)

    def text(self, path: str) -> str:
        """What is no JSON."""
        connection = _Connection(self.path, TIMEOUT_S)
        try:
            connection.request("GET", path)
            return self._answer(connection).read().decode()
        finally:
            connection.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, body)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("PUT", path, body)

    def place_order(self, key: str, image: str, **terms: object) -> dict[str, Any]:
        """PUT /v1/orders/{key}; the order as it is then."""
        return self._ask("PUT", f"/v1/orders/{quote(key)}", {"image": image, **terms})

    def order(self, key: str) -> dict[str, Any]:
        return self.get(f"/v1/orders/{quote(key)}")

    @contextmanager
    def events(self, key: str, timeout_s: float = TIMEOUT_S) -> Iterator[Iterator[dict[str, Any]]]:
        """The order whenever it changes from now on; `TimeoutError` when `timeout_s` have passed."""
        connection = _Connection(self.path, timeout_s)
        try:
            connection.request("GET", f"/v1/events?key={quote(key)}")
            stream = self._answer(connection)
            stream.readline(EVENT_LINE_MAX_SIZE_BYTES)  # ": listening": from now on nothing is missed
            yield _orders(stream, timeout_s)
        finally:
            connection.close()

    def wait_for_order(self, key: str, *states: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The order, once it is in one of `states` (none given: once it has ended)."""
        wanted = states or ENDED
        with self.events(key, timeout_s) as changes:
            for order in chain([self.order(key)], changes):
                if order["state"] in wanted:
                    return order
        raise TimeoutError(f"the daemon went away while order {key} was waited for")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = _Connection(self.path, TIMEOUT_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer: dict[str, Any] = json.loads(self._answer(connection).read())
            return answer
        finally:
            connection.close()

    @staticmethod
    def _answer(connection: _Connection) -> http.client.HTTPResponse:
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            problem = json.loads(response.read())
            raise ControlError(response.status, problem["kind"], problem["detail"])
        return response
