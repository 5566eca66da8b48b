"""Trusting: newer trust bundles are taken from other hosts, written down, gone by, and passed on."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from random import Random

from enticed.core.rumours import Answer, Effect, Fetch, Rumours, Tell
from enticed.engine.threads import StoreThreads
from enticed.identity.host import HostIdentity
from enticed.identity.limits import TRUST_USELESS_MAX_COUNT
from enticed.overlay.udp import UdpOverlay
from enticed.patience import Patience
from enticed.tally import Tally
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import NodeId
from protocol.messages import TRUST, Trust
from protocol.trust import SealedTrust

log = logging.getLogger(__name__)


class Trusting:
    """Everything belongs to the event loop. clock: any that runs evenly."""

    def __init__(
        self,
        identity: HostIdentity,
        network: PeerNetwork,
        overlay: UdpOverlay,
        threads: StoreThreads,
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._network = network
        self._overlay = overlay
        self._threads = threads
        self._clock = clock
        self._rumours = Rumours(identity.trust.serial, Random(secrets.randbits(64)), clock())
        self._takers: dict[NodeId, int] = {}
        """Hosts with a session that take bundles, and the serial of what each has."""
        self._patience = Patience(TRUST_USELESS_MAX_COUNT)
        """With bundles that are none, or no news: two hosts may each tell the other, but to verify one costs time."""
        self._addresses: dict[NodeId, str] = {}
        """Where those sit whose serial was heard last; while it is looked at."""
        self._unsaved = False
        self._not_ours = Tally(log)
        self._tasks = Tasks()

    def start(self) -> None:
        self._overlay.on_trust_serial = self._serial_heard
        self._tasks.spawn(self._go_round(), "trust bundles")

    async def close(self) -> None:
        """What has come and is not written down yet, is."""
        await self._tasks.close()
        if self._unsaved:
            await self._save_or_report()

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, capabilities=capabilities, trust_serial=serial) if TRUST in capabilities:
                self._takers[node] = serial
                self._pass_on(node, self._identity.sealed_trust)
            case PeerDown(node):
                self._takers.pop(node, None)
            case Heard(node, Trust(sealed)):
                self._take_from(node, sealed)

    async def publish(self, sealed: bytes) -> None:
        """Go by a bundle that this host's CA has sealed, once it is written down; `LocalError` if it cannot be."""
        if self._take(sealed):
            await self._save()

    # --- bundles ---

    def _take_from(self, node: NodeId, sealed: bytes) -> None:
        if self._patience.is_out(node):
            self._network.hang_up(node, "trust bundles that are no news")
            return
        try:
            is_newer = self._take(sealed)
        except EnticedError as error:
            self._patience.lose(node)
            self._not_ours.warning("host %s: no trust bundle of ours: %s", node.short, error, extra={"peer": node})
            self._network.hang_up(node, "a trust bundle that the CA has not signed")
            return
        if not is_newer:
            self._patience.lose(node)
            return
        log.info("trust bundle %d, from host %s", self._identity.trust.serial, node.short)
        self._takers[node] = self._identity.trust.serial
        self._tasks.spawn(self._save_or_report(), "save a trust bundle")

    def _take(self, sealed: bytes) -> bool:
        newer = self._identity.newer_trust(sealed)
        if newer is None:
            return False
        # First to those that there is a session with: to go by it may be the end of the session.
        for node in tuple(self._takers):
            self._pass_on(node, newer)
        self._unsaved = True
        self._identity.go_by(newer)
        self._carry_out(self._rumours.has_newer(newer.bundle.serial, self._clock()))
        return True

    def _pass_on(self, node: NodeId, trust: SealedTrust) -> None:
        if self._takers[node] < trust.bundle.serial:
            self._takers[node] = trust.bundle.serial
            self._network.send(node, Trust(trust.sealed))

    async def _save(self) -> None:
        await self._threads.run(self._identity.save_trust)
        self._unsaved = False

    async def _save_or_report(self) -> None:
        try:
            await self._save()
        except EnticedError as error:  # tried again at the next round: until then a restart would forget it
            log.error("the trust bundle cannot be saved: %s", error)

    # --- rumours ---

    def _serial_heard(self, node: NodeId, address: str, serial: int) -> None:
        self._addresses[node] = address
        self._carry_out(self._rumours.heard(node, serial, self._clock()))
        self._addresses.pop(node, None)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            with suppress(LocalError):  # this host is going down, or not up yet: there is a next round
                match effect:
                    case Tell(count):
                        self._overlay.say_trust_serial(count)
                    case Answer(node):
                        self._overlay.answer_trust_serial(node, self._addresses[node])
                    case Fetch(node):
                        self._network.dial(node, (self._addresses[node],))

    async def _go_round(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._rumours.next_deadline() - self._clock()))
            self._carry_out(self._rumours.wake(self._clock()))
            if self._unsaved:
                await self._save_or_report()
