"""An origin that speaks HTTP: a web server's folder, or a bucket by signed addresses.

Redirects are not followed, encodings not undone, proxies of the environment not used: what is asked is what the
configuration names. Addresses never stand in an error or a log: those of a bucket are signed.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as TooSlow

from enticed.limits import (
    ORIGIN_CONNECT_TIMEOUT_S,
    ORIGIN_ERROR_MAX_SIZE_BYTES,
    ORIGIN_OBJECT_TIMEOUT_S,
    ORIGIN_READ_SIZE_BYTES,
    ORIGIN_SILENT_S,
    ORIGIN_THREADS_COUNT,
)
from enticed.origin.errors import ObjectAbsentError, OriginFaultError, OriginLostError

_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(?:\d{1,20}|\*)")
_ABSENT = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}

Response = urllib3.BaseHTTPResponse

# It would log every address, signature and all.
logging.getLogger("urllib3").setLevel(logging.INFO)


class WebOrigin:
    """label: the prefix, for people. address_of: where to ask for an object of a name; may raise as reading does."""

    def __init__(self, label: str, address_of: Callable[[str], str], silent_s: float = ORIGIN_SILENT_S) -> None:
        self._label = label
        self._address_of = address_of
        self._pool = urllib3.PoolManager(
            num_pools=2,
            maxsize=ORIGIN_THREADS_COUNT,
            retries=False,
            timeout=urllib3.Timeout(connect=ORIGIN_CONNECT_TIMEOUT_S, read=silent_s),
            ssl_context=ssl.create_default_context(),
            headers={"Accept-Encoding": "identity", "User-Agent": "enticed"},
        )

    @property
    def label(self) -> str:
        return self._label

    def read(self, name: str, most_bytes: int) -> bytes:
        deadline = time.monotonic() + ORIGIN_OBJECT_TIMEOUT_S
        response = self._get(name, {}, HTTPStatus.OK)
        try:
            data = bytearray()
            while chunk := _read(response, self._label, min(ORIGIN_READ_SIZE_BYTES, most_bytes + 1 - len(data))):
                data += chunk
                if len(data) > most_bytes:
                    raise OriginFaultError(f"{self._label} has a {name} of more than {most_bytes} bytes")
                if time.monotonic() > deadline:
                    raise OriginLostError(f"{self._label} is too slow: {name} has not come in time")
            return bytes(data)
        finally:
            _end(response)

    def open(self, name: str, offset_bytes: int, size_bytes: int) -> WebStream:
        last = offset_bytes + size_bytes - 1
        response = self._get(name, {"Range": f"bytes={offset_bytes}-{last}"}, HTTPStatus.PARTIAL_CONTENT)
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or (int(found[1]), int(found[2])) != (offset_bytes, last):
            _end(response)
            raise OriginFaultError(f"{self._label} answers with another range of {name} than was asked for")
        return WebStream(response, self._label)

    def close(self) -> None:
        self._pool.clear()

    def _get(self, name: str, headers: dict[str, str], expected: HTTPStatus) -> Response:
        address = self._address_of(name)
        asked = {**self._pool.headers, **headers}
        try:
            response = self._pool.request(
                "GET", address, headers=asked, redirect=False, preload_content=False, decode_content=False
            )
        except HTTPError as error:
            raise self._lost(error) from error
        if response.status == expected and "Content-Encoding" not in response.headers:
            return response
        try:
            raise self._refusal(name, response)
        finally:
            _end(response)

    def _lost(self, error: HTTPError) -> OriginLostError | OriginFaultError:
        match error:
            case NameResolutionError():
                return OriginLostError(f"{self._label}: its host's name cannot be resolved")
            case NewConnectionError():
                return OriginLostError(f"{self._label}: no connection can be made to it")
            case TooSlow():
                return OriginLostError(f"{self._label} does not answer in time")
            case SSLError():
                # What OpenSSL says names no address.
                return OriginFaultError(f"{self._label}: no TLS with it: {error}")
            case _:
                return OriginLostError(f"{self._label} breaks the connection off")

    def _refusal(self, name: str, response: Response) -> Exception:
        status = response.status
        what = f"{self._label}: {name}: HTTP status {status}"
        code = _CODE.search(_error_text(response))
        if code:
            what += f" ({code[1].decode()})"
        if status in _ABSENT:
            return ObjectAbsentError(f"{self._label} has no {name}" + (f" ({code[1].decode()})" if code else ""))
        if status in _DENIED:
            return ObjectAbsentError(f"{what}: absent, or this host may not read it: check the origin's credentials")
        if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return OriginLostError(what)
        if status in range(300, 400):
            return OriginFaultError(f"{what}: a redirect is not followed: let `origin` name where it leads")
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return OriginFaultError(f"{self._label} has a {name} that is shorter than the image")
        if status == HTTPStatus.OK and "Content-Encoding" in response.headers:
            return OriginFaultError(f"{self._label} sends {name} encoded: let it send files as they are")
        if status == HTTPStatus.OK:
            return OriginFaultError(f"{self._label} sends all of {name} for a range of it: it must serve ranges")
        return OriginFaultError(what)


class WebStream:
    """`Stream` of a response."""

    def __init__(self, response: Response, label: str) -> None:
        self._response = response
        self._label = label
        self._interrupted = False

    def fill(self, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            if self._interrupted:
                raise OriginLostError("given up")
            chunk = _read(self._response, self._label, min(ORIGIN_READ_SIZE_BYTES, len(view) - filled))
            if not chunk:
                raise OriginLostError(f"{self._label} breaks off in the middle of a range")
            view[filled : filled + len(chunk)] = chunk
            filled += len(chunk)

    def interrupt(self) -> None:
        self._interrupted = True
        if isinstance(self._response, urllib3.HTTPResponse):
            try:
                self._response.shutdown()
            except (OSError, ValueError, RuntimeError):
                pass  # it has ended already

    def close(self) -> None:
        _end(self._response)


def _read(response: Response, label: str, size_bytes: int) -> bytes:
    """Up to so many bytes, none at the end."""
    try:
        return response.read(size_bytes)
    except TooSlow as error:
        raise OriginLostError(f"{label} has stopped sending") from error
    except (HTTPError, OSError, ValueError) as error:
        raise OriginLostError(f"{label} breaks the connection off") from error


def _error_text(response: Response) -> bytes:
    try:
        return response.read(ORIGIN_ERROR_MAX_SIZE_BYTES)
    except (HTTPError, OSError, ValueError):
        return b""


def _end(response: Response) -> None:
    """Close the connection: there may be any amount to come. One that all was read of is back in the pool already."""
    response.close()
    response.release_conn()
