"""Enrolled hosts that lie, flood, replay or talk nonsense: each harms itself, and others little."""

from __future__ import annotations

from random import Random

import pytest
from blake3 import blake3

from enticed.core.dht.events import Abandon, Answered, Event, Find, Heard, HeardNonsense, Join, Leave, Met, Send, Wake
from enticed.core.dht.node import DhtNode
from enticed.core.dht.policy import DhtPolicy
from protocol.dht import (
    Contact,
    DhtMessage,
    FindNode,
    FindValue,
    Goodbye,
    Nodes,
    Ping,
    Pong,
    Store,
    Stored,
    StoreName,
    Values,
    Verdict,
    Withdraw,
)
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.providers import ProviderState
from tests.core.dht.harness import Host, Ledger, LedgerNotary, World
from tests.core.dht.test_network import holders, key, nodes, offer

WHOLE = ProviderState.WHOLE


class Alone:
    """One node, and hosts that speak to it."""

    def __init__(self, policy: DhtPolicy | None = None) -> None:
        self.now = 1000.0
        self.ledger = Ledger(lambda: self.now)
        self.id = NodeId(b"o" * 20)
        self.node = DhtNode(self.id, LedgerNotary(self.id, self.ledger), Random(1), policy)
        self.node.handle(Join(()), self.now)

    def say(self, sender: NodeId, message: DhtMessage) -> list[DhtMessage]:
        """What comes back to the sender, beside questions."""
        effects = self.node.handle(Heard(sender, bytes(6), message), self.now)
        sent = (one.message for one in effects if isinstance(one, Send) and one.node == sender)
        return [one for one in sent if isinstance(one, Pong | Nodes | Values | Stored)]

    def store(self, sender: NodeId, record: bytes) -> Verdict:
        replies = self.say(sender, Store(1, record))
        assert len(replies) == 1
        assert isinstance(replies[0], Stored)
        return replies[0].verdict

    def signed(self, by: NodeId, of: DiscoveryKey) -> bytes:
        return LedgerNotary(by, self.ledger).sign(of, WHOLE)


def host(number: int) -> NodeId:
    return NodeId(blake3(b"%d" % number).digest(20))


# --- records ---


def test_only_its_subject_stores_a_record() -> None:
    here = Alone()
    record = here.signed(host(1), key(1))
    assert here.store(host(2), record) is Verdict.REFUSED
    assert here.store(host(1), record) is Verdict.KEPT


def test_forged_and_expired_records_are_refused() -> None:
    here = Alone()
    assert here.store(host(1), b"forged") is Verdict.REFUSED
    record = here.signed(host(1), key(1))
    here.now += 2401
    assert here.store(host(1), record) is Verdict.REFUSED
    assert len(here.node.shelves) == 0


def test_an_older_record_does_not_come_back() -> None:
    here = Alone()
    notary = LedgerNotary(host(1), here.ledger)
    older, newer = notary.sign(key(1), WHOLE), notary.sign(key(1), WHOLE)
    assert here.store(host(1), newer) is Verdict.KEPT
    assert here.store(host(1), older) is Verdict.OUTDATED


def test_nobody_withdraws_for_others() -> None:
    here = Alone()
    here.store(host(1), here.signed(host(1), key(1)))
    here.say(host(2), Withdraw(1, key(1)))
    here.say(host(2), Goodbye())
    assert here.node.shelves.population(key(1)) == 1
    assert here.say(host(1), Withdraw(2, key(1))) == [Stored(2, Verdict.KEPT, 0)]


def test_a_thousand_announcers_give_a_sample_and_an_estimate() -> None:
    here = Alone()
    verdicts = [here.store(host(n), here.signed(host(n), key(1))) for n in range(1000)]
    assert len(here.node.shelves) == 256
    assert 256 < verdicts.count(Verdict.KEPT) < 800
    ((values,),) = [here.say(host(5000), FindValue(1, key(1)))]
    assert isinstance(values, Values)
    assert 800 < values.population < 1250
    assert len(values.providers) == 4


def test_names_are_checked() -> None:
    here = Alone()
    good = here.ledger.name(key(1), 3)
    assert here.say(host(1), StoreName(1, key(1), b"forged")) == [Stored(1, Verdict.REFUSED, 0)]
    assert here.say(host(1), StoreName(2, key(2), good)) == [Stored(2, Verdict.REFUSED, 0)]
    assert here.say(host(1), StoreName(3, key(1), good)) == [Stored(3, Verdict.KEPT, 0)]
    assert here.say(host(2), StoreName(4, key(1), here.ledger.name(key(1), 2))) == [Stored(4, Verdict.OUTDATED, 0)]
    ((values,),) = [here.say(host(2), FindValue(5, key(1)))]
    assert isinstance(values, Values)
    assert values.name == good


# --- floods ---


