"""What becomes of received bytes: fragments are verified and written, a part of a manifest is kept."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Generic, TypeVar

from enticed.landing import Landing, land
from enticed.transfer.errors import fault_of
from enticed.transfer.stream import Body
from protocol.errors import LocalError
from protocol.limits import REQUEST_MAX_SIZE_BYTES
from protocol.messages import Data, FragmentsRequest, PartRequest
from protocol.session import Question

Result = TypeVar("Result")


class Receiver(ABC, Generic[Result]):
    """Takes the raw bytes of one reply, in the connection's thread."""

    question: Question

    @abstractmethod
    def receive(self, data: Data, body: Body, buffer: memoryview) -> Result:
        """Read the body, or raise; what is left of it is thrown away by the caller.

        `buffer` holds FRAGMENT_MAX_SIZE_BYTES and may be overwritten at will.
        """

    def close(self) -> None:
        """Nothing will be received any more, or all has been; called once."""


class FragmentsReceiver(Receiver[None]):
    """Verifies each fragment as soon as it is whole, and writes it."""

    def __init__(self, request: FragmentsRequest, landing: Landing) -> None:
        count, size_bytes = len(landing.sizes_bytes), landing.size_bytes
        if count != request.count or not 1 <= size_bytes <= REQUEST_MAX_SIZE_BYTES:
            raise LocalError(f"{count} fragments of {size_bytes} bytes for a request of {request.count}")
        self.question = Question(request, size_bytes)
        self.request = request
        try:
            self.landing = replace(landing, fd=os.dup(landing.fd))
        except OSError as error:
            raise fault_of(error) from error

    def receive(self, data: Data, body: Body, buffer: memoryview) -> None:
        """`CorruptFragmentError` or `LandingError`; the fragments before are written then."""
        land(body, self.landing, self.request.first, buffer)

    def close(self) -> None:
        os.close(self.landing.fd)


class PartReceiver(Receiver[tuple[bytes, int]]):
    """Keeps the bytes, and the size of the whole part. Who asked verifies them: only it knows what they are."""

    def __init__(self, request: PartRequest) -> None:
        self.question = Question(request, request.size_bytes)

    def receive(self, data: Data, body: Body, buffer: memoryview) -> tuple[bytes, int]:
        part = bytearray(data.size_bytes)
        body.fill(memoryview(part))
        return bytes(part), data.total_bytes
