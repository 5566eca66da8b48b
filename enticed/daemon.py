"""The composition root: builds every part of the daemon in a straight line, and takes them down in reverse."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_address
from typing import Protocol, TypeVar

import numpy as np

from enticed.config import NEVER, Config, api_address
from enticed.control.loopback import LoopbackServer
from enticed.control.server import ControlServer
from enticed.core import events as ev
from enticed.core.host import Host
from enticed.core.orders import OrderState
from enticed.core.vocabulary import Contact
from enticed.engine.campaigns.dispatch import Dispatch
from enticed.engine.clock import SteadyClock
from enticed.engine.driver import Driver
from enticed.engine.engine import DaemonEngine
from enticed.engine.lag import LagMeter
from enticed.engine.ledger import OrderLedger
from enticed.engine.names.cosigning import Cosigning
from enticed.engine.names.naming import Naming
from enticed.engine.names.signing_anew import SigningAnew
from enticed.engine.parts import Parts
from enticed.engine.planning import Planning
from enticed.engine.profiles import Profiles
from enticed.engine.publishing import Publishing
from enticed.engine.reading import Reading
from enticed.engine.retention.floor_exchange import FloorExchange
from enticed.engine.retention.floor_keeping import FloorKeeping
from enticed.engine.retention.keeping import Keeping, terms_of
from enticed.engine.retention.proving import Proving
from enticed.engine.retention.removal import Removal
from enticed.engine.stock.caretaker import Caretaker
from enticed.engine.stock.scrubbing import Scrubber
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.addresses import StoredAddresses
from enticed.engine.supply.discovery import Discovery
from enticed.engine.supply.kinship import Kinship
from enticed.engine.supply.origin_supply import OriginSupply
from enticed.engine.supply.purchasing import Purchasing
from enticed.engine.supply.switchboard import Switchboard
from enticed.engine.supply.warehouse import PeerWarehouse
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.groups import Belonging, Groups
from enticed.engine.trust.recalls import Recalls
from enticed.engine.trust.standing import Standing
from enticed.engine.trust.trust_desk import TrustDesk
from enticed.gateway.server import ApiServer
from enticed.host_address import own_address
from enticed.identity.authority import Authority
from enticed.identity.groups import load_groups
from enticed.identity.host import HostIdentity, is_founder, load_identity
from enticed.identity.publisher import Publisher, load_publisher
from enticed.limits import STATUS_INTERVAL_S
from enticed.notify import Notifier
from enticed.operating.live_settings import LiveSettings
from enticed.operating.operations import DaemonOperations
from enticed.operating.watching import WatchingServer
from enticed.origin.prefix import parse_prefix
from enticed.origin.retry import PatientOrigin
from enticed.origin.schemes import open_origin
from enticed.overlay.udp import UdpOverlay
from enticed.pace import Pace, Paces
from enticed.store.store import Store
from enticed.transfer.network import PeerNetwork
from enticed.transfer.tasks import Tasks
from protocol.addresses import join_address, split_address
from protocol.errors import EnticedError, LocalError
from protocol.messages import COSIGNING, FLOORS, GROUPS, ORDERS, RECALLS, TRUST

log = logging.getLogger("enticed")


class Part(Protocol):
    async def close(self) -> None: ...


PartT = TypeVar("PartT", bound=Part)


async def run(settings: LiveSettings, notifier: Notifier) -> None:
    """Run a daemon until SIGTERM or SIGINT; SIGHUP has it read its configuration again.

    Raises `EnticedError` where it cannot start.
    """
    stop = asyncio.Event()
    broken: list[Exception] = []

    def give_up(error: Exception) -> None:
        broken.append(error)
        stop.set()

    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be followed
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        engine = await start(settings, stack, give_up)
        status = engine.status()
        log.info("node %s is ready, listening on %s", status.node, ", ".join(status.listen))
        notifier.ready(f"{status.images} images, listening on {', '.join(status.listen)}")
        tasks = Tasks()
        tasks.spawn(_feed_watchdog(notifier, engine), "watchdog")
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.spawn(_reload(settings), "reload"))
        await stop.wait()
        loop.remove_signal_handler(signal.SIGHUP)
        await tasks.close()
        log.info("stopping")
        notifier.stopping("leaving the swarm")
    if broken:  # the service manager starts it again, from what is durable
        raise LocalError(f"stopped because of a bug: {broken[0]!r}") from broken[0]


async def start(
    settings: LiveSettings, stack: AsyncExitStack, on_broken: Callable[[Exception], None] | None = None
) -> DaemonEngine:
    """Build and start every part; `stack` owns them and takes them down. `on_broken`: as of `Driver`."""
    config, clock = settings.config, SteadyClock()
    identity, authority, publisher = _enrolled(config, clock)

    def owned(part: PartT) -> PartT:
        stack.push_async_callback(part.close)
        return part

    store = _open_store(config, clock, stack)
    paces = owned(Paces())
    origin = owned(_origin(config, paces.down))
    groups = Groups(load_groups(config.state_dir), identity.node)
    driver = Driver(_host(identity, origin, groups), clock, on_broken)
    threads = owned(StoreThreads())
    stockroom = owned(Stockroom(driver, store, threads, identity, paces.write))
    ledger = owned(OrderLedger(driver, store, threads))
    caretaker = owned(Caretaker(driver, store, threads, ledger))
    warehouse = PeerWarehouse(driver, stockroom)

    # Peers: one port, TCP for data and UDP for discovery.
    switchboard = Switchboard()
    network = owned(await _network(config, identity, warehouse, switchboard, clock, paces))
    overlay = owned(await _overlay(config, identity, network, owned(StoredAddresses(store, threads)), clock))
    purchasing = owned(Purchasing(driver, network, stockroom, origin, identity))
    owned(Kinship(driver, purchasing, stockroom, threads))
    discovery = owned(Discovery(driver, overlay, groups, identity.credential.zone, identity.credential.rack))
    standing = owned(Standing(network, overlay))
    naming = owned(Naming(driver, store, threads, overlay, origin, identity, standing, authority, publisher, clock))
    publishing = Publishing(driver, store, stockroom, discovery, naming, publisher, groups)
    planning = Planning(driver, store, threads, purchasing, discovery, network, origin, identity.credential)
    scrubber = owned(Scrubber(driver, store, stockroom, planning))
    profiles = owned(Profiles(driver, stockroom, threads, purchasing, identity, publisher, clock))
    reading = owned(Reading(driver, stockroom, naming, profiles, clock))
    recalls = owned(Recalls(driver, store, threads, ledger, overlay, network, identity, publisher, groups, stockroom))
    dispatch = owned(Dispatch(driver, store, threads, ledger, stockroom, naming, overlay, network, identity, clock))
    removal = Removal(driver, store, threads, stockroom, scrubber, recalls, overlay, groups)
    proving = Proving(driver, network, stockroom, removal.census, dispatch.reach)
    floors = FloorKeeping(driver, store, threads, stockroom, naming, overlay, proving, identity, publisher)
    keeping = owned(Keeping(driver, store, threads, stockroom, ledger, naming, recalls, removal, floors, proving))
    cosigning = owned(Cosigning(
        driver, identity, publisher, naming, stockroom, threads, discovery, purchasing, network, recalls, dispatch.reach
    ))  # fmt: skip
    anew = SigningAnew(publisher, store, stockroom, threads, naming, recalls, floors)
    trust = owned(TrustDesk(identity, authority, publisher, anew, network, overlay, dispatch.reach, threads, clock))

    served_at = list[str]()
    engine = DaemonEngine(Parts(
        identity=identity, authority=authority, api_addresses=lambda: tuple(served_at), clock=clock, driver=driver,
        store=store, threads=threads, stockroom=stockroom, network=network, purchasing=purchasing, removal=removal,
        keeping=keeping, warehouse=warehouse, ledger=ledger, caretaker=caretaker, scrubber=scrubber, naming=naming,
        publishing=publishing, planning=planning, reading=reading, dispatch=dispatch, recalls=recalls,
        lag=LagMeter(), overlay=overlay, origin=origin, trust=trust, standing=standing, cosigning=cosigning,
    ))  # fmt: skip
    served_at += await _serve(settings, engine, stack)
    _keep_pace(settings, paces, driver)
    _let_run(stack, engine.parts, switchboard, Belonging(driver, network, groups), discovery)
    return engine


def _let_run(
    stack: AsyncExitStack, parts: Parts, switchboard: Switchboard, belonging: Belonging, discovery: Discovery
) -> None:
    """Everything stands. Peers are heard only now, so that those who came early do not hear that nothing is here."""
    _take_up(parts.driver, parts.store, parts.stockroom, parts.ledger, parts.recalls)
    tasks = Tasks()
    stack.push_async_callback(tasks.close)
    tasks.spawn(parts.lag.run(), "lag meter")
    stack.callback(parts.driver.close)
    listeners = (
        belonging, parts.purchasing, parts.planning, parts.recalls, parts.dispatch, parts.cosigning, parts.trust,
        FloorExchange(parts.network, parts.keeping.floors, tasks),
    )  # fmt: skip
    switchboard.connect(*(one.network_event for one in listeners))
    starting = (
        parts.stockroom, parts.caretaker, parts.keeping, parts.scrubber, discovery, parts.naming, parts.reading,
        parts.origin, parts.recalls, parts.dispatch, parts.trust, parts.standing,
    )  # fmt: skip
    for part in starting:
        part.start()


async def _serve(settings: LiveSettings, engine: DaemonEngine, stack: AsyncExitStack) -> tuple[str, ...]:
    """Serve those on this host, and those far away where that is wanted; the addresses at which they reach it."""
    config, parts = settings.config, engine.parts
    served_at = await _start_api(config, engine, stack)
    operations = DaemonOperations(engine, parts, settings)
    control = ControlServer(engine, operations, config.socket, config.socket_group)
    stack.push_async_callback(control.close)
    await control.start()
    if config.metrics_listen:
        watching = WatchingServer(operations, *split_address(config.metrics_listen, any_port=True))
        stack.push_async_callback(watching.close)
        await watching.start()
    if config.content_listen:
        loopback = LoopbackServer(engine, *split_address(config.content_listen, any_port=True))
        stack.push_async_callback(loopback.close)
        await loopback.start()
    _follow(settings, parts, control)
    return served_at


def _follow(settings: LiveSettings, parts: Parts, control: ControlServer) -> None:
    """What is taken up without a restart when the configuration changes."""
    store, keeping = parts.store, parts.keeping
    keeping.limit(terms_of(settings.config))
    kept_by = ("store.high_percent", "store.low_percent", "store.guest_directories")
    settings.on_change(lambda config: keeping.limit(terms_of(config)), *kept_by)
    settings.on_change(lambda config: logging.getLogger().setLevel(config.log_level.upper()), "log_level")
    settings.on_change(lambda config: control.let(config.socket_group), "socket_group")
    settings.on_change(
        lambda config: store.limit(config.quota_bytes, config.reserve_bytes), "store.quota_bytes", "store.reserve_bytes"
    )


def _keep_pace(settings: LiveSettings, paces: Paces, driver: Driver) -> None:
    """Limit rates as the configuration says, now and whenever it says something else."""

    def limit(config: Config) -> None:
        paces.up.limit(config.up_bytes_per_s)
        paces.down.limit(config.down_bytes_per_s)
        paces.write.limit(config.write_bytes_per_s)
        slowest = min((rate for rate in (config.down_bytes_per_s, config.write_bytes_per_s) if rate), default=None)
        driver.tell(ev.RatesLimited(config.up_bytes_per_s, slowest))

    limit(settings.config)
    settings.on_change(limit, "rates.up_bytes_per_s", "rates.down_bytes_per_s", "rates.write_bytes_per_s")


async def _reload(settings: LiveSettings) -> None:
    """What SIGHUP asks for; nobody but the log hears what came of it."""
    try:
        await settings.reload()
    except LocalError as error:
        log.error("%s", error)


def _enrolled(config: Config, clock: SteadyClock) -> tuple[HostIdentity, Authority | None, Publisher | None]:
    """Who this host is; on the host that founded the cluster, its CA; and a publisher's key, where there is one.

    Raises as `load_identity` does, and `DeniedError` where no peer would accept this host now.
    """
    identity = load_identity(config.state_dir)
    identity.require_valid(clock())
    authority = Authority.load(config.state_dir, clock, identity) if is_founder(config.state_dir) else None
    return identity, authority, load_publisher(config.state_dir)


def _open_store(config: Config, clock: SteadyClock, stack: AsyncExitStack) -> Store:
    store = Store.open(config.state_dir, config.quota_bytes, config.reserve_bytes, clock)
    stack.callback(store.close)
    for trouble in store.troubles:
        log.warning("%s", trouble)
    return store


def _origin(config: Config, down: Pace) -> OriginSupply:
    """`LocalError` where an origin is configured that cannot be used."""
    if config.origin is None or config.origin == NEVER:
        return OriginSupply(None)
    return OriginSupply(PatientOrigin(open_origin(parse_prefix(config.origin), config.origin_endpoint)), down)


def _host(identity: HostIdentity, origin: OriginSupply, groups: Groups) -> Host:
    me = Contact(identity.node, (), identity.credential.zone, identity.credential.rack)
    return Host(me, _dice(), has_origin=origin.is_there, groups=groups.ids)


def _dice() -> np.random.Generator:
    """The seed is logged: with it and what happened, a decision can be followed again."""
    seed = secrets.randbits(64)
    log.debug("dice are seeded with %d", seed)
    return np.random.default_rng(seed)


async def _network(
    config: Config,
    identity: HostIdentity,
    warehouse: PeerWarehouse,
    switchboard: Switchboard,
    clock: SteadyClock,
    paces: Paces,
) -> PeerNetwork:
    """Listening already; `LocalError` where that is not possible."""
    network = PeerNetwork(
        identity,
        listen=config.listen,
        warehouse=warehouse,
        on_event=switchboard.network_event,
        advertise=_advertised(config),
        dial_networks=config.dial_networks,
        capabilities=(COSIGNING, FLOORS, GROUPS, ORDERS, RECALLS, TRUST),
        clock=clock,
        paces=paces,
        lower_effort=config.lower_effort,
    )
    await network.start()
    return network


async def _overlay(
    config: Config, identity: HostIdentity, network: PeerNetwork, memory: StoredAddresses, clock: SteadyClock
) -> UdpOverlay:
    """Listening already, and looking for others; `LocalError` where that is not possible."""
    overlay = UdpOverlay(
        identity,
        listen=network.listening,
        advertise=network.advertised,
        bootstrap=(*config.bootstrap, *identity.bootstrap),
        memory=memory,
        dial_networks=config.dial_networks,
        clock=clock,
    )
    await overlay.start()
    return overlay


def _take_up(driver: Driver, store: Store, stockroom: Stockroom, ledger: OrderLedger, recalls: Recalls) -> None:
    """Tell the core what was here before: what is recalled, images, then the orders that were not cancelled. What
    follows is saved."""
    ledger.start()
    recalls.take_up()
    for stored in store.images():
        stockroom.tell_on_hand(stored)
    for order in store.orders():
        if order.state is not OrderState.CANCELLED:
            driver.tell(ev.OrderPlaced(order))


async def _start_api(config: Config, engine: DaemonEngine, stack: AsyncExitStack) -> tuple[str, ...]:
    """Serve the HTTPS API where the configuration wants it; the addresses at which others reach it."""
    parts, network = engine.parts, engine.parts.network
    address = api_address(config, parts.authority is not None)
    if address is None:
        return ()
    host, port = address
    api = ApiServer(parts.identity, host, port, parts.authority, network.advertised, engine, parts.clock)
    await api.start()
    stack.push_async_callback(api.close)
    return tuple(join_address(split_address(one)[0], api.port) for one in network.advertised)


async def _feed_watchdog(notifier: Notifier, engine: DaemonEngine) -> None:
    """From the event loop itself: a loop that hangs starves the watchdog, and the service manager restarts us."""
    while True:
        await asyncio.sleep(notifier.watchdog_interval_s or STATUS_INTERVAL_S)
        notifier.alive()
        with suppress(EnticedError, OSError):  # a disk that fails, or no descriptor left, is told elsewhere
            status = engine.status()
            notifier.status(f"{status.images} images, {status.peers} peers, {status.uploads} uploads")


def _advertised(config: Config) -> tuple[str, ...]:
    """What others are told to dial: as configured, else what is listened on, a wildcard being this host's own address.

    `LocalError` where a wildcard is listened on and the host has no address that leads anywhere.
    """
    if config.advertise:
        return config.advertise
    addresses: list[str] = []
    for listen in config.listen:
        host, port = split_address(listen, any_port=True)
        if ip_address(host).is_unspecified:
            own = own_address(socket.AF_INET6 if ":" in host else socket.AF_INET)
            if own is None:
                raise LocalError(
                    f"{listen} is a wildcard and this host has no route: set `advertise` for others to dial"
                )
            host = own
        addresses.append(join_address(host, port))
    # A port that the system chooses is known only to the listener, who then tells what it listens on.
    return () if any(address.endswith(":0") for address in addresses) else tuple(addresses)