def test_a_name_whose_signer_is_no_longer_trusted_gives_way_to_a_lower_version() -> None:
    here = Alone()
    stolen, good = here.ledger.name(key(1), 9), here.ledger.name(key(1), 2)
    assert here.say(host(1), StoreName(1, key(1), stolen)) == [Stored(1, Verdict.KEPT, 0)]
    assert here.say(host(1), StoreName(2, key(1), good)) == [Stored(2, Verdict.OUTDATED, 0)]
    del here.ledger.names[stolen]
    assert here.say(host(1), StoreName(3, key(1), good)) == [Stored(3, Verdict.KEPT, 0)]


def test_one_host_causes_only_so_many_checks() -> None:
    here = Alone(DhtPolicy(checks_per_peer_burst=5, checks_per_peer_s=1.0))
    verdicts = [here.store(host(1), b"forged %d" % n) for n in range(8)]
    assert verdicts == [Verdict.REFUSED] * 5 + [Verdict.BUSY] * 3
    assert here.store(host(2), here.signed(host(2), key(1))) is Verdict.KEPT
    here.now += 2.0
    assert here.store(host(1), here.signed(host(1), key(1))) is Verdict.KEPT
    assert here.say(host(1), StoreName(1, key(2), here.ledger.name(key(2), 1))) == [Stored(1, Verdict.KEPT, 0)]
    assert here.say(host(1), StoreName(2, key(2), here.ledger.name(key(2), 2))) == [Stored(2, Verdict.BUSY, 0)]
    # What is here already costs no check.
    assert here.say(host(1), StoreName(3, key(2), here.ledger.name(key(2), 1))) == [Stored(3, Verdict.RENEWED, 0)]


def test_all_hosts_together_cause_only_so_many_checks() -> None:
    here = Alone(DhtPolicy(checks_burst=10, checks_per_s=1.0))
    verdicts = [here.store(host(n), here.signed(host(n), key(1))) for n in range(12)]
    assert verdicts == [Verdict.KEPT] * 10 + [Verdict.BUSY] * 2


def test_whoever_asks_too_much_gets_no_answer() -> None:
    here = Alone(DhtPolicy(questions_burst=20, questions_per_s=10.0))
    answered = [len(here.say(host(1), Ping(n))) for n in range(30)]
    assert answered == [1] * 20 + [0] * 10
    assert here.say(host(2), Ping(7)) == [Pong(7)]
    here.now += 1.0
    assert sum(len(here.say(host(1), Ping(n))) for n in range(30)) == 10


def test_a_host_that_is_told_to_wait_announces_again_soon() -> None:
    world = World(1)
    strict = DhtPolicy(checks_per_peer_burst=3, checks_per_peer_s=0.5)
    hosts = world.network(12, policy=strict)
    for number in range(12):
        hosts[1].announce(offer(number))
    world.run(120)
    assert all(len(holders(hosts, key(number))) >= 8 for number in range(12))


# --- replies ---


def test_replies_that_nobody_waits_for_are_ignored() -> None:
    here = Alone()
    for message in (Pong(1), Nodes(2, ()), Values(3, (), None, 0, ()), Stored(4, Verdict.KEPT, 0)):
        assert here.say(host(1), message) == []


def test_a_reply_from_another_host_or_of_another_kind_is_none() -> None:
    here = Alone()
    effects = here.node.handle(Met(host(1), bytes(6)), here.now)
    (question,) = [one.message for one in effects if isinstance(one, Send)]
    assert isinstance(question, FindNode)
    stranger = Contact(host(9), b"\1" * 6)
    assert here.say(host(2), Nodes(question.token, (stranger,))) == []
    effects = here.node.handle(Heard(host(1), bytes(6), Pong(question.token)), here.now)
    asked = {one.node for one in effects if isinstance(one, Send)}
    assert host(9) not in asked


def test_nonsense_is_as_good_as_silence() -> None:
    here = Alone()
    here.node.handle(Met(host(1), bytes(6)), here.now)
    assert len(here.node.table) == 1
    effects = here.node.handle(HeardNonsense(host(1)), here.now)
    assert len(here.node.table) == 0
    assert [type(one).__name__ for one in effects] == []
    # The walk that waited for this host is over: nothing is left of it but what recurs.
    deadline = here.node.next_deadline()
    assert deadline is not None
    assert deadline > here.now + here.node.policy.hard_timeout_s


def lying(world: World, liar: Host, contacts: int, forge: bool = False) -> None:
    """Answers every question with hosts that are not there, nearer than anyone, and perhaps with forged records."""

    def answer(heard: Heard) -> DhtMessage | None:
        question = heard.message
        if not isinstance(question, FindNode | FindValue):
            return None
        target = question.target if isinstance(question, FindNode) else question.key
        invented = tuple(
            Contact(NodeId(target[:18] + world.dice.randbytes(2)), bytes([172, 16, *world.dice.randbytes(4)]))
            for _ in range(contacts)
        )
        if isinstance(question, FindNode):
            return Nodes(question.token, invented)
        forged = (world.dice.randbytes(200),) if forge else ()
        return Values(question.token, forged, None, 1, invented)

    liar.answer = answer


