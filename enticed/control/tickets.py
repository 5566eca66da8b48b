"""Tickets: what stands for a descriptor between its handover and the request that uses it."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass

from enticed.control.beside import begin
from enticed.limits import HANDOFF_TICKET_LIFETIME_S, HANDOFF_TICKETS_MAX_COUNT
from enticed.problems import UsageError
from protocol.errors import ExhaustedError

TICKET_SIZE_BYTES = 24


@dataclass(frozen=True, slots=True)
class _Held:
    fd: int
    uid: int
    expiry: asyncio.TimerHandle


class Tickets:
    """Descriptors that were handed over and not asked for yet. Each belongs to this until it is redeemed, once, by a
    process of the user who handed it over; it is closed after HANDOFF_TICKET_LIFETIME_S, and by `close`.

    Belongs to one event loop, on which all its methods are called.
    """

    def __init__(self, lifetime_s: float = HANDOFF_TICKET_LIFETIME_S) -> None:
        self.lifetime_s = lifetime_s
        self._held: dict[str, _Held] = {}

    def issue(self, fd: int, uid: int) -> str:
        """A ticket for `fd`, which is this object's from now on. `ExhaustedError` if too many are out: it is closed."""
        if len(self._held) >= HANDOFF_TICKETS_MAX_COUNT:
            begin(os.close, fd)
            raise ExhaustedError("too many files were handed over and not asked for: try again in a while")
        ticket = secrets.token_urlsafe(TICKET_SIZE_BYTES)
        expiry = asyncio.get_running_loop().call_later(self.lifetime_s, self._drop, ticket)
        self._held[ticket] = _Held(fd, uid, expiry)
        return ticket

    def redeem(self, ticket: str, uid: int) -> int:
        """The descriptor, the caller's from now on. `UsageError` for a ticket used, expired, or of another user."""
        held = self._held.get(ticket)
        if held is None or held.uid != uid:
            raise UsageError("no such ticket: it was used, has expired, or is another user's")
        held.expiry.cancel()
        del self._held[ticket]
        return held.fd

    def close(self) -> None:
        for ticket in list(self._held):
            self._drop(ticket)

    def _drop(self, ticket: str) -> None:
        held = self._held.pop(ticket)
        held.expiry.cancel()
        begin(os.close, held.fd)
