"""What others say of this host's own membership, while none of them answers it.

Nobody answers the datagrams of a host that was revoked, and whoever has no session with it hands it no trust bundle:
it would only seem to be alone. Whoever it connects to tells it so. That is anybody's word and no proof: it is said to
people, and changes nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from random import Random

from enticed.limits import STANDING_ASKED_AT_ONCE_COUNT, STANDING_ASKED_FIRST_S, STANDING_ASKED_LAST_S
from enticed.overlay.udp import UdpOverlay
from enticed.transfer.network import PeerNetwork
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError


class Standing:
    """Everything belongs to the event loop."""

    def __init__(self, network: PeerNetwork, overlay: UdpOverlay) -> None:
        self._network = network
        self._overlay = overlay
        self._dice = Random(secrets.randbits(64))
        self._tasks = Tasks()

    @property
    def disowned(self) -> str:
        """Who says that this host was revoked, in a line for people; empty while nobody does."""
        disowned_by = self._network.disowned_by
        if not disowned_by:
            return ""
        others = f" (and {len(disowned_by) - 1} more)" * (len(disowned_by) > 1)
        return f"host {disowned_by[0].short}{others} says that this host was revoked"

    def start(self) -> None:
        self._tasks.spawn(self._go_round(), "standing")

    async def close(self) -> None:
        await self._tasks.close()

    async def hear(self, count: int) -> None:
        """Where nobody answers this host's datagrams, connect to so many of those that may be there, and hear whether
        they take it for a member."""
        if not self._is_alone:
            return
        own = {*self._network.advertised, *self._network.listening}
        others = [address for address in self._overlay.elsewhere if address not in own]
        asked = self._dice.sample(others, min(count, len(others)))
        greetings = (self._network.greet(address) for address in asked)
        for error in await asyncio.gather(*greetings, return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, EnticedError):
                raise error

    @property
    def _is_alone(self) -> bool:
        return not self._overlay.contacts and not self._network.peers()

    async def _go_round(self) -> None:
        """Soon once it is alone, then ever more rarely: maybe UDP is blocked on all hosts, and all ask the same."""
        pause_s = STANDING_ASKED_FIRST_S
        while True:
            await asyncio.sleep(pause_s * self._dice.uniform(0.5, 1.5))
            if self._is_alone:
                await self.hear(STANDING_ASKED_AT_ONCE_COUNT)
                pause_s = min(2 * pause_s, STANDING_ASKED_LAST_S)
            else:
                pause_s = STANDING_ASKED_FIRST_S
