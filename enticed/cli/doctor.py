"""What is wrong with this host, and what to do about it: from the daemon where one answers, else from its files."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import EADDRINUSE
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from enticed.cli.command import Command, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.config import DEFAULT_FILE, DEFAULT_SOCKET, DEFAULT_STATE, Config, api_address
from enticed.config_sources import Sources
from enticed.host_address import own_address
from enticed.store.version import VERSION, VERSION_MAX_SIZE_BYTES, check_version
from protocol.addresses import join_address, split_address
from protocol.errors import AbsentError, EnticedError, LocalError

Finding = dict[str, Any]
"""area, name, verdict (good, hint, wrong), said, to_do; as `GET /v1/doctor` has them."""
_STA_UNSYNC = 0x0040
_MARKS = {"good": "ok", "hint": "hint", "wrong": "WRONG"}


class _Timex(ctypes.Structure):
    """The beginning of the kernel's `struct timex`, and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_long * 32),
    )  # fmt: skip


@click.command(cls=Command)
@click.option(
    "--state",
    "state_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The daemon's state, where none answers.  [default: /var/lib/enticed]",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Its settings, where none answers.  [default: /etc/enticed/enticed.toml where there is one]",
)
@click.pass_context
def doctor(ctx: click.Context, state_dir: Path | None, file: Path | None) -> None:
    """Say what is wrong with host, store, time, network and trust of this host, and what to do.

    Asks the daemon, which tries out what can be tried; where none answers, looks at its settings, its identity and its
    state. The exit code is 1 where something is wrong; hints do not count.

    \b
    entice doctor
    """
    try:
        findings: list[Finding] = daemon_of(ctx).ask("GET", "/v1/doctor")["findings"]
    except Failed as error:
        if error.code not in (Exit.NO_DAEMON, Exit.TEMPORARY):
            raise
        is_gone = error.code is Exit.NO_DAEMON  # else it holds its addresses itself
        start = "start" if is_gone else "restart"
        to_do = f"systemctl {start} enticed; journalctl -u enticed -n 20"
        if state_dir not in (None, DEFAULT_STATE):  # the service has another
            to_do = f"{start} it as it was started: where it cannot, its last line says why"
        findings = [
            _wrong("host", "daemon", str(error), to_do),
            *_without_daemon(state_dir, file, setup_of(ctx).socket, is_gone=is_gone),
        ]
    findings = [*findings, _kept_clock()]
    wrong = sum(one["verdict"] == "wrong" for one in findings)
    setup_of(ctx).show({"findings": findings, "wrong": wrong}, lambda: _lines(findings))
    if wrong:
        raise Failed(Exit.FAILED, f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong with this host")


def _lines(findings: list[Finding]) -> Iterable[str]:
    """What is wrong first, then hints, then the rest."""
    order = list(_MARKS)
    for one in sorted(findings, key=lambda one: -order.index(one["verdict"])):
        yield f"{_MARKS[one['verdict']]:<5}  {one['area']}: {one['name'].replace('_', ' ')}: {one['said']}"
        if one["to_do"]:
            yield f"       -> {one['to_do']}"


def _without_daemon(state_dir: Path | None, file: Path | None, socket_path: str, *, is_gone: bool) -> Iterator[Finding]:
    if state_dir is None and socket_path != str(DEFAULT_SOCKET):
        said = f"not looked at: which state belongs to the daemon of {socket_path} is not known"
        yield _finding("store", "state", "hint", said, "entice doctor --state DIR, as enticed was started")
        return
    state_dir, file = state_dir or DEFAULT_STATE, file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    try:
        config = Sources(state_dir, file).load().config
    except EnticedError as error:
        config = None
        yield _wrong("host", "settings", str(error), "mend that file: entice config show")
    else:
        yield _finding("host", "settings", "good", "they can be read")
    if not os.access(state_dir, os.R_OK | os.X_OK):
        there = "cannot be read by you" if state_dir.exists() else "is not there"
        to_do = "ask as root, or mount its file system; a new host: entice init, or entice join"
        yield _wrong("store", "state", f"{state_dir} {there}", to_do)
        return
    yield from _identity(state_dir)
    yield from _store(state_dir)
    if config is not None and is_gone:
        said_socket = Path(socket_path) if socket_path != str(DEFAULT_SOCKET) else config.socket
        yield from _socket_directory(said_socket, state_dir)
        yield from _addresses(config, state_dir)


def _socket_directory(path: Path, state_dir: Path) -> Iterator[Finding]:
    if path.parent.is_dir():
        return
    said = f"there is no directory {path.parent}, where the daemon is to listen"
    if (state_dir, path) == (DEFAULT_STATE, DEFAULT_SOCKET):
        yield _finding("host", "socket", "hint", said, "the service makes it when it starts: systemctl start enticed")
        return
    to_do = f"make it, or start the daemon with another: enticed --state {state_dir} --socket {state_dir}/{path.name}"
    yield _wrong("host", "socket", said, to_do)


def _addresses(config: Config, state_dir: Path) -> Iterator[Finding]:
    """Whether what the daemon listens on is to be had, tried as it does: TCP and UDP."""
    from enticed.identity.host import is_founder

    for one in config.listen:
        host, port = split_address(one, any_port=True)
        yield _listening("listen", host, port, socket.SOCK_STREAM)
        yield _listening("listen", host, port, socket.SOCK_DGRAM)
        if not config.advertise and ip_address(host).is_unspecified and own_address(_family(host)) is None:
            said = f"{one} is a wildcard and this host has no route"
            yield _wrong("network", "advertise", said, "say in `advertise` what others dial")
    served = [(name, getattr(config, name)) for name in ("metrics_listen", "content_listen")]
    tcp = [(name, *split_address(address, any_port=True)) for name, address in served if address]
    with suppress(EnticedError):  # where the identity cannot be looked at, that has been said
        api = api_address(config, is_founder(state_dir))
        tcp += [("api_listen", *api)] if api is not None else []
    for setting, host, port in tcp:
        yield _listening(setting, host, port, socket.SOCK_STREAM)


def _listening(setting: str, host: str, port: int, kind: socket.SocketKind) -> Finding:
    protocol = "udp" if kind is socket.SOCK_DGRAM else "tcp"
    name, where = f"{setting}_{protocol}", join_address(host, port)
    try:
        with socket.socket(_family(host), kind) as tried:
            if kind is socket.SOCK_STREAM:  # as the daemon does: connections that have ended are in nobody's way
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if tried.family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tried.bind((host, port))
    except OSError as error:
        who = f"ss -lnp --{protocol} 'sport = :{port}' says who has it" if error.errno == EADDRINUSE else "ip address"
        to_do = f"{who}; or another {setting} in the settings: entice config show"
        return _wrong("network", name, f"cannot listen on {where}: {error.strerror}", to_do)
    return _finding("network", name, "good", f"{where} can be listened on")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _identity(state_dir: Path) -> Iterator[Finding]:
    from enticed.identity.host import load_identity

    try:
        identity = load_identity(state_dir)
        identity.require_valid(time.time())
    except EnticedError as error:
        yield _wrong("trust", "identity", str(error), _identity_to_do(state_dir, error))
    else:
        left_days = (identity.credential.not_after - time.time()) / 86400
        said = f"host {identity.node}, its certificate is good for {left_days:.0f} days"
        yield _finding("trust", "identity", "good", said)


def _identity_to_do(state_dir: Path, error: EnticedError) -> str:
    """The founding host's identity holds the CA: it is never moved away to join with another."""
    from enticed.identity.host import identity_directory, is_founder

    directory = identity_directory(state_dir)
    if isinstance(error, AbsentError):
        return "a new host: entice join; a founding host that has lost its identity: entice trust restore"
    with suppress(EnticedError):
        if is_founder(state_dir):
            return (
                f"{directory} holds the cluster's CA: keep it. Is this host's clock right? Else, where the certificate "
                "has expired: entice trust renew; where files are damaged: entice trust restore"
            )
    return f"is this host's clock right? Else move {directory} away and let it join again: entice join"


def _version(state_dir: Path) -> Iterator[Finding]:
    path = state_dir / VERSION
    try:
        with path.open("rb") as stream:
            check_version(stream.read(VERSION_MAX_SIZE_BYTES).decode(errors="replace"))
    except FileNotFoundError:  # no daemon has run yet
        return
    except LocalError as error:
        yield _wrong("store", "version", str(error), "install it again: nothing was touched")
    except (OSError, EnticedError) as error:
        yield _wrong("store", "version", f"{path}: {error}", "see to the disk: dmesg; or who has written there")


def _store(state_dir: Path) -> Iterator[Finding]:
    yield from _version(state_dir)
    found = os.statvfs(state_dir)
    if found.f_flag & os.ST_RDONLY:
        yield _wrong("store", "file_system", f"{state_dir} is on a read-only file system", "see to the disk: dmesg")
    free_bytes, free_inodes = found.f_bavail * found.f_frsize, found.f_favail
    if free_bytes < 64 * 1024 * 1024 or (found.f_files and not free_inodes):
        said = f"{free_bytes // (1024 * 1024)} MiB and {free_inodes} inodes are free at {state_dir}"
        yield _wrong("store", "space", said, "make room: the daemon needs some to start")
    holder = state_dir / "lock"
    held_by = holder.read_text(encoding="utf-8", errors="replace").strip() if os.access(holder, os.R_OK) else ""
    if held_by:
        said = f"{state_dir} was taken last by {held_by}, which does not answer"
        yield _finding("store", "lock", "hint", said, "does it still run, with another --socket?")


def _kept_clock() -> Finding:
    """Whether the kernel knows of anybody who keeps the clock: certificates, names and due dates go by it."""
    timex = _Timex()  # all zero: only to look
    code = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    if code < 0 or timex.status & _STA_UNSYNC:
        said = "the kernel knows of nobody who keeps this host's clock"
        return _finding("time", "synchronised", "hint", said, "run chrony or systemd-timesyncd: chronyc tracking")
    return _finding("time", "synchronised", "good", "the clock is kept")


def _finding(area: str, name: str, verdict: str, said: str, to_do: str = "") -> Finding:
    return {"area": area, "name": name, "verdict": verdict, "said": said, "to_do": to_do}


def _wrong(area: str, name: str, said: str, to_do: str) -> Finding:
    return _finding(area, name, "wrong", said, to_do)
