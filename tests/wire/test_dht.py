"""The DHT's messages: each fits a datagram, comes back as it was, and any bytes are a message or an error."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.datagram import PAYLOAD_MAX_SIZE_BYTES
from protocol.dht import (
    DHT,
    Contact,
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
    endpoint_text,
    fitting_values,
    pack_endpoint,
    read_endpoint,
    unpack_endpoint,
)
from protocol.errors import LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.limits import (
    CONTACTS_MAX_COUNT,
    NAME_RECORD_MAX_SIZE_BYTES,
    PROVIDER_RECORD_MAX_SIZE_BYTES,
    PROVIDERS_MAX_COUNT,
)
from tests.wire.said import PLAIN

TOKENS = st.integers(0, 2**32 - 1)
KEYS = st.binary(min_size=20, max_size=20).map(DiscoveryKey)
NODES = st.binary(min_size=20, max_size=20).map(NodeId)
ENDPOINTS = st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18)
CONTACTS = st.lists(st.builds(Contact, NODES, ENDPOINTS), max_size=CONTACTS_MAX_COUNT).map(tuple)
PROVIDERS = st.binary(min_size=1, max_size=PROVIDER_RECORD_MAX_SIZE_BYTES)
NAMES = st.binary(min_size=1, max_size=NAME_RECORD_MAX_SIZE_BYTES)
MESSAGES: st.SearchStrategy[Any] = st.one_of(
    st.builds(Ping, TOKENS),
    st.builds(Pong, TOKENS),
    st.builds(FindNode, TOKENS, KEYS),
    st.builds(Nodes, TOKENS, CONTACTS),
    st.builds(FindValue, TOKENS, KEYS),
    st.builds(Values, TOKENS, st.lists(PROVIDERS, max_size=2).map(tuple), st.none() | NAMES, TOKENS, st.just(())),
    st.builds(Store, TOKENS, PROVIDERS),
    st.builds(StoreName, TOKENS, KEYS, NAMES),
    st.builds(Withdraw, TOKENS, KEYS),
    st.builds(Stored, TOKENS, st.sampled_from(Verdict), TOKENS),
    st.just(Goodbye()),
)


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: object) -> None:
    assert DHT.decode(DHT.encode(message)) == message


@given(st.binary(max_size=PAYLOAD_MAX_SIZE_BYTES))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        message = DHT.decode(data)
    except MalformedError:
        return
    assert DHT.decode(DHT.encode(message)) == message


@settings(max_examples=50)
@given(PLAIN)
def test_whatever_msgpack_can_say_is_a_message_or_malformed(plain: object) -> None:
    with pytest.raises(MalformedError):
        DHT.decode(msgpack.packb([4, 1, [plain]]))


def contact(number: int, endpoint_size_bytes: int = 6) -> Contact:
    return Contact(NodeId(number.to_bytes(20, "big")), bytes(endpoint_size_bytes))


@pytest.mark.parametrize("size", [0, 5, 7, 12, 17, 19])
def test_an_endpoint_is_of_one_family_or_the_other(size: int) -> None:
    with pytest.raises((MalformedError, LocalError)):
        DHT.encode(Nodes(1, (contact(1, size),)))


@pytest.mark.parametrize(
    "message",
    [
        Nodes(2**32 - 1, tuple(contact(n, 18) for n in range(CONTACTS_MAX_COUNT))),
        Store(2**32 - 1, bytes(PROVIDER_RECORD_MAX_SIZE_BYTES)),
        StoreName(2**32 - 1, DiscoveryKey(bytes(20)), bytes(NAME_RECORD_MAX_SIZE_BYTES)),
        Stored(2**32 - 1, Verdict.BUSY, 2**32 - 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_largest_of_each_fits(message: object) -> None:
    assert len(DHT.encode(message)) <= PAYLOAD_MAX_SIZE_BYTES


@given(st.lists(PROVIDERS, max_size=12).map(tuple), st.none() | NAMES, st.integers(0, 2**40), CONTACTS)
def test_an_answer_is_cut_until_it_fits(
    providers: tuple[bytes, ...], name: bytes | None, population: int, contacts: tuple[Contact, ...]
) -> None:
    values = fitting_values(2**32 - 1, providers, name, population, contacts)
    assert len(DHT.encode(values)) <= PAYLOAD_MAX_SIZE_BYTES
    assert values.name == name
    assert len(values.providers) <= PROVIDERS_MAX_COUNT
    assert set(values.providers) <= set(providers)
    assert values.contacts == contacts[: len(values.contacts)]


def test_an_answer_is_as_full_as_it_gets() -> None:
    providers = tuple(bytes([n]) * 230 for n in range(8))
    contacts = tuple(contact(n) for n in range(CONTACTS_MAX_COUNT))
    values = fitting_values(1, providers, None, 1000, contacts)
    assert (len(values.providers), len(values.contacts)) == (4, 8)
    small = fitting_values(1, providers[:2], None, 1000, contacts)
    assert (len(small.providers), len(small.contacts)) == (2, CONTACTS_MAX_COUNT)
    largest = fitting_values(1, providers, bytes(NAME_RECORD_MAX_SIZE_BYTES), 1000, contacts)
    assert (len(largest.providers), len(largest.contacts)) == (0, 5)


@pytest.mark.parametrize("text", ["10.0.0.1:1", "127.0.0.1:65535", "[::1]:7400", "[fd00:20::7]:80"])
def test_endpoints_are_addresses_in_bytes(text: str) -> None:
    endpoint = read_endpoint(text)
    assert len(endpoint) == (18 if "[" in text else 6)
    assert endpoint_text(endpoint) == text
    assert pack_endpoint(*unpack_endpoint(endpoint)) == endpoint


def test_a_scope_is_no_part_of_an_endpoint() -> None:
    assert pack_endpoint("fe80::1%eth0", 1) == pack_endpoint("fe80::1", 1)


@pytest.mark.parametrize(("host", "port"), [("host", 1), ("", 1), ("10.0.0.1", 65536), ("10.0.0.1", -1)])
def test_what_is_no_endpoint(host: str, port: int) -> None:
    with pytest.raises(MalformedError):
        pack_endpoint(host, port)
    for endpoint in (b"", bytes(7)):
        with pytest.raises(MalformedError):
            unpack_endpoint(endpoint)
