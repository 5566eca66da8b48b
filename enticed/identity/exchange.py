"""One HTTPS request at a time, blocking, each on a connection of its own, all within one deadline.

For `entice join`, which runs before there is a daemon, and must look at the other end's certificate between the
handshake and the first byte of its request. Nothing is followed, decoded or kept open.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message

from enticed.limits import JOIN_ANSWER_MAX_SIZE_BYTES
from protocol.errors import AbsentError, DeniedError, ExhaustedError, LocalError, MalformedError, RemoteError
from protocol.limits import REASON_MAX_CHARS

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) [^\r\n]*\r\n")
_NOT_YET_VALID, _EXPIRED = 9, 10
"""OpenSSL's verify codes."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    def error_text(self) -> str:
        """What the answer, a problem document, says went wrong, in one line that is safe to print whoever sent it."""
        try:
            text = json.loads(self.body)["detail"]
        except (ValueError, TypeError, KeyError, RecursionError):
            text = None
        if not isinstance(text, str) or not text:
            return "no reason given"
        return "".join(char if char.isprintable() else "?" for char in text[:REASON_MAX_CHARS])


class Exchange:
    """Requests to one address (`host:port`, as printed; and as sockets take it) before one deadline."""

    def __init__(self, address: str, endpoint: tuple[str, int], timeout_s: float) -> None:
        self.address = address
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def ask(
        self,
        context: ssl.SSLContext,
        method: str,
        path: str,
        body: bytes = b"",
        check: Callable[[ssl.SSLSocket], None] | None = None,
    ) -> Answer:
        """Send one request and read its answer; `check` may refuse the other end before anything is sent.

        `AbsentError` if nobody answers, `ExhaustedError` at the deadline, `DeniedError` if `context` does not trust
        the other end, `LocalError` if that is for want of a right clock, `MalformedError` for what is no answer.
        """
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.address}\r\nConnection: close\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        try:
            with socket.create_connection(self._endpoint, self._left_s()) as plain:
                plain.settimeout(self._left_s())
                with context.wrap_socket(plain) as tls:
                    if check is not None:
                        check(tls)
                    return _parse(self._converse(tls, request))
        except TimeoutError as error:
            raise ExhaustedError(f"no answer from {self.address} within {self._timeout_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise self._distrust(error) from error
        except ssl.SSLError as error:
            raise RemoteError(f"no TLS 1.3 with {self.address}: {error.reason}") from error
        except OSError as error:
            raise AbsentError(f"nobody answers at {self.address}: {error.strerror or error}") from error

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _converse(self, tls: ssl.SSLSocket, request: bytes) -> bytes:
        tls.settimeout(self._left_s())
        tls.sendall(request)
        answer = bytearray()
        while True:
            tls.settimeout(self._left_s())
            part = tls.recv(JOIN_ANSWER_MAX_SIZE_BYTES)
            if not part:
                return bytes(answer)
            answer += part
            if len(answer) > JOIN_ANSWER_MAX_SIZE_BYTES:
                raise MalformedError(f"an answer of more than {JOIN_ANSWER_MAX_SIZE_BYTES} bytes")

    def _distrust(self, error: ssl.SSLCertVerificationError) -> LocalError | DeniedError:
        if error.verify_code == _NOT_YET_VALID:
            return LocalError(f"the certificate of {self.address} is not valid yet: is this host's clock behind?")
        if error.verify_code == _EXPIRED:
            return LocalError(f"the certificate of {self.address} has expired, or this host's clock is ahead")
        return DeniedError(f"the host at {self.address} has no certificate of the cluster's CA")


def _parse(data: bytes) -> Answer:
    stream = io.BytesIO(data)
    line = _STATUS_LINE.fullmatch(stream.readline())
    if line is None:
        raise MalformedError("not an HTTP answer")
    try:
        headers = http.client.parse_headers(stream)
    except http.client.HTTPException as error:
        raise MalformedError("not an HTTP answer") from error
    body = stream.read()
    # The length tells a whole answer from one that was cut off; other framings are not spoken here.
    if headers.get("Content-Length") != str(len(body)) or "Transfer-Encoding" in headers:
        raise MalformedError("an HTTP answer that was cut off")
    return Answer(int(line[1]), headers, body)
