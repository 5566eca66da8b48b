"""A throwaway cluster of real daemons, one process each."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from simnet.testbed.daemon import DEFAULT_SETTINGS, Daemon
from simnet.testbed.network import Loopback, Network
from simnet.testbed.processes import ProcessGroup, TestbedError

PORT = 7400


class Testbed:
    """A throwaway cluster. Leaving the context ends every process and removes every file."""

    __test__ = False  # not a class of tests, whatever its name starts with

    def __init__(self, directory: Path | None = None, network: Network | None = None) -> None:
        """directory: under which to make this testbed's own; None: where large temporary files belong. network: None
        for loopback."""
        self._under = directory or temporary_directory()
        self._network = network or Loopback()
        self._stack = ExitStack()
        self.daemons: list[Daemon] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._network)
            directory = Path(tempfile.mkdtemp(prefix="enticed-", dir=self._under))
            self.group = stack.enter_context(ProcessGroup(directory, self._network.cleaner))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for daemon in self.daemons:
            daemon.gone()

    @property
    def directory(self) -> Path:
        return self.group.directory

    @property
    def founder(self) -> Daemon:
        return self.daemons[0]

    def new_host(self, settings: str = DEFAULT_SETTINGS, address: str | None = None) -> Daemon:
        """A host that belongs to no cluster yet."""
        number = len(self.daemons)
        place = self._network.attach(number)
        daemon = Daemon(self.group, number, address or f"{place.address}:{PORT}", settings, place.within)
        self.daemons.append(daemon)
        return daemon

    def found(self, settings: str = DEFAULT_SETTINGS, labels: Sequence[str] = ()) -> Daemon:
        """Found a cluster and start its first host. labels: `--rack R` and `--zone Z`, as `entice` takes them."""
        host = self.new_host(settings)
        host.must("init", "--state", host.state, "--listen", host.address, "--label", host.label, *labels)
        host.start()
        return host

    def join(self, count: int = 1, settings: str = DEFAULT_SETTINGS, labels: Sequence[str] = ()) -> list[Daemon]:
        """Enrol so many more hosts and start them."""
        token = self.token(count)
        hosts = [self.new_host(settings) for _ in range(count)]
        joining = [
            host.call("join", token, "--state", host.state, "--listen", host.address, "--label", host.label, *labels)
            for host in hosts
        ]
        for host, call in zip(hosts, joining, strict=True):
            done = call.wait()
            if done.exit_code:
                raise TestbedError(f"host {host.number} could not join: {done.stderr.strip()}")
        for host in hosts:
            host.start_soon()
        for host in hosts:
            host.wait_ready()
        return hosts

    def token(self, uses: int = 1) -> str:
        return self.founder.must("token", "--uses", str(uses)).strip()

    def running(self) -> Iterator[Daemon]:
        return (daemon for daemon in self.daemons if daemon.process is not None)


def temporary_directory() -> Path:
    """Where large temporary files belong: what TMPDIR says, else /var/tmp, which is a disk where /tmp is memory."""
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named)
    return Path("/var/tmp") if os.access("/var/tmp", os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
