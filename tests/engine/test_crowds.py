"""More hosts than a daemon has places for, all of them real members: who finds none is told where else to go."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from enticed.core.policy import Policy
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.identity.host import HostIdentity
from protocol.identifiers import ImageId
from protocol.limits import ALTERNATIVES_MAX_COUNT
from protocol.messages import ALPN_CONTROL, CONTROL, Acquaint, Goodbye, HaveMap, Hello, Subscribe
from tests.clusters import make_cluster
from tests.engine.swarm import config_of, disk, publish, run
from tests.transfer.rogue import Frames, connect

KEPT = Policy().sessions_kept


class Member:
    """A host that dials, subscribes to an image, and notes what it is told until there is a have-map or a goodbye."""

    def __init__(self, identity: HostIdentity) -> None:
        self.identity = identity
        self.told: list[object] = []
        self._sock: ssl.SSLSocket | None = None

    def ask(self, address: str, image: ImageId) -> None:
        self.close()
        self.told.clear()
        self._sock = connect(self.identity, address, ALPN_CONTROL)
        frames = Frames(self._sock, CONTROL)
        frames.send(Hello(1, 1, (), 1, ("127.0.0.1:7400",)))
        frames.send(Subscribe(image))
        while not self.told or not isinstance(self.told[-1], HaveMap | Goodbye):
            self.told.append(frames.receive())

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()

    @property
    def named(self) -> int:
        return sum(len(message.hosts) for message in self.told if isinstance(message, Acquaint))


@pytest.mark.hundreds
def test_who_finds_no_place_at_a_publisher_is_told_of_others(tmp_path: Path) -> None:
    founder, *others = make_cluster(tmp_path, hosts=KEPT + 17)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            publisher = await start(config_of(founder.directory.parent), stack)
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            members = [Member(identity) for identity in others]
            for member in members:
                stack.callback(member.close)
            await asyncio.to_thread(ask_in_turn, members, publisher, published.image)
            kept, sent_away = members[:KEPT], members[KEPT:]
            assert all(isinstance(member.told[-1], HaveMap) for member in kept)
            assert all(isinstance(member.told[-1], Goodbye) for member in sent_away)
            assert {member.named for member in sent_away} == {ALTERNATIVES_MAX_COUNT}
            await asyncio.to_thread(ask_in_turn, sent_away, publisher, published.image)
            assert all(isinstance(member.told[-1], HaveMap) for member in sent_away), "who comes again stays"

    run(scenario())


def ask_in_turn(members: list[Member], publisher: DaemonEngine, image: ImageId) -> None:
    (address,) = publisher.status().listen
    for member in members:
        member.ask(address, image)