def test_lookups_survive_hosts_that_invent_others() -> None:
    world = World(2)
    hosts = world.network(60)
    for number in range(20):
        hosts[number].announce(offer(number))
    world.run(5)
    for liar in hosts[20:24]:  # a twentieth
        lying(world, liar, 16)
    found = [hosts[40 + number].look_up(key(number)) for number in range(20)]
    right = [nodes(one) == {hosts[number].id} for number, one in enumerate(found)]
    assert sum(right) >= 17
    assert all(one[1].asked <= DhtPolicy().lookup_calls_max for one in found)
    assert max(one[0] for one in found) < 3.1


def test_forged_records_are_not_found_and_cost_their_sender_its_place() -> None:
    world = World(3)
    hosts = world.network(30)
    hosts[1].announce(offer(1))
    world.run(5)
    for liar in hosts[2:5]:
        lying(world, liar, 0, forge=True)
    for asker in hosts[10:]:
        assert nodes(asker.look_up(key(1))) == {hosts[1].id}


def test_a_record_of_another_key_is_not_found() -> None:
    world = World(4)
    hosts = world.network(10)
    record = LedgerNotary(hosts[1].id, world.ledger).sign(key(7), WHOLE)

    def answer(heard: Heard) -> DhtMessage | None:
        question = heard.message
        return Values(question.token, (record,), None, 1, ()) if isinstance(question, FindValue) else None

    for liar in hosts[1:]:
        liar.answer = answer
    assert nodes(hosts[0].look_up(key(1))) == set()


def test_what_has_expired_is_left_out_without_blame() -> None:
    world = World(5)
    hosts = world.network(10)
    old = LedgerNotary(hosts[1].id, world.ledger).sign(key(1), WHOLE)
    world.run(3000)
    good = LedgerNotary(hosts[2].id, world.ledger).sign(key(1), WHOLE)

    def answer(heard: Heard) -> DhtMessage | None:
        question = heard.message
        return Values(question.token, (old, good), None, 2, ()) if isinstance(question, FindValue) else None

    for replica in hosts[1:]:
        replica.answer = answer
    assert nodes(hosts[0].look_up(key(1))) == {hosts[2].id}
    assert len(hosts[0].node.table) == 9


def test_a_lookup_checks_only_so_many_records() -> None:
    world = World(6)
    policy = DhtPolicy(checks_per_lookup=5)
    hosts = world.network(10, policy=policy)
    for one in hosts[1:]:
        one.announce(offer(1))
    world.run(5)
    assert len(nodes(hosts[0].look_up(key(1)))) <= 5


# --- after the end ---


def test_an_abandoned_search_says_nothing() -> None:
    here = Alone()
    here.node.handle(Met(host(1), bytes(6)), here.now)
    here.node.handle(Find(7, key(1)), here.now)
    here.node.handle(Abandon(7), here.now)
    here.node.handle(Abandon(8), here.now)
    here.now += 5.0
    assert not [one for one in here.node.handle(Wake(), here.now) if isinstance(one, Answered)]


def test_after_leaving_nothing_is_done() -> None:
    here = Alone()
    here.node.handle(Met(host(1), bytes(6)), here.now)
    effects = here.node.handle(Leave(), here.now)
    assert Send(host(1), bytes(6), Goodbye()) in effects
    assert here.say(host(1), Ping(1)) == []
    assert here.node.next_deadline() is None


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_messages_is_survived(seed: int) -> None:
    """Whatever well-formed messages come, in whatever order, from whomever: no error, and bounded answers."""
    dice = Random(seed)
    here = Alone()
    records = [here.signed(host(n), key(n % 3)) for n in range(10)]
    names = [here.ledger.name(key(n), n) for n in range(3)]
    contacts = [Contact(host(n), bytes([10, 0, 0, n, 0, 1])) for n in range(20)]
    tokens: list[int] = [1]
    for _ in range(400):
        token, target = dice.choice(tokens), key(dice.randrange(3))
        messages: list[DhtMessage] = [
            Ping(token),
            Pong(token),
            FindNode(token, target),
            Nodes(token, tuple(dice.sample(contacts, 5))),
            FindValue(token, target),
            Values(token, tuple(dice.sample(records, 2)), dice.choice([None, *names]), 5, tuple(contacts[:3])),
            Store(token, dice.choice(records)),
            StoreName(token, target, dice.choice(names)),
            Withdraw(token, target),
            Stored(token, dice.choice(list(Verdict)), 9),
            Goodbye(),
        ]
        heard = Heard(host(dice.randrange(20)), bytes(6), dice.choice(messages))
        events: list[Event] = [heard, Find(len(tokens), target), Wake()]
        event = dice.choice(events)
        effects = here.node.handle(event, here.now)
        tokens += [
            one.message.token for one in effects if isinstance(one, Send) and not isinstance(one.message, Goodbye)
        ]
        here.now += dice.random() * 0.1
    here.now += 10.0
    here.node.handle(Wake(), here.now)
