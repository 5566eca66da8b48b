"""What has left the hosts that had from the start what others order: their daemons say it, as long as they can."""

from __future__ import annotations

from collections.abc import Sequence

from simnet.testbed.daemon import Daemon


class Seeds:
    """Asked by one thread at a time. Who lets something happen to a host says so before: what cannot answer counts with
    what it had said last. `OSError` where a daemon does not answer of whom nothing was said."""

    def __init__(self, hosts: Sequence[Daemon], ordered_bytes: int) -> None:
        self._hosts = hosts
        self._ordered_bytes = ordered_bytes
        self._last_bytes: dict[int, int] = {}
        """Of the hosts that cannot answer."""
        self._former_bytes = 0
        """Of daemons that were killed, and others came after them: these count from 0."""
        self._before_bytes = self._sent_bytes()

    def copies(self) -> float:
        """Of all that is ordered, since this is here."""
        return (self._sent_bytes() - self._before_bytes) / self._ordered_bytes

    def falls_silent(self, host: Daemon) -> None:
        """It is about to be frozen, or killed."""
        if host.number not in self._last_bytes and any(host.number == seed.number for seed in self._hosts):
            self._last_bytes[host.number] = _said_bytes(host)

    def answers(self, host: Daemon, *, anew: bool) -> None:
        """Again; anew: it is another daemon."""
        last_bytes = self._last_bytes.pop(host.number, 0)
        if anew:
            self._former_bytes += last_bytes

    def _sent_bytes(self) -> int:
        last = self._last_bytes
        sent = [last[host.number] if host.number in last else _said_bytes(host) for host in self._hosts]
        return sum(sent) + self._former_bytes


def _said_bytes(host: Daemon) -> int:
    return int(host.control.get("/v1/status")["sent_bytes"])
