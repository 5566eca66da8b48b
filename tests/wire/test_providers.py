"""Provider records: nobody alters one, nobody writes one for another host, and any bytes are a record or an error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.addresses import check_dialable
from protocol.errors import CorruptError, LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, ImageId, Nonce, SealingKey
from protocol.limits import ADDRESSES_MAX_COUNT, PROVIDER_RECORD_MAX_SIZE_BYTES
from protocol.providers import (
    ProviderRecord,
    ProviderState,
    open_provider,
    seal_provider,
)
from tests.wire.cas import NOW, credential_of, signing_key

HOST = credential_of("host")
PRIVATE = signing_key("host node")
KEY = DiscoveryKey.of_image(ImageId(bytes(range(32))))
RECORD = ProviderRecord(
    KEY,
    HOST.node,
    HOST.node_key,
    HOST.sealing_key,
    HOST.nonce,
    ("10.0.0.7:7400", "[fd00::7]:7400"),
    ProviderState.PARTIAL,
    1234,
    NOW + 2400,
)
SEALED = seal_provider(RECORD, PRIVATE.sign)

IPV4 = st.ip_addresses(v=4).filter(lambda ip: not ip.is_unspecified and not ip.is_multicast).map(str)
IPV6 = st.ip_addresses(v=6).filter(lambda ip: not ip.is_unspecified and not ip.is_multicast).map("[{}]".format)
ADDRESSES = st.builds("{}:{}".format, IPV4 | IPV6, st.integers(1, 65535))


def test_a_record_comes_back_as_it_was() -> None:
    assert open_provider(SEALED) == RECORD
    assert len(SEALED) < 300


@settings(max_examples=40)
@given(
    st.lists(ADDRESSES, min_size=1, max_size=ADDRESSES_MAX_COUNT),
    st.sampled_from(ProviderState),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_every_record_comes_back(addresses: list[str], state: ProviderState, sequence: int, expires_at: int) -> None:
    record = replace(RECORD, addresses=tuple(addresses), state=state, sequence=sequence, expires_at=expires_at)
    data = seal_provider(record, PRIVATE.sign)
    assert open_provider(data) == record
    assert len(data) <= PROVIDER_RECORD_MAX_SIZE_BYTES


@given(st.integers(0, len(SEALED) * 8 - 1))
def test_no_bit_of_it_can_be_changed(bit: int) -> None:
    data = bytearray(SEALED)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((CorruptError, MalformedError)):
        open_provider(bytes(data))


@given(st.binary(max_size=700))
def test_any_bytes_are_a_record_or_an_error(data: bytes) -> None:
    with pytest.raises((CorruptError, MalformedError)):
        open_provider(data)


@given(st.binary(max_size=400))
def test_any_signed_bytes_are_a_record_or_an_error(body: bytes) -> None:
    with pytest.raises((CorruptError, MalformedError)):
        open_provider(SEALED[:64] + body)


def test_another_hosts_signature_does_not_do() -> None:
    data = seal_provider(RECORD, signing_key("somebody else").sign)
    with pytest.raises(CorruptError):
        open_provider(data)


def test_the_id_follows_from_the_keys() -> None:
    """Another sealing key or nonce makes another host of it: its records are not this host's."""
    for changed in (
        replace(RECORD, sealing_key=SealingKey(bytes(range(32)))),
        replace(RECORD, nonce=Nonce(bytes(range(16)))),
    ):
        with pytest.raises(LocalError):
            seal_provider(changed, PRIVATE.sign)


def test_a_key_that_is_no_point_is_an_error() -> None:
    at = SEALED.index(HOST.node_key)
    for forged in (b"\xff" * 32, bytes(32)):
        with pytest.raises(CorruptError):
            open_provider(SEALED[:at] + forged + SEALED[at + 32 :])


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ()},
        {"addresses": ("10.0.0.7:7400",) * (ADDRESSES_MAX_COUNT + 1)},
        {"addresses": ("example.org:7400",)},
        {"addresses": ("0.0.0.0:7400",)},
        {"sequence": -1},
        {"expires_at": 2**64},
    ],
)
def test_what_nobody_would_accept_is_not_signed(change: dict[str, object]) -> None:
    with pytest.raises(LocalError):
        seal_provider(replace(RECORD, **change), PRIVATE.sign)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " :",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:080",
        "10.0.0.01:80",
        "fd00::1:80",
        "[fd00::1]",
        "[10.0.0.1]:80",
        "[fd00:0::1]:80",
        "[FD00::1]:80",
        "[fe80::1%eth0]:80",
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
        "host:80",
        "10.0.0.1:+80",
        "10.0.0.1: 80",
        "10.0.0.1:8\u0660",
    ],
)
def test_what_cannot_be_dialled_is_no_address(text: str) -> None:
    with pytest.raises(MalformedError):
        check_dialable(text)


@given(ADDRESSES)
def test_what_can_be_dialled_is_one(text: str) -> None:
    check_dialable(text)
