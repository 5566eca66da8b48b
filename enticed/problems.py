"""Errors as every HTTP API of ours tells them: problem documents (RFC 9457), for programs and for people.

    {"type": "urn:enticed:problem:not_found", "title": "Not found", "status": 404,
     "detail": "there is no order 'vm-7'", "kind": "not_found"}

`kind` is what programs go by and never changes its meaning; `detail` is one line for people. Inside a stream of JSON
lines, and in what is said beside descriptors, the same document stands under `error`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from aiohttp import web

from enticed.limits import PROBLEM_DETAIL_MAX_CHARS
from protocol.errors import (
    AbsentError,
    CorruptError,
    DeniedError,
    EnticedError,
    ExhaustedError,
    LocalError,
    NeverFitsError,
    NoSpaceError,
    QuotaError,
)

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:enticed:problem:"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HEADERS_KEPT = ("Allow", "Retry-After", "Content-Range")
_NO_ACCESS_LOG: dict[str, Any] = {"access_log": None}
_log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What a caller does next; `entice` turns each into its exit code."""

    NOT_FOUND = "not_found"
    INTEGRITY = "integrity"
    DENIED = "denied"
    NO_SPACE = "no_space"
    TEMPORARY = "temporary"
    USAGE = "usage"
    FAILED = "failed"


STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.INTEGRITY: 422,
    Kind.DENIED: 403,
    Kind.NO_SPACE: 507,
    Kind.TEMPORARY: 503,
    Kind.USAGE: 400,
    Kind.FAILED: 409,
}
"""The HTTP status of each kind, where HTTP itself has no closer one (405, 413, ...)."""

TITLES = {
    Kind.NOT_FOUND: "Not found",
    Kind.INTEGRITY: "Bytes or keys are not what they should be",
    Kind.DENIED: "Not allowed",
    Kind.NO_SPACE: "No space left",
    Kind.TEMPORARY: "Not now; asking again may help",
    Kind.USAGE: "The request itself is wrong",
    Kind.FAILED: "It cannot be done as things are",
}

_KIND_OF_STATUS = {
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.NOT_FOUND,
    408: Kind.TEMPORARY,
    429: Kind.TEMPORARY,
    503: Kind.TEMPORARY,
    507: Kind.NO_SPACE,
}


class UsageError(LocalError):
    """The request itself is wrong: a field, a value, a path."""


@dataclass(frozen=True, slots=True)
class Problem:
    kind: Kind
    detail: str
    status: int

    def document(self) -> dict[str, Any]:
        """The detail is one line, whoever wrote it."""
        line = " ".join("".join(char if char.isprintable() else " " for char in self.detail).split())
        return {
            "type": TYPE_PREFIX + self.kind,
            "title": TITLES[self.kind],
            "status": self.status,
            "detail": line[:PROBLEM_DETAIL_MAX_CHARS] or TITLES[self.kind],
            "kind": self.kind.value,
        }

    def response(self) -> web.Response:
        return web.Response(body=json.dumps(self.document()).encode(), status=self.status, content_type=CONTENT_TYPE)


def kind_of(error: Exception) -> Kind:
    match error:
        case UsageError():
            return Kind.USAGE
        case AbsentError():
            return Kind.NOT_FOUND
        case CorruptError():
            return Kind.INTEGRITY
        case DeniedError():
            return Kind.DENIED
        case NeverFitsError():
            return Kind.FAILED
        case NoSpaceError():
            return Kind.NO_SPACE
        case ExhaustedError() | TimeoutError():
            return Kind.TEMPORARY
        case _:
            return Kind.FAILED


def problem_of(error: Exception) -> Problem:
    """What to answer for an error. One that is not of ours is a bug: it is logged, and its text stays here."""
    if isinstance(error, EnticedError):
        kind = kind_of(error)
        return Problem(kind, str(error), 429 if isinstance(error, QuotaError) else STATUS[kind])
    if isinstance(error, TimeoutError):
        return Problem(Kind.TEMPORARY, "it took too long", STATUS[Kind.TEMPORARY])
    _log.error("a request failed for a reason that nobody foresaw", exc_info=error)
    return Problem(Kind.FAILED, "internal error; the daemon's log says more", 500)


@web.middleware
async def tell_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware of every application: whatever goes wrong in a request is told as a problem."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _response_of_http(request, error)
    except ConnectionError:
        raise  # the client is gone: nobody to tell
    except Exception as error:  # noqa: BLE001 - a client is always told, and a bug is logged
        return problem_of(error).response()


def _response_of_http(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    """What the router or the HTTP library refused, or a handler in HTTP's own words."""
    said = error.text if error.text != f"{error.status}: {error.reason}" else None
    detail = said or f"{request.method} {request.rel_url.raw_path}: {error.reason}"
    response = Problem(_kind_of_status(error.status), detail, error.status).response()
    response.headers.update({name: error.headers[name] for name in _HEADERS_KEPT if name in error.headers})
    return response


def _kind_of_status(status: int) -> Kind:
    return _KIND_OF_STATUS.get(status, Kind.USAGE if status < 500 else Kind.FAILED)


async def read_body(request: web.Request, timeout_s: float) -> bytes:
    """The body of a request; 408 if it does not come in time, 413 beyond the application's limit."""
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="the request did not come in time") from error


class ProblemHandler(web.RequestHandler):
    """One connection of a server. What is no HTTP at all, and so never reaches an application, is a problem too."""

    def __init__(self, server: web.Server, keepalive_s: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, keepalive_timeout=keepalive_s, auto_decompress=False, **_NO_ACCESS_LOG)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # before the application's middlewares, as an unknown Expect is
            resp = _response_of_http(request, resp)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is out: that it ends here must not look like its end")
        # Anybody can send what is no HTTP: at this level it fills no log.
        _log.log(logging.DEBUG if status < 500 else logging.ERROR, "no request from %s", request.remote, exc_info=exc)
        detail = "not an HTTP request that this server takes" if status == 400 else HTTPStatus(status).phrase
        response = Problem(_kind_of_status(status), detail, status).response()
        response.force_close()
        return response
