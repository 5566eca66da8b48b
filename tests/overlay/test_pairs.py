"""How hosts meet: in spite of losses, restarts and moves, and never to the advantage of a stranger."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed import limits
from enticed.overlay import pairs
from enticed.overlay.pairs import Acquainted, Opened, Output, PairBook, Transmit
from protocol import datagram
from protocol.credentials import NodeCredential
from protocol.datagram import HELLO_MAX_SIZE_BYTES, Hello, Kind, Proof, kind_of, read_tag
from protocol.errors import LocalError
from protocol.identifiers import NodeId
from protocol.limits import DATAGRAM_MAX_SIZE_BYTES, DATAGRAM_MIN_SIZE_BYTES
from tests.wire.cas import TestCa
from tests.wire.hosts import HELLO_KEY, Sealer, check

EPOCHS = count(1)


class End:
    """One host at one or more endpoints. What it was told, and what it read, are kept."""

    def __init__(self, wire: Wire, label: str, place: int, **changes: object) -> None:
        self.wire = wire
        self.sealer = Sealer.named(label, epoch=next(EPOCHS), **changes)  # type: ignore[arg-type]
        self.endpoint = bytes([10, 0, 0, place, 0, 1])
        self.may_greet = True
        self.checks = 0
        self.book = PairBook(
            self.node,
            self.sealer.introduction,
            self.sealer.private,
            (HELLO_KEY,),
            self._check,
            wire.dice.randbytes,
            self._may_greet,
        )
        self.met: list[tuple[NodeId, bytes]] = []
        self.read: list[tuple[NodeId, bytes, bytes]] = []
        wire.places[self.endpoint] = self

    def _check(self, der: bytes) -> NodeCredential:
        self.checks += 1
        return check(der)

    def _may_greet(self, endpoint: bytes) -> bool:
        return self.may_greet

    @property
    def node(self) -> NodeId:
        return self.sealer.credential.node

    def send(self, to: End, payload: bytes) -> None:
        self.do(self.book.send(to.node, to.endpoint, payload, self.wire.now))

    def greet(self, to: End) -> None:
        self.do(self.book.greet(to.endpoint, self.wire.now))

    def do(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Transmit():
                    self.wire.carry(self.endpoint, output.endpoint, output.data)
                case Acquainted():
                    self.met.append((output.node, output.endpoint))
                case Opened():
                    self.read.append((output.node, output.endpoint, output.payload))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.read]


class Wire:
    """Carries datagrams in order, and remembers them. `drop`: which of them are lost."""

    def __init__(self, seed: int = 1) -> None:
        self.dice = Random(seed)
        self.now = 1000.0
        self.places: dict[bytes, End] = {}
        self.log: list[tuple[bytes, bytes, bytes]] = []
        self.waiting: list[tuple[bytes, bytes, bytes]] = []
        self.drop: Callable[[int, bytes], bool] = lambda number, data: False

    def carry(self, source: bytes, target: bytes, data: bytes) -> None:
        assert DATAGRAM_MIN_SIZE_BYTES <= len(data) <= DATAGRAM_MAX_SIZE_BYTES
        if not self.drop(len(self.log), data):
            self.waiting.append((source, target, data))
        self.log.append((source, target, data))

    def deliver(self) -> None:
        while self.waiting:
            source, target, data = self.waiting.pop(0)
            self.put(source, target, data)

    def put(self, source: bytes, target: bytes, data: bytes) -> None:
        end = self.places.get(target)
        if end is not None:
            end.do(end.book.received(source, data, self.now))

    def settle(self, seconds: float = 2.0) -> None:
        """Deliver everything, and let time pass, deadline by deadline."""
        until = self.now + seconds
        self.deliver()
        while True:
            due = [at for end in self.places.values() if (at := end.book.next_deadline()) is not None]
            if not due or min(due) > until:
                break
            self.now = max(self.now, min(due))
            for end in list(self.places.values()):
                end.do(end.book.wake(self.now))
            self.deliver()
        self.now = until

    def kinds(self) -> list[Kind]:
        return [kind_of(data) for _, _, data in self.log]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def ends(wire: Wire) -> tuple[End, End]:
    return End(wire, "alice", 1), End(wire, "bob", 2)


# --- meeting ---


def test_two_hosts_meet_in_four_datagrams_and_then_speak(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"one")
    wire.deliver()
    assert wire.kinds() == [Kind.HELLO, Kind.HELLO, Kind.HELLO, Kind.SEALED, Kind.SEALED]
    assert bob.read == [(alice.node, alice.endpoint, b"one")]
    assert alice.met == [(bob.node, bob.endpoint)]
    assert bob.met == [(alice.node, alice.endpoint)]
    bob.send(alice, b"two")
    alice.send(bob, b"three")
    wire.deliver()
    assert len(wire.log) == 7
    assert alice.payloads == [b"two"]
    assert bob.payloads == [b"one", b"three"]
    assert alice.book.next_deadline() is None


def test_what_waits_for_the_meeting_goes_out_in_order(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    for number in range(limits.GREETING_QUEUE_MAX_COUNT + 5):
        alice.send(bob, bytes([number]))
    wire.deliver()
    assert bob.payloads == [bytes([number]) for number in range(limits.GREETING_QUEUE_MAX_COUNT)]


def test_both_may_greet_at_once(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"to bob")
    bob.send(alice, b"to alice")
    wire.settle()
    for number in range(5):
        alice.send(bob, bytes([number]))
        bob.send(alice, bytes([number]))
    wire.settle()
    assert bob.payloads == [b"to bob", *(bytes([n]) for n in range(5))]
    assert alice.payloads == [b"to alice", *(bytes([n]) for n in range(5))]
    assert Kind.UNKNOWN not in wire.kinds()


@pytest.mark.parametrize("lost", range(5))
def test_any_one_datagram_may_be_lost(wire: Wire, ends: tuple[End, End], lost: int) -> None:
    alice, bob = ends
    wire.drop = lambda number, data: number == lost
    alice.send(bob, b"one")
    wire.settle()
    alice.send(bob, b"two")
    bob.send(alice, b"back")
    wire.settle()
    assert bob.payloads == ([b"two"] if lost == 4 else [b"one", b"two"])
    assert alice.payloads == [b"back"]


@pytest.mark.parametrize("seed", range(20))
def test_hosts_meet_over_a_bad_wire(seed: int) -> None:
    """A third is lost, both greet at random: in the end both sides hear each other, and nothing comes twice."""
    wire = Wire(seed)
    alice, bob = End(wire, "alice", 1), End(wire, "bob", 2)
    wire.drop = lambda number, data: wire.dice.random() < 0.33
    for number in range(40):
        one, other = wire.dice.choice([(alice, bob), (bob, alice)])
        one.send(other, number.to_bytes(2, "big"))
        wire.settle(wire.dice.random())
    wire.drop = lambda number, data: False
    wire.settle(10.0)
    for attempt in range(3):
        alice.send(bob, b"end %d" % attempt)
        bob.send(alice, b"end %d" % attempt)
        wire.settle(2.0)
    for end in (alice, bob):
        assert b"end 2" in end.payloads
        assert len(end.payloads) == len(set(end.payloads))
    sealed = [read_tag(data) for _, _, data in wire.log if kind_of(data) is Kind.SEALED]
    assert len(sealed) == len(set(sealed)), "a nonce came twice"


def test_silence_is_given_up(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    del wire.places[bob.endpoint]
    alice.send(bob, b"lost")
    wire.settle()
    assert wire.kinds() == [Kind.HELLO] * limits.GREETING_TRIES
    assert alice.book.next_deadline() is None
    wire.places[bob.endpoint] = bob
    alice.send(bob, b"found")
    wire.settle()
    assert bob.payloads == [b"found"]


def test_what_is_meant_for_another_is_not_sent(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    carol = End(wire, "carol", 3)
    alice.do(alice.book.send(carol.node, bob.endpoint, b"for carol", wire.now))
    wire.settle()
    assert alice.met == [(bob.node, bob.endpoint)]
    assert bob.read == []


def test_a_host_does_not_meet_itself(wire: Wire, ends: tuple[End, End]) -> None:
    alice, _ = ends
    alice.greet(alice)
    wire.settle()
    assert alice.met == []
    assert len(alice.book) == 0


def test_too_large_a_payload_is_the_callers_fault(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"")
    wire.settle()
    with pytest.raises(LocalError):
        alice.send(bob, bytes(DATAGRAM_MAX_SIZE_BYTES))


# --- whom one meets ---


def test_nobody_meets_a_stranger(wire: Wire) -> None:
    alice = End(wire, "alice", 1)
    other_ca = End(wire, "mallory", 2, ca=TestCa.named("another CA"))
    other_ca.greet(alice)
    alice.greet(other_ca)
    wire.settle()
    assert alice.met == []
    assert other_ca.met == []


def test_nobody_meets_a_host_whose_version_it_does_not_speak(wire: Wire) -> None:
    alice, old = End(wire, "alice", 1), End(wire, "old", 2, versions=(0, 0))
    old.greet(alice)
    alice.greet(old)
    wire.settle()
    assert alice.met == old.met == []


def test_a_certificate_without_its_key_is_nobody(wire: Wire, ends: tuple[End, End]) -> None:
    """Mallory shows Bob's certificate, which anyone may have, but cannot compute what Bob's key gives."""
    alice, bob = ends
    mallory = End(wire, "mallory", 3)
    mallory.book._introduction = bob.sealer.introduction
    mallory.greet(alice)
    alice.greet(mallory)
    alice.do(alice.book.send(bob.node, mallory.endpoint, b"secret", wire.now))
    wire.settle()
    assert alice.met == []
    assert mallory.met == []
    assert mallory.read == []


def test_one_speaks_first_only_where_one_may(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.may_greet = False
    alice.send(bob, b"not sent")
    assert wire.log == []
    bob.send(alice, b"hello")
    wire.settle()
    assert alice.payloads == [b"hello"]
    alice.send(bob, b"answer")
    wire.settle()
    assert bob.payloads == [b"answer"]


# --- strangers ---


def test_no_stranger_is_answered_with_more_than_it_sent(wire: Wire, ends: tuple[End, End]) -> None:
    """All datagrams of a meeting, cut, changed, sent from elsewhere: what comes back is never larger."""
    alice, bob = ends
    alice.send(bob, b"payload")
    wire.deliver()
    dice = Random(5)
    for _, _, data in list(wire.log):
        for _ in range(60):
            changed = bytearray(data)
            if dice.random() < 0.5:
                changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            if dice.random() < 0.3:
                del changed[dice.randrange(1, len(changed)) :]
            stranger = bytes([172, 16, *dice.randbytes(4)])
            outputs = bob.book.received(stranger, bytes(changed), wire.now)
            sent = [one for one in outputs if isinstance(one, Transmit)]
            assert sum(len(one.data) for one in sent if one.endpoint == stranger) <= len(changed)
            assert all(isinstance(one, Transmit) for one in outputs)
            wire.now += 0.01


def test_a_knock_without_its_padding_draws_no_larger_answer(
    wire: Wire, ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = ends
    with monkeypatch.context() as patch:
        patch.setattr(datagram, "Knock", Proof)  # a knock is sealed as it is then
        alice.send(bob, b"payload")
    (sent,) = wire.log
    assert len(sent[2]) < HELLO_MAX_SIZE_BYTES
    outputs = bob.book.received(bytes([172, 16, 0, 0, 0, 0]), sent[2], wire.now)
    assert sum(len(one.data) for one in outputs if isinstance(one, Transmit)) <= len(sent[2])


@given(st.binary(max_size=1400), st.sampled_from([*Kind, None]))
def test_any_bytes_do_nothing_but_perhaps_say_unknown(data: bytes, kind: Kind | None) -> None:
    wire = Wire()
    alice = End(wire, "alice", 1)
    data = data if kind is None else bytes([kind]) + data[1:]
    outputs = alice.book.received(b"\1" * 6, data, wire.now)
    assert len(outputs) <= 1
    for output in outputs:
        assert isinstance(output, Transmit)
        assert len(output.data) == DATAGRAM_MIN_SIZE_BYTES <= len(data)
    assert len(alice.book) == 0
    assert alice.book.next_deadline() is None


def test_garbage_is_cheap_and_leaves_nothing(wire: Wire, ends: tuple[End, End]) -> None:
    alice, _ = ends
    garbage = [bytes([wire.dice.randrange(4)]) + wire.dice.randbytes(wire.dice.randrange(1300)) for _ in range(5000)]
    answers = [alice.book.received(wire.dice.randbytes(6), data, wire.now) for data in garbage]
    assert alice.checks == 0
    assert sum(map(len, answers)) <= limits.UNKNOWN_ANSWERS_PER_S
    assert (len(alice.book), len(alice.book._greetings), len(alice.book._proving)) == (0, 0, 0)


def test_only_so_many_strangers_a_second(wire: Wire, ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = ends
    alice.greet(bob)
    ((_, _, knock),) = wire.log
    sealed = list[Hello]()

    def seal(hello: Hello, key: bytes, nonce: bytes) -> bytes:
        sealed.append(hello)
        return datagram.seal_hello(hello, key, nonce)

    monkeypatch.setattr(pairs, "seal_hello", seal)
    answers = [bob.book.received(n.to_bytes(6, "big"), knock, wire.now) for n in range(limits.KNOCKS_PER_S + 100)]
    assert sum(map(len, answers)) == len(sealed) == limits.KNOCKS_PER_S, "one too many costs no answer"
    assert len(bob.book) == 0


def test_a_proof_from_elsewhere_or_too_late_is_none(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    wire.drop = lambda number, data: number == 2
    alice.greet(bob)
    wire.deliver()
    proof = wire.log[2][2]
    assert bob.book.received(b"\7" * 6, proof, wire.now) == []
    assert bob.book.received(alice.endpoint, proof, wire.now + 3 * limits.COOKIE_SLOT_S) == []
    assert len(bob.book) == 0
    assert bob.book.received(alice.endpoint, proof, wire.now) != []
    assert len(bob.book) == 1


def test_only_so_many_greetings_at_once(wire: Wire, ends: tuple[End, End]) -> None:
    alice, _ = ends
    for n in range(limits.GREETINGS_MAX_COUNT + 50):
        alice.do(alice.book.greet(n.to_bytes(6, "big"), wire.now))
    assert len(wire.log) == limits.GREETINGS_MAX_COUNT
    wire.settle()
    assert alice.book.next_deadline() is None


# --- replays ---


def test_nothing_is_read_twice(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    for number in range(5):
        alice.send(bob, bytes([number]))
        wire.deliver()
    before = list(bob.read)
    for source, target, data in list(wire.log):
        for place in (source, b"\7" * 6):
            wire.put(place, target, data)
    wire.settle()
    assert bob.read == before


def test_nothing_from_before_a_restart_is_read_after_it(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"transfer")
    wire.deliver()
    old = list(wire.log)
    again = End(wire, "bob", 2)
    for source, target, data in old:
        wire.put(source, target, data)
    alice.send(again, b"new")
    wire.settle()
    alice.send(again, b"newer")
    wire.settle()
    assert b"transfer" not in again.payloads
    assert again.payloads[-1] == b"newer"
    for source, target, data in old:
        wire.put(source, target, data)
    assert b"transfer" not in again.payloads


# --- restarts and moves ---


def test_a_host_that_has_restarted_is_met_again(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"before")
    wire.settle()
    bob = End(wire, "bob", 2)
    alice.send(bob, b"lost")
    wire.settle()
    assert Kind.UNKNOWN in wire.kinds()
    alice.send(bob, b"after")
    wire.settle()
    assert bob.payloads == [b"after"]
    bob.send(alice, b"back")
    wire.settle()
    assert alice.payloads == [b"back"]


def test_a_restarted_host_that_speaks_first(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"before")
    wire.settle()
    bob = End(wire, "bob", 2)
    bob.send(alice, b"here again")
    wire.settle()
    alice.send(bob, b"so I hear")
    wire.settle()
    assert alice.payloads == [b"here again"]
    assert bob.payloads == [b"so I hear"]
    assert len(alice.book) == 1


def test_a_lie_about_forgetting_changes_nothing(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"one")
    wire.settle()
    forged = bytes([Kind.UNKNOWN]) + wire.log[-1][2][1:DATAGRAM_MIN_SIZE_BYTES]
    assert alice.book.received(b"\7" * 6, forged, wire.now) == []
    future = forged[:9] + b"\xff" * 8 + forged[17:]
    assert alice.book.received(bob.endpoint, future, wire.now) == []
    wire.put(bob.endpoint, alice.endpoint, forged)  # at the worst they meet once more
    wire.settle()
    alice.send(bob, b"two")
    wire.settle()
    assert bob.payloads == [b"one", b"two"]


def test_a_host_that_moves_is_believed_once_it_answers_there(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"before")
    wire.settle()
    old, alice.endpoint = alice.endpoint, bytes([10, 0, 0, 9, 0, 1])
    wire.places[alice.endpoint] = wire.places.pop(old)
    alice.send(bob, b"dropped")
    wire.settle()
    alice.send(bob, b"heard")
    wire.settle()
    assert bob.read[-1] == (alice.node, alice.endpoint, b"heard")
    assert b"dropped" not in bob.payloads
    assert bob.met[-1] == (alice.node, alice.endpoint)


def test_a_datagram_that_was_carried_elsewhere_draws_no_answer_there(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"before")
    wire.settle()
    wire.drop = lambda number, data: True
    alice.send(bob, bytes(600))
    victim = b"\7" * 6
    sent = [one for one in bob.book.received(victim, wire.log[-1][2], wire.now) if isinstance(one, Transmit)]
    assert [one.endpoint for one in sent] == [victim]
    assert kind_of(sent[0].data) is Kind.UNKNOWN  # the smallest there is
    assert bob.book.next_deadline() is None
    again = [bob.book.received(bytes([8, n, 8, 8, 8, 8]), wire.log[-1][2], wire.now) for n in range(100)]
    assert sum(map(len, again)) == 0  # replays


def test_keys_do_not_last_for_ever(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"one")
    wire.settle()
    hellos = wire.kinds().count(Kind.HELLO)
    wire.now += limits.PAIR_LIFETIME_S
    alice.send(bob, b"two")
    wire.settle()
    assert wire.kinds().count(Kind.HELLO) == hellos + 3
    assert bob.payloads == [b"one", b"two"]


def test_whoever_never_shows_its_certificate_again_is_forgotten(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    alice.send(bob, b"one")
    wire.settle()
    wire.now += 2 * limits.PAIR_LIFETIME_S
    alice.book._peers[bob.node].met_at = wire.now  # it does not renew by itself
    alice.send(bob, b"unheard")
    wire.settle()
    assert bob.payloads == [b"one"]
    alice.send(bob, b"heard")
    wire.settle()
    assert bob.payloads == [b"one", b"heard"]


def test_only_so_many_hosts_are_remembered(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAIRS_MAX_COUNT", 3)
    alice = End(wire, "alice", 1)
    others = [End(wire, f"host {n}", 10 + n) for n in range(5)]
    for other in others:
        alice.send(other, b"one")
        wire.settle()
    assert len(alice.book) == 3
    assert len(alice.book._by_tag) == len(alice.book._by_tag_out) == 3
    others[0].send(alice, b"forgotten")
    wire.settle()
    others[0].send(alice, b"met again")
    wire.settle()
    assert (others[0].node, others[0].endpoint, b"met again") in alice.read


def test_many_meetings_leave_two_pairs_and_few_endpoints(wire: Wire, ends: tuple[End, End]) -> None:
    alice, bob = ends
    for place in range(20, 30):
        old, alice.endpoint = alice.endpoint, bytes([10, 0, 0, place, 0, 1])
        wire.places[alice.endpoint] = wire.places.pop(old)
        alice.greet(bob)
        wire.settle()
    peer = bob.book._peers[alice.node]
    assert len(peer.pairs) == limits.PAIRS_PER_PEER_COUNT
    assert len(peer.endpoints) == limits.ENDPOINTS_PER_PEER_COUNT
    assert len(bob.book._by_tag) == len(bob.book._by_tag_out) == limits.PAIRS_PER_PEER_COUNT
