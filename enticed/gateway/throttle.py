"""Slows down who keeps failing."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from enticed.limits import JOIN_FAILURES_MAX_COUNT, JOIN_FAILURES_WINDOW_S, JOIN_SOURCES_MAX_COUNT


@dataclass(frozen=True, slots=True)
class _Failures:
    since: float
    count: int


class FailureThrottle:
    """Counts failures by source: an IPv4 address, or an IPv6 /64, within which one host has addresses at will."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """How long this address has to wait before its next attempt is looked at; 0 if it need not."""
        failures = self._sources.get(source_of(address))
        if failures is None or failures.count < JOIN_FAILURES_MAX_COUNT:
            return 0.0
        return max(0.0, failures.since + JOIN_FAILURES_WINDOW_S - now)

    def charge(self, address: str, now: float) -> None:
        """An attempt from this address has failed."""
        source = source_of(address)
        failures = self._sources.pop(source, None)
        if failures is None or now >= failures.since + JOIN_FAILURES_WINDOW_S:
            failures = _Failures(now, 0)
        self._sources[source] = _Failures(failures.since, failures.count + 1)
        if len(self._sources) > JOIN_SOURCES_MAX_COUNT:
            self._sources.popitem(last=False)


def source_of(address: str) -> str:
    """Whom an address counts as."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((ip, 64), strict=False))
