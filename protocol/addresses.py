"""Addresses as hosts tell them each other and as operators write them: `10.0.0.1:7400`, `[fd00::1]:7400`, numeric.

An address has one spelling, so that two hosts never take one place for two.
"""

import ipaddress
import re

from protocol.errors import MalformedError

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_ADDRESS = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(0|[1-9][0-9]{0,4})")


def split_address(address: str, any_port: bool = False) -> tuple[str, int]:
    """Host and port of a numeric `host:port` or `[v6]:port` in its one spelling; `MalformedError` for any other.

    any_port: port 0 is allowed too, by which a listener leaves the choice to the system.
    """
    fields = _ADDRESS.fullmatch(address)
    if fields is None:
        raise MalformedError("an address is host:port or [v6]:port, numeric")
    v6, v4, port = fields.groups()
    try:
        host = ipaddress.IPv6Address(v6) if v6 else ipaddress.IPv4Address(v4)
    except ValueError as error:
        raise MalformedError("not an IP address") from error
    if str(host) != (v6 or v4):
        raise MalformedError(f"an address that is not in its usual spelling: {host}")
    if not (0 if any_port else 1) <= int(port) <= 65535:
        raise MalformedError(f"{port} is no port: it is 1 to 65535")
    return str(host), int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_dialable(address: str) -> None:
    """`MalformedError` unless this is an address in its one spelling at which one host can be reached."""
    host, _ = split_address(address)
    ip = ipaddress.ip_address(host)
    if ip.is_unspecified or ip.is_multicast:
        raise MalformedError("an address that nobody can dial")
