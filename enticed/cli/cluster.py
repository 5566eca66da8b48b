"""Founding a cluster, joining one, and the tokens in between. Only `token` needs a daemon."""

from __future__ import annotations

import shlex
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enticed.cli.command import Command, Number, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import duration, pairs
from enticed.config import DEFAULT_LISTEN, DEFAULT_SOCKET, DEFAULT_STATE
from enticed.limits import TOKEN_LINE_MAX_CHARS, TOKEN_MAX_LIFETIME_S, TOKEN_MAX_USES, TOKEN_MIN_LIFETIME_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    from enticed.identity.host import HostIdentity
    from protocol.labels import HostLabel


def _host_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--zone", default="", metavar="Z", help="Where this host is: its zone."),
        click.option(
            "--rack", default="", metavar="R", help="Where in the zone: hosts of one rack are near each other."
        ),
        click.option(
            "--label",
            "labels",
            metavar="K=V",
            multiple=True,
            help="What schedulers choose hosts by; several.  [default: host=HOSTNAME]",
        ),
        click.option(
            "--listen", metavar="ADDR:PORT", help="Where other hosts reach this one.  [default: 0.0.0.0:7400]"
        ),
        click.option(
            "--state",
            "state_dir",
            metavar="DIR",
            required=True,
            type=click.Path(path_type=Path, readable=False),
            help="Where the daemon will keep identity and images.",
        ),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@_host_options
@click.pass_context
def init(
    ctx: click.Context, state_dir: Path, listen: str | None, rack: str, zone: str, labels: tuple[str, ...]
) -> None:
    """Found a cluster on this host: its CA, and this host's node and publisher keys.

    One host does this, once; it enrols the others, and says who may do what. Needs no daemon.

    \b
    entice init --state /var/lib/enticed --zone east --rack r12
    """
    said = _check_host(listen, rack, zone, labels)
    from enticed.config_sources import remember_listen
    from enticed.identity.host import found_cluster

    identity = found_cluster(state_dir, zone, rack, time.time(), said, _serves_at(listen))
    remember_listen(state_dir, listen)
    start, entice = _start_line(state_dir), _entice(state_dir)

    def tell() -> Iterable[str]:
        yield from _enrolled("Founded a cluster on this host.", identity)
        yield ""
        yield f"Start its daemon:          {start}"
        yield f"Then, for another host:    {entice} token    (here: prints a token)"
        yield "and on that other host:    entice join - --state DIR    (reads the token)"

    setup_of(ctx).show(_identity_json(identity, state_dir, founder=True, start=start), tell)


@click.command(cls=Command)
@click.argument("token")
@_host_options
@click.pass_context
def join(
    ctx: click.Context, token: str, state_dir: Path, listen: str | None, rack: str, zone: str, labels: tuple[str, ...]
) -> None:
    """Enrol this host in the cluster that TOKEN is from.

    `entice token` on the founding host prints the token; that host's daemon has to run. Needs no daemon here. With `-`
    the token is read from standard input: an argument can be seen by everybody on this host.

    \b
    entice join - --state /var/lib/enticed --rack r13
    """
    said = _check_host(listen, rack, zone, labels)
    from enticed.config_sources import remember_listen
    from enticed.identity.enrol import join_cluster
    from protocol.errors import AbsentError, MalformedError
    from protocol.token import parse_token

    if token == "-":
        token = sys.stdin.readline(TOKEN_LINE_MAX_CHARS).strip()
    try:
        parse_token(token)
    except MalformedError as error:
        raise Failed(Exit.USAGE, str(error)) from error
    try:
        identity = join_cluster(state_dir, token, zone, rack, labels=said)
    except AbsentError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise Failed(Exit.TEMPORARY, f"{error} (the founding host's daemon has to run)") from error
    remember_listen(state_dir, listen)
    start, entice = _start_line(state_dir), _entice(state_dir)

    def tell() -> Iterable[str]:
        yield from _enrolled("This host has joined the cluster.", identity)
        yield ""
        yield f"Start its daemon:   {start}"
        yield f"Then, for example:  {entice} pull NAME --output disk.raw"

    setup_of(ctx).show(_identity_json(identity, state_dir, founder=False, start=start), tell)


