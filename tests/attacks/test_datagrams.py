"""A real UDP port under strangers who forge addresses: who sits there gets no more bytes than were sent in its name."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enticed.identity.host import HostIdentity
from enticed.overlay.notary import HostNotary
from enticed.overlay.pairs import PairBook, Transmit
from enticed.overlay.port import ProviderOffer
from enticed.overlay.udp import UdpOverlay
from protocol.datagram import Introduction, hello_key
from protocol.dht import DHT, FindNode, FindValue, Ping, Store, read_endpoint
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.limits import DATAGRAM_MAX_SIZE_BYTES
from protocol.providers import ProviderState
from tests.overlay.hosts import Swarm, UdpSwarm, address_of, run

KEY = DiscoveryKey.of_image(ImageId.of(b"an image"))
OFFER = ProviderOffer(KEY, ProviderState.WHOLE)
VICTIMS = 40
ROUNDS = 25


class Victim:
    """An address of somebody who has asked for nothing: what was sent in its name, and what came of it."""

    def __init__(self, number: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind((f"127.0.1.{number + 1}", 0))
        self.sent_bytes = 0
        self.got_bytes = 0

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self.sock.sendto(data, to)
        self.sent_bytes += len(data)
        self.read()

    def read(self) -> None:
        try:
            while True:
                self.got_bytes += len(self.sock.recv(65536))
        except BlockingIOError:
            pass


def introduction(identity: HostIdentity) -> Introduction:
    return Introduction(1, 1, (), identity.trust.serial, identity.certificate_der, int(time.time()) << 32)


def knock_of(identity: HostIdentity, endpoint: bytes) -> bytes:
    """As somebody on the way could have seen it."""
    book = PairBook(
        identity.node, introduction(identity), X25519PrivateKey.generate(),
        tuple(hello_key(authority) for authority in identity.trust.authorities), lambda der: identity.credential,
        os.urandom,
    )  # fmt: skip
    (knock,) = book.greet(endpoint, 0.0)
    assert isinstance(knock, Transmit)
    return knock.data


def spoofed(identity: HostIdentity, endpoint: bytes, seen: list[bytes], dice: Random) -> Iterator[bytes]:
    """What a stranger can say who has seen every datagram of a meeting: that again, changed or not, and anything."""
    yield knock_of(identity, endpoint)
    for data in seen:
        yield data
        changed = bytearray(data)
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        yield bytes(changed)
        yield data[: dice.randrange(1, len(data))]
    record = HostNotary(identity, [address_of(identity)], time.time).sign(KEY, ProviderState.WHOLE)
    for message in (Ping(1), FindNode(1, KEY), FindValue(1, KEY), Store(1, record)):
        yield DHT.encode(message)
        yield b"\2" + DHT.encode(message).ljust(60, b"\0")
    for size_bytes in (0, 1, 27, 28, 29, 600, DATAGRAM_MAX_SIZE_BYTES, DATAGRAM_MAX_SIZE_BYTES + 1, 9000, 65000):
        for first in (b"\1", b"\2", b"\3", b"\xff"):
            yield (first + dice.randbytes(size_bytes))[:size_bytes]


class Tap:
    """Every datagram that one host sends, as the wire would show it."""

    def __init__(self, overlay: UdpOverlay) -> None:
        self.seen: list[bytes] = []
        send = overlay._sockets.send

        def tapped(endpoint: bytes, data: bytes) -> None:
            self.seen.append(data)
            send(endpoint, data)

        overlay._sockets.send = tapped  # type: ignore[method-assign]


def test_no_spoofed_datagram_draws_more_bytes_than_it_has(cluster: list[HostIdentity]) -> None:
    dice = Random(7)

    async def scenario(swarm: Swarm) -> None:
        first, second = await swarm.hosts(cluster[:2])
        assert isinstance(first, UdpOverlay)
        assert isinstance(second, UdpOverlay)
        tap = Tap(second)
        first.announce(OFFER)
        await first.announced(KEY)
        await second.find(KEY)
        assert tap.seen
        (listening,) = first.listening
        host, port = listening.rsplit(":", 1)
        with ExitStack() as stack:
            victims = [Victim(number) for number in range(VICTIMS)]
            for victim in victims:
                stack.enter_context(victim.sock)
            for _ in range(ROUNDS):
                for data in spoofed(cluster[2], read_endpoint(listening), tap.seen[-6:], dice):
                    dice.choice(victims).send(data, (host, int(port)))
                await second.find(KEY)  # and members are answered meanwhile
            # What is said a second time would be said by now.
            await asyncio.sleep(1.0)
            for victim in victims:
                victim.read()
                assert victim.got_bytes <= victim.sent_bytes
            drawn = sum(one.got_bytes for one in victims) / sum(one.sent_bytes for one in victims)
            print(f"strangers drew {drawn:.3f} of the bytes that they sent")
        assert first.contacts == 1

    run(UdpSwarm, scenario)


def test_a_datagram_that_is_caught_and_sent_on_draws_no_more(cluster: list[HostIdentity]) -> None:
    """One that never arrived, and so is none that was read before: it opens, and whoever sends it on is unproven."""

    async def scenario(swarm: Swarm) -> None:
        first, second = await swarm.hosts(cluster[:2])
        assert isinstance(first, UdpOverlay)
        assert isinstance(second, UdpOverlay)
        (contact,) = second._node.table
        caught: list[bytes] = []
        for token in range(30):
            outputs = second._pairs.send(contact.node, contact.endpoint, DHT.encode(Ping(token)), second._loop.time())
            caught += [one.data for one in outputs if isinstance(one, Transmit)]
        assert len(caught) == 30
        host, port = first.listening[0].rsplit(":", 1)
        victim = Victim(0)
        with victim.sock:
            for data in caught:
                victim.send(data, (host, int(port)))
            await second.find(KEY)
            await asyncio.sleep(1.0)  # three knocks would have come by now
            victim.read()
            assert 0 < victim.got_bytes <= victim.sent_bytes

    run(UdpSwarm, scenario)
