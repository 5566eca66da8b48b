"""What no log may hold, of any daemon or any test: every record and every log file of the whole suite is looked at."""

from __future__ import annotations

import logging
import re
from types import TracebackType

from simnet.testbed import Testbed

SECRETS = re.compile(
    r"ENTG1\.[A-Za-z0-9._-]+\.[A-Za-z0-9_-]{40,}"
    r"|ENT1\.\S+\.\S{8,}\.\S{8,}\.\S{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|PRIVATE KEY-----"
)
"""Join tokens, groups' lines and keys, as they are written where they may be."""


def of(text: str) -> list[str]:
    """The secrets in it, cut short: they must not stand in a test's report either."""
    return [found[:24] + "..." for found in SECRETS.findall(text)]


class Watchman(logging.Handler):
    """Of every record that any test logs: one with a secret fails the test that has logged it."""

    def emit(self, record: logging.LogRecord) -> None:
        found = of(record.getMessage())
        if found:
            raise AssertionError(f"{record.name} logs a secret: {found}")


def watch_logs() -> None:
    """From now on, in this process and in every daemon of a testbed."""
    logging.getLogger().addHandler(Watchman())
    leave = Testbed.__exit__

    def look_and_leave(
        testbed: Testbed, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        found = {daemon.number: of(daemon.log) for daemon in testbed.daemons}
        leave(testbed, kind, error, trace)
        assert not any(found.values()), f"secrets in the logs of hosts: {found}"

    Testbed.__exit__ = look_and_leave  # type: ignore[method-assign]