@click.command(cls=Command)
@click.option(
    "--uses", default=1, metavar="N", type=click.IntRange(1, TOKEN_MAX_USES), help="For so many hosts.  [default: 1]"
)
@click.option(
    "--ttl",
    "ttl_s",
    default=3600.0,
    metavar="S",
    type=Number(TOKEN_MIN_LIFETIME_S, TOKEN_MAX_LIFETIME_S),
    help="Good for so many seconds.  [default: 3600]",
)
@click.option("--campaigns", is_flag=True, help="Hosts that join with it may place orders on others.")
@click.pass_context
def token(ctx: click.Context, uses: int, ttl_s: float, campaigns: bool) -> None:
    """Print a token with which other hosts join the cluster.

    Works on the founding host, through its daemon. A token is a secret: who has it can join.

    \b
    entice token --uses 40 --ttl 86400
    """
    answer = daemon_of(ctx).ask("POST", "/v1/tokens", {"uses": uses, "ttl_s": ttl_s, "campaigns": campaigns})
    setup_of(ctx).show(answer, lambda: [answer["token"]])


def _check_host(listen: str | None, rack: str, zone: str, labels: tuple[str, ...]) -> tuple[HostLabel, ...]:
    """Refuse what is wrong before anything is made; the host's labels, its name among them."""
    from enticed.identity.host import check_labels
    from protocol.addresses import split_address
    from protocol.errors import LocalError, MalformedError
    from protocol.labels import HOST, HostLabel, check_label, parse_label_text

    try:
        if listen is not None:
            split_address(listen, any_port=True)
    except MalformedError as error:
        raise Failed(Exit.USAGE, f"--listen {listen}: {error}") from error
    try:
        said = [parse_label_text(text) for text in labels]
        if not any(label.key == HOST for label in said):
            called = HostLabel(HOST, socket.gethostname().partition(".")[0])
            with suppress(MalformedError):  # a name that no label can hold: then the host has none
                check_label(called)
                said.append(called)
        return check_labels(zone, rack, tuple(said))
    except (LocalError, MalformedError) as error:
        raise Failed(Exit.USAGE, f"--zone, --rack or --label: {error}") from error


def _serves_at(listen: str | None) -> IPv4Address | IPv6Address:
    """The address that this host's certificate names for clients of its HTTPS API."""
    from ipaddress import ip_address

    from enticed.host_address import own_address
    from protocol.addresses import split_address

    named = ip_address(split_address(listen or DEFAULT_LISTEN, any_port=True)[0])
    if not named.is_unspecified:
        return named
    own = own_address(socket.AF_INET6 if named.version == 6 else socket.AF_INET)
    return ip_address(own) if own is not None else ip_address("127.0.0.1")


def _start_line(state_dir: Path) -> str:
    """The service's state is the service's to run; the directory of its socket is there while it does."""
    if state_dir.absolute() == DEFAULT_STATE:
        return "systemctl enable --now enticed"
    return f"enticed --state {shlex.quote(str(state_dir))} --socket {_own_socket(state_dir)}"


def _entice(state_dir: Path) -> str:
    """What reaches the daemon of `_start_line`."""
    return "entice" if state_dir.absolute() == DEFAULT_STATE else f"entice --socket {_own_socket(state_dir)}"


def _own_socket(state_dir: Path) -> str:
    return shlex.quote(str(state_dir / DEFAULT_SOCKET.name))


def _enrolled(title: str, identity: HostIdentity) -> Iterable[str]:
    credential = identity.credential
    left_s = credential.not_after - time.time()
    return pairs(
        title,
        [
            ("host", str(identity.node)),
            ("zone", credential.zone),
            ("rack", credential.rack),
            ("labels", ", ".join(map(str, credential.labels))),
            ("certificate", f"good for {duration(left_s)}"),
            ("kept in", str(identity.directory)),
        ],
    )


def _identity_json(identity: HostIdentity, state_dir: Path, *, founder: bool, start: str) -> dict[str, Any]:
    return {
        "node_id": str(identity.node),
        "zone": identity.credential.zone,
        "rack": identity.credential.rack,
        "labels": {label.key: label.value for label in identity.credential.labels},
        "founder": founder,
        "state": str(state_dir),
        "certificate_expires_at": float(identity.credential.not_after),
        "start": start,
    }
