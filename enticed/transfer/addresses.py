"""Addresses of hosts: `10.0.0.1:4646` or `[fd00::1]:4646`, numeric."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from protocol.addresses import IpNetwork, join_address, split_address
from protocol.errors import MalformedError


@dataclass(frozen=True, slots=True)
class HostPort:
    ip: IPv4Address | IPv6Address
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """`MalformedError` for anything but a numeric address in its usual spelling and a port of 0 to 65535."""
        host, port = split_address(text, any_port=True)
        return cls(ip_address(host), port)

    @classmethod
    def of(cls, sockaddr: tuple[object, ...]) -> HostPort:
        """From what `getsockname` and `accept` give."""
        return cls(ip_address(str(sockaddr[0]).partition("%")[0]), int(str(sockaddr[1])))

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.ip.version == 4 else socket.AF_INET6

    @property
    def sockaddr(self) -> tuple[str, int]:
        return str(self.ip), self.port

    def __str__(self) -> str:
        return join_address(*self.sockaddr)


def dialable(addresses: Iterable[str], networks: Sequence[IpNetwork]) -> tuple[HostPort, ...]:
    """Those of a peer's addresses that this host may dial: well-formed, specific, in one of the networks (if any)."""
    found: list[HostPort] = []
    for text in addresses:
        try:
            address = HostPort.parse(text)
        except MalformedError:
            continue  # others may be right; and a peer that lists nonsense harms itself only
        specific = address.port and not address.ip.is_unspecified and not address.ip.is_multicast
        if specific and (not networks or any(address.ip in network for network in networks)):
            found.append(address)
    return tuple(dict.fromkeys(found))
