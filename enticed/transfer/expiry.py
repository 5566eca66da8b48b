"""A connection ends when the certificate does that its peer has shown on it: who is not renewed has nothing more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from enticed.transfer.limits import EXPIRY_CHECK_S, EXPIRY_RESOLUTION_S
from protocol.credentials import NodeCredential

log = logging.getLogger(__name__)
EXPIRED = "the certificate of this connection has expired: meet again"


class Expiry:
    """Calls `end` on the loop, once, when the clock is past a certificate's time; never if `ended` is done before.

    clock: unix time, the one by which the certificate was judged when it was shown. A peer that was renewed meanwhile
    shows its new certificate on its next connection.
    """

    def __init__(
        self,
        credential: NodeCredential,
        clock: Callable[[], float],
        end: Callable[[], None],
        ended: asyncio.Future[Any],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._credential = credential
        self._clock = clock
        self._end = end
        self._arm()
        ended.add_done_callback(lambda _: self._timer.cancel())

    def _arm(self) -> None:
        # Looked at from time to time all the same: the clock may be set, and the loop's own stands still in a sleep.
        left_s = max(0.0, self._credential.not_after - self._clock())
        self._timer = self._loop.call_later(min(left_s + EXPIRY_RESOLUTION_S, EXPIRY_CHECK_S), self._look)

    def _look(self) -> None:
        if not self._credential.has_expired(self._clock()):
            self._arm()
            return
        node = self._credential.node
        log.info("host %s: a connection ends with its certificate", node.short, extra={"peer": node})
        self._end()
