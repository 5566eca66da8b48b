"""Hosts in network namespaces of their own, behind one switch: links that are shaped, cut, lossy and healed.

The switch is a bridge in a namespace too, so that nothing is made in the machine's own. Each host has a veth pair: its
end is shaped by tbf for what it sends, the switch's end for what it receives. A partition is a second bridge: the
ports of each side hang on their own, and no carrier is lost, so that daemons notice as they would in a data centre.

    network = Namespaces(Shape(up_mbit_per_s=200, down_mbit_per_s=200))
    with Testbed(network=network) as testbed:
        founder, hosts = testbed.found(), testbed.join(4)
        network.partition([hosts[0].number, hosts[1].number])
        network.heal()

Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN), `ip`, `tc` and `nsenter`, and `nft` for losses.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from simnet.testbed.network import Place
from simnet.testbed.processes import TestbedError
from simnet.testbed.programs import present, run, tool
from simnet.testbed.runs import NAMESPACES, namespace_of, new_run

QUEUE_S = 0.02
"""What a port's queue holds, in the time that its link takes for it."""
QUEUE_LEAST_BYTES = 512 << 10
"""Both with their reasons in docs/decisions/0020."""
BURST_BYTES = 128 << 10
"""What passes at once. More than the 64 KiB, and the headers of each frame of it, that a host hands to its device as
one segment: what is larger than this is cut into frames one by one, which took half of the processors."""
CONGESTION_CONTROL = "reno"
"""How hosts send, whatever the machine does. BBR takes a full bucket for the link's rate, and loses most of what it
sends from then on: docs/decisions/0063."""
HOSTS_MAX = 250
_SWITCH = "switch"
_PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}
"""Each with the Debian package that brings it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A host's link, Ethernet headers included; None for as fast as the machine."""

    up_mbit_per_s: float | None = None
    down_mbit_per_s: float | None = None


class Namespaces:
    """link: what each host gets at first."""

    cleaner: Sequence[str] = (sys.executable, "-P", "-m", "simnet.testbed.runs")

    def __init__(self, link: Shape | None = None) -> None:
        self._link = link or Shape()
        self._run = ""
        self._hosts: list[int] = []
        self._bridges = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """`TestbedError`, in one line, where a program or a right is missing."""
        for program, package in _PROGRAMS.items():
            if not present(program):
                raise TestbedError(f"the testbed needs {program}, from the Debian package {package}")
        with ExitStack() as stack:
            try:
                self._run = stack.enter_context(new_run())
            except PermissionError as error:
                raise TestbedError(f"the testbed makes network namespaces, which takes root: {error}") from error
            self._make(_SWITCH)
            self._bridge(0)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attach(self, number: int) -> Place:
        if number >= HOSTS_MAX:
            raise TestbedError(f"a testbed has at most {HOSTS_MAX} hosts")
        host, address = self._make(f"h{number}"), f"10.0.0.{number + 1}"
        switch = self.namespace(_SWITCH)
        self._ip(switch, f"link add h{number} type veth peer name eth0 netns {host}")
        self._ip(host, f"address add {address}/24 dev eth0", "link set lo up", "link set eth0 up")
        self._ip(switch, f"link set h{number} master br0 up")
        self._sysctl(host, "net/ipv4/tcp_congestion_control", CONGESTION_CONTROL)
        self._hosts.append(number)
        self.shape(number, self._link)
        return Place(address, (tool("nsenter"), f"--net={NAMESPACES / host}"))

    def namespace(self, name: str) -> str:
        """What `ip netns` calls it: `switch`, `h0`, `h1`, ..."""
        return namespace_of(self._run, name)

    # --- on command ---

    def shape(self, number: int, link: Shape) -> None:
        """From now on the host has this link."""
        self._tc(self.namespace(f"h{number}"), "eth0", link.up_mbit_per_s)
        self._tc(self.namespace(_SWITCH), f"h{number}", link.down_mbit_per_s)

    def partition(self, *sides: Iterable[int]) -> None:
        """Each side reaches only itself; hosts that are on none are one more side."""
        groups = [list(side) for side in sides]
        named = {number for group in groups for number in group}
        groups.insert(0, [number for number in self._hosts if number not in named])
        while self._bridges < len(groups):
            self._bridge(self._bridges)
        self._ip(
            self.namespace(_SWITCH),
            *(f"link set h{number} master br{side}" for side, group in enumerate(groups) for number in group),
        )

    def heal(self) -> None:
        """Everybody reaches everybody."""
        self.partition()

    def lose(self, number: int, share: float) -> None:
        """Of the frames to and from the host so many are lost, at random; 0 ends that. `TestbedError` without nft."""
        table, port = f"bridge loss{number}", f"h{number}"
        rules = [f"add table {table}", f"delete table {table}"]
        if share:
            drop = "drop" if share >= 1 else f"numgen random mod 1000000 < {round(share * 1_000_000)} drop"
            rules += [
                f"add table {table}",
                f"add chain {table} frames {{ type filter hook forward priority 0; }}",
                f'add rule {table} frames iifname "{port}" {drop}',
                f'add rule {table} frames oifname "{port}" {drop}',
            ]
        self._nft(rules)

    def lose_datagrams(self, *, lost: bool) -> None:
        """Whether all UDP between hosts is lost, and with it whatever they find each other by."""
        table = "bridge datagrams"
        rules = [f"add table {table}", f"delete table {table}"]
        if lost:
            rules += [
                f"add table {table}",
                f"add chain {table} frames {{ type filter hook forward priority 0; }}",
                f"add rule {table} frames ip protocol udp drop",
            ]
        self._nft(rules)

    # --- how ---

    def _nft(self, rules: Sequence[str]) -> None:
        if not present("nft"):
            raise TestbedError("losses need nft, from the Debian package nftables")
        self._do("ip", "netns", "exec", self.namespace(_SWITCH), tool("nft"), "-f", "-", text="\n".join(rules))

    def _make(self, name: str) -> str:
        namespace = self.namespace(name)
        self._do("ip", "netns", "add", namespace)
        return namespace

    def _bridge(self, number: int) -> None:
        self._ip(self.namespace(_SWITCH), f"link add br{number} type bridge", f"link set br{number} up")
        self._bridges = number + 1

    def _tc(self, namespace: str, device: str, mbit_per_s: float | None) -> None:
        if mbit_per_s is None:
            delete = [tool("tc"), "-n", namespace, "qdisc", "delete", "dev", device, "root"]
            subprocess.run(delete, capture_output=True, check=False)  # there may be none
            return
        bits_per_s = round(mbit_per_s * 1e6)
        queue_bytes = max(QUEUE_LEAST_BYTES, round(QUEUE_S * bits_per_s / 8)) + BURST_BYTES
        qdisc = f"qdisc replace dev {device} root tbf rate {bits_per_s}bit burst {BURST_BYTES} limit {queue_bytes}"
        self._do("tc", "-n", namespace, *qdisc.split())

    def _ip(self, namespace: str, *commands: str) -> None:
        self._do("ip", "-n", namespace, "-batch", "-", text="\n".join(commands))

    def _sysctl(self, namespace: str, name: str, value: str) -> None:
        self._do("nsenter", f"--net={NAMESPACES / namespace}", tool("tee"), f"/proc/sys/{name}", text=value)

    def _do(self, program: str, *arguments: str, text: str = "") -> None:
        try:
            run(program, *arguments, text=text)
        except subprocess.CalledProcessError as error:
            words = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit {error.returncode}"]
            command = " ".join((program, *arguments))
            raise TestbedError(
                f"the testbed's network: {words[0]} ({command}); it takes root and Linux's tbf"
            ) from error
