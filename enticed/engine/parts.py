"""The parts that a daemon consists of, as `enticed.daemon` builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from enticed.engine.campaigns.dispatch import Dispatch
from enticed.engine.driver import Driver
from enticed.engine.lag import LagMeter
from enticed.engine.ledger import OrderLedger
from enticed.engine.names.cosigning import Cosigning
from enticed.engine.names.naming import Naming
from enticed.engine.planning import Planning
from enticed.engine.publishing import Publishing
from enticed.engine.reading import Reading
from enticed.engine.retention.keeping import Keeping
from enticed.engine.retention.removal import Removal
from enticed.engine.stock.caretaker import Caretaker
from enticed.engine.stock.scrubbing import Scrubber
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.origin_supply import OriginSupply
from enticed.engine.supply.purchasing import Purchasing
from enticed.engine.supply.warehouse import PeerWarehouse
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.recalls import Recalls
from enticed.engine.trust.standing import Standing
from enticed.engine.trust.trust_desk import TrustDesk
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity
from enticed.overlay.udp import UdpOverlay
from enticed.store.store import Store
from enticed.transfer.network import PeerNetwork


@dataclass(frozen=True, kw_only=True)
class Parts:
    """For the engine, which puts them to use, and for `operating`, which looks at how they do."""

    identity: HostIdentity
    authority: Authority | None
    api_addresses: Callable[[], tuple[str, ...]]
    """Where others reach this host's HTTPS API."""
    clock: Callable[[], float]
    driver: Driver
    store: Store
    threads: StoreThreads
    stockroom: Stockroom
    network: PeerNetwork
    purchasing: Purchasing
    removal: Removal
    keeping: Keeping
    warehouse: PeerWarehouse
    ledger: OrderLedger
    caretaker: Caretaker
    scrubber: Scrubber
    naming: Naming
    publishing: Publishing
    planning: Planning
    reading: Reading
    dispatch: Dispatch
    recalls: Recalls
    lag: LagMeter
    overlay: UdpOverlay
    origin: OriginSupply
    trust: TrustDesk
    standing: Standing
    cosigning: Cosigning
