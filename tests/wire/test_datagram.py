"""Sealed datagrams: what two hosts say to each other only they can read, write, or have read twice."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from protocol.datagram import (
    HELLO_MAX_SIZE_BYTES,
    HELLOS,
    PAYLOAD_MAX_SIZE_BYTES,
    Answer,
    Introduction,
    Kind,
    Knock,
    Pair,
    Proof,
    ReplayedError,
    agree_version,
    hello_key,
    kind_of,
    make_cookie,
    open_hello,
    read_tag,
    seal_hello,
    unknown_answer,
)
from protocol.errors import CorruptError, DeniedError, LocalError, MalformedError
from protocol.identifiers import SealingKey
from protocol.limits import (
    CERTIFICATE_MAX_SIZE_BYTES,
    DATAGRAM_MAX_SIZE_BYTES,
    DATAGRAM_MIN_SIZE_BYTES,
    REPLAY_WINDOW_COUNT,
)
from tests.wire.hosts import HELLO_KEY, Sealer

ALICE, BOB, EVE = Sealer.named("alice"), Sealer.named("bob"), Sealer.named("eve")
KNOCK = Knock(ALICE.introduction, bytes(16))
ANSWER = Answer(BOB.introduction, bytes(16), b"1" * 16)
PROOF = Proof(ALICE.introduction, bytes(16), b"1" * 16, b"2" * 16)
HEADER_SIZE_BYTES = 17


def both() -> tuple[Pair, Pair]:
    return ALICE.meet(BOB), BOB.meet(ALICE)


# --- sizes and kinds ---


def test_sizes_are_bounded_on_both_sides() -> None:
    for size in (0, DATAGRAM_MIN_SIZE_BYTES - 1, DATAGRAM_MAX_SIZE_BYTES + 1):
        with pytest.raises(MalformedError):
            kind_of(bytes([Kind.SEALED]) + bytes(max(size - 1, 0)))
    assert kind_of(bytes([Kind.SEALED]) + bytes(DATAGRAM_MIN_SIZE_BYTES - 1)) is Kind.SEALED


@given(st.binary(max_size=1400))
def test_any_bytes_are_of_a_kind_or_malformed(data: bytes) -> None:
    try:
        assert kind_of(data) == data[0]
    except MalformedError:
        pass


def test_the_largest_payload_fills_the_largest_datagram() -> None:
    alice, bob = both()
    data = alice.seal(bytes(PAYLOAD_MAX_SIZE_BYTES), 1)
    assert len(data) == DATAGRAM_MAX_SIZE_BYTES
    assert bob.open(data) == bytes(PAYLOAD_MAX_SIZE_BYTES)
    with pytest.raises(LocalError):
        alice.seal(bytes(PAYLOAD_MAX_SIZE_BYTES + 1), 2)


# --- hellos ---


@pytest.mark.parametrize("hello", [KNOCK, ANSWER, PROOF], ids=lambda hello: type(hello).__name__)
def test_a_hello_comes_back_as_it_was(hello: Knock | Answer | Proof) -> None:
    data = seal_hello(hello, HELLO_KEY, bytes(12))
    assert kind_of(data) is Kind.HELLO
    assert open_hello(data, (hello_key(b"an older CA"), HELLO_KEY)) == hello


def test_nothing_that_answers_a_knock_is_larger() -> None:
    certificate = bytes(CERTIFICATE_MAX_SIZE_BYTES)
    largest = Introduction(2**16 - 1, 2**16 - 1, (), 2**64 - 1, certificate, 2**64 - 1)
    knock = seal_hello(Knock(ALICE.introduction, bytes(16)), HELLO_KEY, bytes(12))
    assert len(knock) == DATAGRAM_MAX_SIZE_BYTES
    assert len(seal_hello(Answer(largest, bytes(16), bytes(16)), HELLO_KEY, bytes(12))) <= len(knock)
    seal_hello(Proof(largest, bytes(16), bytes(16), bytes(16)), HELLO_KEY, bytes(12))


def test_a_hello_that_does_not_fit_is_not_sealed() -> None:
    capabilities = tuple(f"capability-{n}-that-is-rather-long"[:32] for n in range(8))
    verbose = replace(ALICE.introduction, capabilities=capabilities, certificate=bytes(CERTIFICATE_MAX_SIZE_BYTES))
    with pytest.raises(LocalError):
        seal_hello(Knock(verbose, bytes(16)), HELLO_KEY, bytes(12))


def test_strangers_cannot_say_hello() -> None:
    data = seal_hello(KNOCK, hello_key(b"another CA"), bytes(12))
    with pytest.raises(CorruptError):
        open_hello(data, (HELLO_KEY,))


@given(st.binary(max_size=DATAGRAM_MAX_SIZE_BYTES))
def test_any_bytes_are_no_hello(data: bytes) -> None:
    with pytest.raises((MalformedError, CorruptError)):
        open_hello(b"\x01" + data, (HELLO_KEY,))


@given(st.binary(max_size=HELLO_MAX_SIZE_BYTES))
def test_any_sealed_bytes_are_a_hello_or_malformed(plain: bytes) -> None:
    header = bytes([Kind.HELLO]) + bytes(12)
    data = header + ChaCha20Poly1305(HELLO_KEY).encrypt(bytes(12), plain, header)
    with pytest.raises(MalformedError):
        open_hello(data, (HELLO_KEY,))


@given(st.integers(0, 8 * len(HELLOS.encode(KNOCK)) - 1))
def test_a_hello_is_read_strictly(bit: int) -> None:
    """Its parser behind the seal: a changed hello is another hello or malformed, never anything else."""
    packed = bytearray(HELLOS.encode(KNOCK))
    packed[bit // 8] ^= 1 << bit % 8
    try:
        assert HELLOS.decode(bytes(packed)) != KNOCK
    except MalformedError:
        pass


def test_padding_is_zeros() -> None:
    packed = HELLOS.encode(KNOCK)
    header = bytes([Kind.HELLO]) + bytes(12)
    plain = len(packed).to_bytes(2, "big") + packed + b"\0\0\1"
    with pytest.raises(MalformedError):
        open_hello(header + ChaCha20Poly1305(HELLO_KEY).encrypt(bytes(12), plain, header), (HELLO_KEY,))


def test_a_cookie_is_good_for_one_place_one_time_and_one_asker() -> None:
    secret = bytes(32)
    cookie = make_cookie(secret, b"endpoint", KNOCK, 7)
    assert cookie == make_cookie(secret, b"endpoint", PROOF, 7)
    others = {
        make_cookie(b"1" * 32, b"endpoint", KNOCK, 7),
        make_cookie(secret, b"elsewhere", KNOCK, 7),
        make_cookie(secret, b"endpoint", KNOCK, 8),
        make_cookie(secret, b"endpoint", Knock(EVE.introduction, bytes(16)), 7),
        make_cookie(secret, b"endpoint", Knock(ALICE.introduction, b"2" * 16), 7),
    }
    assert cookie not in others
    assert len(others) == 5


# --- versions ---


def test_the_version_spoken_is_the_lower_of_the_two_highest() -> None:
    def speaking(low: int, high: int) -> Introduction:
        return replace(ALICE.introduction, lowest_version=low, highest_version=high)

    assert agree_version(speaking(1, 4), speaking(2, 3)) == 3
    assert agree_version(speaking(1, 1), speaking(1, 9)) == 1
    for own, peer in (((1, 1), (2, 3)), ((2, 3), (1, 1))):
        with pytest.raises(DeniedError):
            agree_version(speaking(*own), speaking(*peer))


def test_keys_depend_on_what_was_said_about_versions() -> None:
    """Whoever changes an introduction on its way, to make two hosts speak an older version, makes them not speak."""
    changed = Sealer.named("alice", versions=(1, 5))
    with pytest.raises(CorruptError):
        BOB.meet(changed).open(ALICE.meet(BOB).seal(b"hello", 1))


# --- pairs ---


def test_both_ends_read_each_other_and_prove_themselves() -> None:
    alice, bob = both()
    assert alice.tag_out == bob.tag_in != alice.tag_in == bob.tag_out
    assert bob.open(alice.seal(b"to bob", 1)) == b"to bob"
    assert alice.open(bob.seal(b"to alice", 1)) == b"to alice"
    assert bob.is_proof(alice.prove())
    assert alice.is_proof(bob.prove())
    assert not alice.is_proof(alice.prove())
    assert not EVE.meet(BOB).is_proof(alice.prove())
    assert (alice.version, alice.introduction, alice.peer) == (1, BOB.introduction, BOB.credential)


def test_a_datagram_to_one_is_not_from_the_other() -> None:
    alice, bob = both()
    data = alice.seal(b"x", 1)
    with pytest.raises(CorruptError):
        alice.open(data)
    with pytest.raises(CorruptError):
        EVE.meet(ALICE).open(data)
    assert bob.open(data) == b"x"


@pytest.mark.parametrize("what", ["epoch", "challenge", "cookie"])
def test_no_two_meetings_have_the_same_keys(what: str) -> None:
    alice, _ = both()
    again = {
        "epoch": lambda: BOB.meet(Sealer.named("alice", epoch=2)),
        "challenge": lambda: BOB.meet(ALICE, challenge=b"d" * 16),
        "cookie": lambda: BOB.meet(ALICE, cookie=b"d" * 16),
    }[what]()
    assert again.tag_in != alice.tag_out
    with pytest.raises(CorruptError):
        again.open(alice.seal(b"x", 1))


@given(st.binary(max_size=200), st.integers(0))
def test_no_bit_of_a_datagram_can_be_changed(payload: bytes, bit: int) -> None:
    alice, bob = both()
    data = bytearray(alice.seal(payload, 1))
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptError):
        bob.open(bytes(data))


@given(st.binary(max_size=1300))
def test_any_bytes_are_no_datagram(data: bytes) -> None:
    _, bob = both()
    with pytest.raises(CorruptError):
        bob.open(bytes([Kind.SEALED]) + bob.tag_in + bytes(7) + b"\1" + data)


def test_nothing_is_read_twice() -> None:
    alice, bob = both()
    data = [alice.seal(bytes([n]), n) for n in range(1, 40)]
    Random(1).shuffle(data)
    for one in data:
        bob.open(one)
    for one in data:
        with pytest.raises(ReplayedError):
            bob.open(one)


@given(st.lists(st.integers(1, 3 * REPLAY_WINDOW_COUNT), max_size=60))
def test_the_window_opens_everything_new_once(counters: list[int]) -> None:
    alice, bob = both()
    opened: set[int] = set()
    newest = 0
    for counter in counters:
        data = alice.seal(b"", counter)
        if counter in opened or counter <= newest - REPLAY_WINDOW_COUNT:
            with pytest.raises(ReplayedError):
                bob.open(data)
        else:
            bob.open(data)
            opened.add(counter)
            newest = max(newest, counter)


def test_a_forged_counter_moves_no_window() -> None:
    alice, bob = both()
    forged = bytearray(alice.seal(b"", 1))
    forged[HEADER_SIZE_BYTES - 8 : HEADER_SIZE_BYTES] = b"\xff" * 8
    with pytest.raises(CorruptError):
        bob.open(bytes(forged))
    bob.open(alice.seal(b"", 1))


def test_a_counter_may_jump_to_the_end() -> None:
    alice, bob = both()
    bob.open(alice.seal(b"", 2**64 - 1))
    with pytest.raises(ReplayedError):
        bob.open(alice.seal(b"", 1))


def test_a_sealing_key_that_shares_no_secret_is_malformed() -> None:
    weak = replace(BOB, credential=replace(BOB.credential, sealing_key=SealingKey(bytes(32))))
    with pytest.raises(MalformedError):
        ALICE.meet(weak)


# --- tags ---


def test_the_answer_to_an_unknown_tag_is_the_smallest_datagram() -> None:
    data = ALICE.meet(BOB).seal(b"", 5)
    answer = unknown_answer(data)
    assert len(answer) == DATAGRAM_MIN_SIZE_BYTES <= len(data)
    assert kind_of(answer) is Kind.UNKNOWN
    assert read_tag(answer) == read_tag(data) == (ALICE.meet(BOB).tag_out, 5)


@given(st.binary(max_size=1300))
def test_any_bytes_have_a_tag_or_are_malformed(data: bytes) -> None:
    if len(data) < DATAGRAM_MIN_SIZE_BYTES:
        with pytest.raises(MalformedError):
            read_tag(data)
    else:
        assert len(read_tag(data)[0]) == 8
