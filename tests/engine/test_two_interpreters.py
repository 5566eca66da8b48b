"""One script, carried out twice: by daemons over real sockets and files, and by the simulator; they decide alike.

What is compared is what the core decided: the states that each order went through, and where its bytes came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from enticed.core.image_book import Supply
from enticed.core.orders import Failure, Order, OrderState, Priority
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from protocol.limits import MIB
from simnet.images import SimImage
from simnet.world import World
from tests.engine.swarm import disk, publish, run, swarm, until

ENDED = {OrderState.READY, OrderState.FAILED}
SIZE_MIB = 6


@dataclass(frozen=True)
class Outcome:
    states: tuple[OrderState, ...]
    failure: Failure | None
    from_peers: float
    """Of the image's data, the share that came from peers."""


@dataclass(frozen=True)
class Script:
    """Host 0 publishes (or does not); host 1 orders; then, where `again`, host 1 orders once more under another key."""

    published: bool = True
    again: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return ("first", "second") if self.again else ("first",)


def simulated(script: Script) -> list[Outcome]:
    world = World(seed=1)
    image = world.add_image(SimImage("debian:12", SIZE_MIB * MIB))
    publisher, host = world.add_host("publisher"), world.add_host("host")
    if script.published:
        publisher.publish(image)
    else:
        world.images.clear()
    outcomes = []
    for key in script.keys:
        host.order(key, image)
        assert world.run(lambda key=key: host.orders[key].state in ENDED, 60)  # type: ignore[misc]
        supply = host.core.supplied(key) or {}
        share = supply.get(Supply.PEERS, 0) / image.size_bytes
        outcomes.append(Outcome(states_of(key, host.journal), host.orders[key].failure, share))
    return outcomes


def states_of(key: str, journal: Iterable[Order]) -> tuple[OrderState, ...]:
    """The states that an order went through, each once in a row."""
    states = [order.state for order in journal if order.key == key]
    return tuple(state for index, state in enumerate(states) if index == 0 or states[index - 1] is not state)


def real(script: Script, directory: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []

    async def scenario() -> None:
        async with swarm(directory, 2) as (publisher, host):
            if script.published:
                await publish(publisher, disk(1, SIZE_MIB, hole_every=100), "debian:12", directory)
            for key in script.keys:
                await host.place_order(key, OrderTerms("debian:12", priority=Priority.BOOT))
                order = await until(host, key, lambda view: view.state in ENDED)
                share = order.bytes_from.peers / order.data_bytes if order.data_bytes else 0.0
                outcomes.append(Outcome(await journal_of(host, key), order.failure, share))

    run(scenario())
    return outcomes


async def journal_of(host: DaemonEngine, key: str) -> tuple[OrderState, ...]:
    """The states as the ledger told them, up to the one that ended the order."""
    states: list[OrderState] = []
    async for _, order in host.journal(from_start=True):
        if order.key == key and (not states or states[-1] is not order.state):
            states.append(order.state)
        if order.key == key and order.state in ENDED:
            break
    return tuple(states)


@pytest.mark.parametrize("script", [Script(), Script(again=True), Script(published=False)], ids=str)
def test_daemon_and_simulator_decide_alike(script: Script, tmp_path: Path) -> None:
    assert real(script, tmp_path) == simulated(script)
