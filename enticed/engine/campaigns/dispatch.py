"""Dispatch: orders that this host places on others, and those that others place on it, as one part of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from enticed.core.vocabulary import Contact
from enticed.engine.campaigns.campaigning import Campaigning
from enticed.engine.campaigns.meetings import Meetings
from enticed.engine.campaigns.reception import Reception
from enticed.engine.campaigns.roster import Roster
from enticed.engine.driver import Driver
from enticed.engine.ledger import OrderLedger
from enticed.engine.names.naming import Naming
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.threads import StoreThreads
from enticed.engine.views import Views
from enticed.identity.host import HostIdentity
from enticed.overlay.port import Overlay
from enticed.store.store import Store
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, PeerUp, Said
from protocol.identifiers import NodeId
from protocol.messages import CancelOrder, OrderNews, PlaceOrder


class Dispatch:
    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        ledger: OrderLedger,
        stockroom: Stockroom,
        naming: Naming,
        overlay: Overlay,
        network: PeerNetwork,
        identity: HostIdentity,
        clock: Callable[[], float],
    ) -> None:
        self._network = network
        self._me = identity.node
        self._bootstrap = identity.bootstrap
        credential = identity.credential
        contact = Contact(identity.node, network.advertised, credential.zone, credential.rack)
        self._roster = Roster(overlay, identity, contact)
        self._meetings = Meetings(network, self._roster, credential)
        self.campaigns = Campaigning(store, threads, naming, self._roster, self._meetings, credential, self._say, clock)
        views = Views(driver.host, store, stockroom, naming)
        self._reception = Reception(driver, ledger, views, credential, self._say)

    async def reach(self, node: NodeId, addresses: tuple[str, ...] | None = None) -> PeerUp:
        """A session with this host, at these addresses if any are given. `AbsentError` where there can be none now."""
        return await self._meetings.reach(node, addresses, otherwise=self._bootstrap)

    def start(self) -> None:
        self._roster.start()
        self._reception.start()
        self.campaigns.start()

    async def close(self) -> None:
        await self.campaigns.close()
        await self._reception.close()

    def network_event(self, event: Event) -> None:
        # Who is there is noted before anybody acts on it.
        self._meetings.network_event(event)
        self._reception.network_event(event)
        self.campaigns.network_event(event)

    def _say(self, node: NodeId, message: Said) -> None:
        """Tell another host, or this one itself: its own campaigns order on it as on any other."""
        if node != self._me:
            self._network.send(node, message)
            return
        loop = asyncio.get_running_loop()
        match message:
            case PlaceOrder():
                loop.call_soon(self._reception.place, node, message)
            case CancelOrder(key):
                loop.call_soon(self._reception.cancel, node, key)
            case OrderNews():
                loop.call_soon(self.campaigns.heard, node, message)
