"""Addresses: numeric, with a port, one spelling each; and which of a peer's may be dialled."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.transfer.addresses import HostPort, dialable
from protocol.errors import MalformedError


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses_come_back(ip: object, port: int) -> None:
    text = f"{ip}:{port}" if ":" not in str(ip) else f"[{ip}]:{port}"
    parsed = HostPort.parse(text)
    assert str(parsed) == text
    assert HostPort.of(parsed.sockaddr) == parsed
    assert (parsed.family is socket.AF_INET6) == ("[" in text)


@given(st.text(max_size=30) | st.text("0123456789.:[]%abf", max_size=30))
def test_any_text_is_an_address_or_malformed(text: str) -> None:
    try:
        parsed = HostPort.parse(text)
    except MalformedError:
        return
    assert HostPort.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.1:",
        ":4646",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "10.0.0.1:1e3",
        "10.0.0.1:٣",
        "10.0.0.1:000000",
        "host:1",
        "fd00::1:4646",
        "[10.0.0.1]:1",
        "[fe80::1%eth0]:1",
        "[::1]1",
        "[::1:1",
        "10.0.0.1:1 ",
    ],
)
def test_what_is_no_address_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        HostPort.parse(text)


def test_what_the_kernel_says_is_read_with_its_scope_left_out() -> None:
    assert str(HostPort.of(("fe80::1%eth0", 4646, 0, 2))) == "[fe80::1]:4646"


def test_only_specific_addresses_are_dialled_each_once() -> None:
    texts = ["10.0.0.1:1", "nonsense", "0.0.0.0:1", "[::]:1", "224.0.0.1:1", "10.0.0.1:0", "10.0.0.1:1", "[fd00::1]:2"]
    assert [str(one) for one in dialable(texts, ())] == ["10.0.0.1:1", "[fd00::1]:2"]


def test_only_addresses_in_the_networks_are_dialled() -> None:
    texts = ["10.0.0.1:1", "10.1.0.1:1", "[fd00::1]:2", "[fd01::1]:2"]
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00::/16")]
    assert [str(one) for one in dialable(texts, networks)] == ["10.1.0.1:1", "[fd00::1]:2"]
