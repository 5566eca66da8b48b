"""The DHT under members that act together: a third of all hosts, and one key with ten thousand announcers."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from random import Random

import pytest

from enticed.core.dht.events import Heard, Join, Send
from enticed.core.dht.node import DhtNode
from enticed.core.dht.policy import DhtPolicy
from protocol.dht import Contact, DhtMessage, FindNode, FindValue, Nodes, Ping, Pong, Store, Stored, Values, Verdict
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.limits import CONTACTS_MAX_COUNT
from protocol.providers import ProviderState
from tests.core.dht.harness import Host, Ledger, LedgerNotary, World
from tests.core.dht.test_network import key, nodes, offer

HOSTS = 90
IMAGES = 30
FOUND_MIN_SHARE = 0.95
"""Of the images that somebody announces; finding is tried again by whoever needs it."""


def distance(one: bytes, other: bytes) -> int:
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")


def each_other(liars: list[Host], honest: list[Host]) -> list[Contact]:
    return [Contact(one.id, one.endpoint) for one in liars]


def honest_hosts_elsewhere(liars: list[Host], honest: list[Host]) -> list[Contact]:
    """Under endpoints where nobody is."""
    return [Contact(one.id, bytes([172, 16, *number.to_bytes(4, "big")])) for number, one in enumerate(honest)]


def conspire(liars: list[Host], contacts: list[Contact]) -> None:
    """They take every record and keep none; whoever asks is told of none, and sent to the nearest of `contacts`."""

    def answer(heard: Heard) -> DhtMessage | None:
        match heard.message:
            case Ping(token):
                return Pong(token)
            case Store(token):
                return Stored(token, Verdict.KEPT, 1)
            case FindNode(token, target):
                return Nodes(token, nearest(target))
            case FindValue(token, target):
                return Values(token, (), None, 0, nearest(target))
        return None

    def nearest(target: bytes) -> tuple[Contact, ...]:
        return tuple(sorted(contacts, key=lambda one: distance(one.node, target))[:CONTACTS_MAX_COUNT])

    for liar in liars:
        liar.answer = answer


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("send_to", [each_other, honest_hosts_elsewhere])
def test_a_third_of_the_hosts_lie_and_images_are_found_all_the_same(
    send_to: Callable[[list[Host], list[Host]], list[Contact]], seed: int
) -> None:
    """From the start, before anything is announced: liars are among the replicas of every key, and in every table."""
    world = World(seed)
    hosts = world.network(HOSTS)
    liars = world.dice.sample(hosts, HOSTS // 3)
    honest = [one for one in hosts if one not in liars]
    conspire(liars, send_to(liars, honest))
    for number in range(IMAGES):
        honest[number].announce(offer(number))
    world.run(20)
    tried = [(number, asker) for number in range(IMAGES) for asker in world.dice.sample(honest[IMAGES:], 5)]
    found = [nodes(asker.look_up(key(number))) == {honest[number].id} for number, asker in tried]
    share = sum(found) / len(tried)
    print(f"seed {seed}: {share:.3f} of {len(tried)} lookups found what was announced")
    assert share >= FOUND_MIN_SHARE


ANNOUNCERS = 10_000
MEMORY_MAX_BYTES = 8 << 20


def test_ten_thousand_records_for_one_image_leave_a_sample() -> None:
    """Each of its own host, each good: so many are kept, an answer fits a datagram, and the rest costs no memory."""
    now = [1000.0]
    ledger = Ledger(lambda: now[0])
    me = NodeId(b"o" * 20)
    policy = DhtPolicy(checks_burst=ANNOUNCERS, checks_per_s=ANNOUNCERS)
    node = DhtNode(me, LedgerNotary(me, ledger), Random(1), policy)
    node.handle(Join(()), now[0])
    senders = [NodeId(Random(number).randbytes(20)) for number in range(ANNOUNCERS)]
    records = [LedgerNotary(sender, ledger).sign(key(1), ProviderState.WHOLE) for sender in senders]
    tracemalloc.start()
    began_s = time.monotonic()
    for sender, record in zip(senders, records, strict=True):
        node.handle(Heard(sender, bytes(6), Store(1, record)), now[0])
    took_s, held_bytes = time.monotonic() - began_s, tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"{ANNOUNCERS} records: {took_s:.1f} s, {held_bytes >> 10} KiB held")
    assert len(node.shelves) == 256
    assert held_bytes < MEMORY_MAX_BYTES
    values = ask(node, key(1), now[0])
    assert 0.7 * ANNOUNCERS < values.population < 1.4 * ANNOUNCERS
    assert 0 < len(values.providers) <= 8


MEMBERS = 16
IMAGES_KEPT = 20
HOLDERS = 10


def test_a_few_members_do_not_take_all_places_of_a_host_they_choose() -> None:
    """Keys are whatever their announcers like. 16 members announce as many as they may, all next to one host: it keeps
    what others had announced, and takes more of it."""
    ledger = Ledger(lambda: 1000.0)
    me = NodeId(Random(1).randbytes(20))
    policy = DhtPolicy(providers_max=3200, providers_per_source=200, checks_per_s=1e6, checks_burst=1e6)
    node = DhtNode(me, LedgerNotary(me, ledger), Random(1), policy)
    node.handle(Join(()), 1000.0)
    now = 1000.0

    def store(sender: NodeId, of: DiscoveryKey) -> Verdict:
        nonlocal now
        now += 0.04  # no faster than signatures of one host are checked
        effects = node.handle(Heard(sender, bytes(6), Store(1, notary(sender).sign(of, ProviderState.WHOLE))), now)
        (stored,) = [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, Stored)]
        return stored.verdict

    @cache
    def notary(sender: NodeId) -> LedgerNotary:
        return LedgerNotary(sender, ledger)

    members = [NodeId(Random(number).randbytes(20)) for number in range(100, 100 + MEMBERS)]
    holders = [NodeId(Random(number).randbytes(20)) for number in range(200, 200 + HOLDERS)]
    for holder in holders:
        for number in range(IMAGES_KEPT):
            assert store(holder, key(number)) is Verdict.KEPT
    for number in range(policy.providers_per_source):
        for index, member in enumerate(members):
            store(member, DiscoveryKey(me[:16] + (number * MEMBERS + index).to_bytes(4, "big")))
    for number in range(IMAGES_KEPT):
        assert node.shelves.population(key(number)) == HOLDERS
    assert store(holders[0], key(0)) is Verdict.RENEWED
    assert store(NodeId(b"n" * 20), key(0)) is Verdict.KEPT


def ask(node: DhtNode, wanted: DiscoveryKey, now: float) -> Values:
    effects = node.handle(Heard(NodeId(b"a" * 20), bytes(6), FindValue(1, wanted)), now)
    (values,) = [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, Values)]
    return values
