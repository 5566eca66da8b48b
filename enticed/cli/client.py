"""Talking to the daemon: HTTP over its unix socket, with nothing but the standard library, which starts fast."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from enticed.cli.failures import KINDS, Exit, Failed
from enticed.cli.patient_socket import PatientSocket
from enticed.limits import DAEMON_LINE_MAX_SIZE_BYTES, DAEMON_SILENT_S

ENDED = ("ready", "failed", "cancelled")
STATES = ("queued", "resolving", "reserving", "fetching", "verifying", "paused", *ENDED)
"""Of an order, as the daemon tells them."""

Object = dict[str, Any]


class Daemon:
    """The daemon behind a socket. Each request takes a connection of its own.

    Everything raises `Failed`: NO_DAEMON where none answers or it goes away, else by what the daemon says.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, method: str, path: str, body: Object | None = None, *, timeout_s: float | None = None) -> Object:
        """One request, one JSON object. A daemon that lives is waited for, up to `timeout_s` if there is one."""
        with self._request(method, path, body, timeout_s) as (_, response):
            answer: Object = json.loads(response.read())
            return answer

    def work(self, path: str, body: Object | None, progressed: Callable[[int, int], None]) -> Object:
        """A long piece of work, by POST: its result. Whoever is interrupted here has it stopped there."""
        with self._request("POST", path, body, None) as (_, response):
            while line := response.readline(DAEMON_LINE_MAX_SIZE_BYTES):
                answer = json.loads(line)
                if "error" in answer:
                    raise failure(answer["error"])
                if "result" in answer:
                    result: Object = answer["result"]
                    return result
                progressed(answer["progress"]["done_bytes"], answer["progress"]["total_bytes"])
        raise self._gone()

    @contextmanager
    def events(self, key: str, progress_s: float | None = None) -> Iterator[Events]:
        """The events of one order, from now on; progress_s: how often it is told how far the order has come."""
        path = f"/v1/events?key={part(key)}" + (f"&progress_s={progress_s}" if progress_s else "")
        with self._request("GET", path, None, DAEMON_SILENT_S) as (connection, response):
            response.readline(DAEMON_LINE_MAX_SIZE_BYTES)  # a comment: from here on nothing is missed
            yield Events(connection, response)

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: Object | None,
        timeout_s: float | None,
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        connection = connect(self.path)
        exchange = http.client.HTTPConnection("localhost")
        exchange.sock = connection
        try:
            connection.settimeout(timeout_s)
            data = None if body is None else json.dumps(body).encode()
            exchange.request(method, path, data, {"Content-Type": "application/json"})
            response = exchange.getresponse()
            if response.status != http.client.OK:
                raise failure(json.loads(response.read()))
            yield connection, response
        except TimeoutError as error:
            raise Failed(Exit.TEMPORARY, f"the daemon at {self.path} does not answer") from error
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise self._gone() from error
        finally:
            exchange.close()
            connection.close()

    def _gone(self) -> Failed:
        return Failed(Exit.NO_DAEMON, f"the daemon at {self.path} went away")


class Events:
    """Server-sent events, one at a time."""

    def __init__(self, connection: socket.socket, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def next(self, deadline: float | None = None) -> Object | None:
        """The next event's data; None once `deadline` (of time.monotonic) has passed.

        `ConnectionError` at the end of the stream, `TimeoutError` if not even a heartbeat comes.
        """
        data = None
        while True:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            hasty = left_s is not None and left_s < DAEMON_SILENT_S
            self._connection.settimeout(left_s if hasty else DAEMON_SILENT_S)
            try:
                line = self._response.readline(DAEMON_LINE_MAX_SIZE_BYTES).decode()
            except TimeoutError:
                if hasty:
                    return None
                raise
            except http.client.HTTPException as error:
                raise ConnectionResetError("the stream of events was cut off") from error
            if not line:
                raise ConnectionResetError("the stream of events ended")
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "data":
                data = value
            elif not name and data is not None:
                event: Object = json.loads(data)
                return event


def connect(daemon_path: str, kind: socket.SocketKind = socket.SOCK_STREAM, suffix: str = "") -> PatientSocket:
    """A connection to a unix socket of the daemon, which waits its turn where many connect at once."""
    connection, path = PatientSocket(daemon_path, kind), daemon_path + suffix
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise no_daemon(path, error) from error
    return connection


def part(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def failure(problem: Object) -> Failed:
    """What the daemon says went wrong."""
    return Failed(KINDS.get(str(problem.get("kind")), Exit.FAILED), str(problem.get("detail", "no reason given")))


def no_daemon(path: str, error: OSError) -> Failed:
    """Why nobody could be reached at a socket."""
    if isinstance(error, PermissionError):
        return Failed(Exit.DENIED, f"you may not connect to the daemon at {path}")
    if isinstance(error, TimeoutError | BlockingIOError):
        return Failed(Exit.TEMPORARY, f"the daemon at {path} is too busy to answer")
    why = "" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else f" ({error.strerror or error})"
    return Failed(Exit.NO_DAEMON, f"no daemon answers at {path}{why}: is enticed running? (--socket names another)")
