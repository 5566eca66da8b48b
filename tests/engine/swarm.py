"""A swarm of whole daemons in one process: real stores, real TLS, a real DHT, on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from enticed.config import Config
from enticed.config_sources import Configured, Sources
from enticed.core import effects as ef
from enticed.core.orders import Priority
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms, OrderView, Publication, Published
from enticed.operating.live_settings import LiveSettings
from protocol.limits import BLOCK_SIZE_BYTES, MIB
from tests.clusters import make_cluster

TIMEOUT_S = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, TIMEOUT_S))


def config_of(
    state_dir: Path,
    bootstrap: tuple[str, ...] = (),
    origin: str | None = None,
    *,
    up_bytes_per_s: int | None = None,
) -> LiveSettings:
    config = Config(
        state_dir,
        socket=state_dir / "entice.sock",
        listen=("127.0.0.1:0",),
        api_listen="",
        bootstrap=bootstrap,
        origin=origin,
        reserve_bytes=0,
        up_bytes_per_s=up_bytes_per_s,
    )
    return LiveSettings(Configured(config, {}), Sources(state_dir))


@asynccontextmanager
async def swarm(directory: Path, hosts: int) -> AsyncIterator[list[DaemonEngine]]:
    """Hosts of one rack; the first is the founder, who publishes."""
    async with AsyncExitStack() as stack:
        engines: list[DaemonEngine] = []
        bootstrap: tuple[str, ...] = ()
        for identity in make_cluster(directory, hosts=hosts):
            engines.append(await start(config_of(identity.directory.parent, bootstrap), stack))
            bootstrap = engines[0].status().listen
        yield engines


def disk(seed: int, size_mib: int, *, hole_every: int = 4) -> bytes:
    """Random data with a hole in every fourth MiB."""
    dice = np.random.default_rng(seed)
    parts = [bytes(MIB) if index % hole_every == hole_every - 1 else dice.bytes(MIB) for index in range(size_mib)]
    return b"".join(parts)


def changed(content: bytes, seed: int, blocks: int) -> bytes:
    """The same with so many blocks of it overwritten."""
    dice = np.random.default_rng(seed)
    data = bytearray(content)
    for index in dice.choice(len(content) // BLOCK_SIZE_BYTES, blocks, replace=False).tolist():
        data[index * BLOCK_SIZE_BYTES : (index + 1) * BLOCK_SIZE_BYTES] = dice.bytes(BLOCK_SIZE_BYTES)
    return bytes(data)


async def publish(engine: DaemonEngine, content: bytes, name: str, directory: Path, **terms: Any) -> Published:
    path = directory / "source.raw"
    await asyncio.to_thread(path.write_bytes, content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return await engine.publish(Publication(fd, name, len(content), **terms), lambda done, all_of_it: None)
    finally:
        os.close(fd)


def recovery_of(engine: DaemonEngine) -> asyncio.Event:
    """Set when the host, degraded by then, is well again. From here on its log says nothing of that."""
    recovered = asyncio.Event()

    def note(effect: ef.NoteDegraded) -> None:
        if not effect.degraded:
            recovered.set()

    engine.parts.driver.carry(ef.NoteDegraded, note)
    return recovered


async def until(engine: DaemonEngine, key: str, holds: Callable[[OrderView], bool]) -> OrderView:
    """The first state of an order in which `holds`."""
    events = engine.events(0)
    if key in {order.key for order in engine.orders()} and holds(engine.order(key)):
        return engine.order(key)
    async for _, order in events:
        if order.key == key and holds(engine.order(key)):
            return engine.order(key)
    raise AssertionError("the events ended")


async def pull(engine: DaemonEngine, target: str, key: str = "order", *, origin: bool = True) -> OrderView:
    """Order an image and wait until the order has ended."""
    await engine.place_order(key, OrderTerms(target, priority=Priority.BOOT, origin=origin))
    return await until(engine, key, lambda order: order.state.value in ("ready", "failed"))


def content_of(order: OrderView) -> bytes:
    assert order.path is not None, order.reason
    return Path(order.path).read_bytes()


async def level(engines: list[DaemonEngine]) -> None:
    """Wait until all go by the trust bundle of the first."""
    serial = engines[0].parts.identity.trust.serial
    for engine in engines:
        changed = asyncio.Event()
        engine.parts.identity.watch(changed.set)
        while engine.parts.identity.trust.serial < serial:
            changed.clear()
            await changed.wait()
