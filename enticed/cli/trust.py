"""Who may do what: shown, taken back, rotated, and the CA backed up."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from enticed.cli.command import Command, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import ago, short, size, table
from enticed.limits import ORDERS_MAX_COUNT, SCHEDULER_MAX_LIFETIME_S, TOKEN_LINE_MAX_CHARS


def _state_option(about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Not checked by click: who may not read it is denied, which is no wrong usage."""
    path = click.Path(path_type=Path, readable=False)
    return click.option("--state", "state_dir", metavar="DIR", required=True, type=path, help=about)


@click.command(cls=Command)
@click.argument("who")
@click.pass_context
def revoke(ctx: click.Context, who: str) -> None:
    """Take back what WHO may do: a host by its id or name, a scheduler or a publisher by its name.

    Works on the founding host, through its daemon. Every host that can be reached goes by it within a minute: sessions
    with a revoked host are cut, and it can neither connect nor renew its certificate. It cannot be taken back: the host
    has to join again.

    \b
    entice revoke 6b5702595251
    """
    answer = daemon_of(ctx).ask("POST", "/v1/trust/revocations", {"who": who})
    said = f"{who} is revoked: every host that can be reached goes by it within a minute."
    setup_of(ctx).show(answer, lambda: [said, *_too_few_lines(answer)])


@click.group()
def trust() -> None:
    """Show who may do what, rotate the CA, and keep a copy of it.

    \b
    entice trust show
    """


@trust.command(cls=Command)
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show who may do what, by the newest trust bundle that this host has.

    Who has a certificate is known on the founding host alone.

    \b
    entice trust show
    """
    answer = daemon_of(ctx).ask("GET", "/v1/trust")
    setup_of(ctx).show(answer, lambda: _lines(answer))


@trust.command(cls=Command)
@click.pass_context
def hosts(ctx: click.Context) -> None:
    """List the hosts with a certificate: all that have joined, but for those revoked or whose certificate has ended.

    Works on the founding host, through its daemon. NEWEST CA says no while the CA is rotated, of who has no certificate
    by the new one yet. A host that has joined again is listed once more, by its new id.

    \b
    entice trust hosts
    """
    answer = daemon_of(ctx).ask("GET", "/v1/trust/hosts")
    columns = ("HOST", "NAME", "ZONE", "RACK", "EXPIRES", "NEWEST CA")
    rows = [
        (
            short(one["node_id"]),
            one["name"],
            one["zone"],
            one["rack"],
            ago(one["expires_at"]),
            "no" if one["behind"] else "yes",
        )
        for one in sorted(answer["hosts"], key=lambda one: (one["name"], one["expires_at"]))
    ]
    setup_of(ctx).show(answer, lambda: table(columns, rows, "no hosts"))


@trust.command(cls=Command)
@click.argument("count", type=int)
@click.pass_context
def threshold(ctx: click.Context, count: int) -> None:
    """Have so many different publishers sign each image and each name, before any host fetches anything of it.

    Works on the founding host, through its daemon. What fewer have signed by now is not found and not fetched any more:
    have it signed (`entice sign`) first. Hosts that have it keep it.

    \b
    entice trust threshold 2
    """
    answer = daemon_of(ctx).ask("POST", "/v1/trust/threshold", {"threshold": count})
    many = "1 publisher has" if count == 1 else f"{count} publishers have"
    setup_of(ctx).show(answer, lambda: [f"{many} to sign from now on, on every host within a minute."])


@trust.command(cls=Command)
@click.argument("name")
@click.option("--orders", metavar="N", type=click.IntRange(1, ORDERS_MAX_COUNT), help="So many orders at once.")
@click.option("--bytes", "size_text", metavar="SIZE", help="So much data at once, such as 500GiB; 0: no bound.")
@click.pass_context
def quota(ctx: click.Context, name: str, orders: int | None, size_text: str | None) -> None:
    """Bound what the scheduler NAME may have ordered on one host at once; what is not said stays as it is.

    Works on the founding host, through its daemon, and on every host within a minute. What is ordered stays ordered;
    beyond its quota, a scheduler is refused with 429 and the numbers.

    \b
    entice trust quota nova --orders 200 --bytes 500GiB
    """
    if orders is None and size_text is None:
        raise Failed(Exit.USAGE, "say what is to be bound: --orders N, --bytes SIZE")
    asked = {"name": name, "orders": orders, "bytes": None if size_text is None else _bytes_of(size_text)}
    answer = daemon_of(ctx).ask("POST", "/v1/trust/schedulers", asked | {"lifetime_s": SCHEDULER_MAX_LIFETIME_S})
    said = next(one for one in answer["schedulers"] if one["name"] == name)
    setup_of(ctx).show(answer, lambda: [f"Scheduler {name}: {_bounds(said)} on a host."])


def _bytes_of(text: str) -> int:
    found = re.fullmatch(r"(\d{1,18})(|B|KiB|MiB|GiB|TiB)", text)
    if found is None:
        raise Failed(Exit.USAGE, f"{text!r} is no size: such as 500GiB, or a number of bytes")
    power = ("B", "KiB", "MiB", "GiB", "TiB").index(found[2] or "B")
    return int(found[1]) << 10 * power


def _bounds(said: dict[str, Any]) -> str:
    return f"{said['orders']} orders" + ("" if said["bytes"] is None else f", {size(said['bytes'])}")


@trust.command(cls=Command)
@click.argument("what", type=click.Choice(["ca", "publisher"]))
@click.option("--finish", is_flag=True, help="Retire what was before the newest.")
@click.option("--force", is_flag=True, help="With --finish: even if hosts are cut off by it, and have to join again.")
@click.pass_context
def rotate(ctx: click.Context, what: str, finish: bool, force: bool) -> None:
    """Put a new CA in the place of the present one, or another key for the founding host's publisher.

    Nothing stops for it: from then on both are believed. Hosts have their certificates renewed by the new CA, within
    some minutes where they are up; names and images are signed by the new key at once. --finish retires what was
    before: of the CA, once `entice trust show` says that nobody is behind.

    \b
    entice trust rotate ca
    entice trust rotate ca --finish
    """
    answer = daemon_of(ctx).ask("POST", "/v1/trust/rotations", {"what": what, "finish": finish, "force": force})

    def tell() -> Iterable[str]:
        if what == "publisher":
            yield "The old key is believed no longer." if finish else "Names and images are signed by a new key."
        elif finish:
            yield f"One CA is left: {short(answer['authorities'][-1]['sha256'])}. Join tokens from before are void."
        else:
            yield f"A new CA is believed beside the old: {short(answer['authorities'][-1]['sha256'])}."
            yield "Once `entice trust show` says that no host is behind: entice trust rotate ca --finish"

    setup_of(ctx).show(answer, tell)


@trust.command(cls=Command)
@_state_option("The daemon's state.")
@click.pass_context
def key(ctx: click.Context, state_dir: Path) -> None:
    """Print the public key with which this host publishes; make the key if there is none.

    The key itself never leaves the host. Needs no daemon; one that runs takes a new key up when it is restarted.

    \b
    entice trust key --state /var/lib/enticed
    """
    from enticed.identity.publisher import make_publisher

    publisher, is_new = make_publisher(state_dir)
    result = {"key": publisher.key.hex(), "made": is_new}

    def tell() -> Iterable[str]:
        yield publisher.key.hex()
        if is_new:
            yield "On the founding host:  entice grant publisher NAME --names 'PREFIX:*' --key " + publisher.key.hex()
            yield "and restart the daemon here."

    setup_of(ctx).show(result, tell)


@trust.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, readable=False))
@_state_option("The founding host's state.")
@click.pass_context
def backup(ctx: click.Context, file: Path, state_dir: Path) -> None:
    """Write the founding host's identity to FILE, encrypted with a passphrase: the CA and all keys.

    The passphrase is asked for, or read from standard input where that is no terminal. Who has both can do everything:
    keep them apart. Do it again after each rotation. Needs no daemon.

    \b
    entice trust backup ca.backup --state /var/lib/enticed
    """
    from enticed.identity.backup import write_backup

    write_backup(state_dir, file, _passphrase(confirm=True))
    setup_of(ctx).show({"file": str(file)}, lambda: [f"The CA is in {file}, encrypted."])


@trust.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, readable=False))
@_state_option("Where the founding host's state is to be: without an identity yet.")
@click.pass_context
def restore(ctx: click.Context, file: Path, state_dir: Path) -> None:
    """Make this host the founding host again, from a FILE of `entice trust backup`.

    The old one must not run any more. Needs no daemon; start it then, and let it meet the others before you grant or
    revoke anything: they tell it what has happened since.

    \b
    entice trust restore ca.backup --state /var/lib/enticed
    """
    from enticed.identity.authority import Authority
    from enticed.identity.backup import restore_backup

    identity = restore_backup(file, state_dir, _passphrase(confirm=False))
    Authority.load(state_dir, identity=identity).renew_own_at_rest()
    result = {"node_id": str(identity.node), "serial": identity.trust.serial}
    wait = (
        f"It knows trust bundle {identity.trust.serial}: start it, and grant or revoke nothing until `entice trust "
        "show` says the same here and on a host that was up, or those revoked since are trusted again."
    )
    setup_of(ctx).show(result, lambda: [f"This is the founding host {identity.node} again.", wait])


@trust.command(cls=Command)
@_state_option("The founding host's state.")
@click.pass_context
def renew(ctx: click.Context, state_dir: Path) -> None:
    """Sign the founding host's own certificate anew, where it was off until that had expired.

    Other hosts' certificates, and its own while it runs, are renewed by themselves. Look at the clock first: what is
    signed with a wrong one is of no use to anybody. Needs no daemon; start it then.

    \b
    entice trust renew --state /var/lib/enticed
    """
    from enticed.identity.authority import Authority

    expires_at = Authority.load(state_dir).renew_own_at_rest()
    setup_of(ctx).show({"expires_at": expires_at}, lambda: [f"The certificate of this host expires {ago(expires_at)}."])


def _passphrase(*, confirm: bool) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline(TOKEN_LINE_MAX_CHARS).rstrip("\n")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


def _lines(answer: dict[str, Any]) -> Iterable[str]:
    yield f"Trust bundle {answer['serial']}, made {ago(answer['issued_at'])}"
    yield ""
    yield "CAs, oldest first"
    for one in answer["authorities"]:
        yield f"  {short(one['sha256'])}  expires {ago(one['expires_at'])}"
    yield "Registrars: let hosts join, renew their certificates"
    for node in answer["registrars"]:
        yield f"  {short(node)}"
    yield f"Publishers: sign images and names ({answer['threshold']} must)"
    for one in answer["publishers"]:
        here = "  this host" if one["is_this_host"] else ""
        yield f"  {one['name']}  key {short(one['key'])}  {', '.join(one['names'])}{here}"
    yield from _too_few_lines(answer)
    yield from _certified_lines(answer)
    yield from _revoked_lines(answer["revoked"])


def _too_few_lines(answer: dict[str, Any]) -> Iterable[str]:
    left, threshold = len({one["name"] for one in answer["publishers"]}), answer["threshold"]
    if left < threshold:
        are = "is" if left == 1 else "are"
        yield (
            f"{threshold} publishers have to sign, and {left} {are} left: no host fetches anything until "
            f"`entice grant publisher` names another, or `entice trust threshold {max(1, left)}` asks for fewer."
        )


def _certified_lines(answer: dict[str, Any]) -> Iterable[str]:
    certified = answer["certified"]
    holders = [] if certified is None else certified["schedulers"]
    yield "Schedulers: order and cancel images over HTTPS"
    for one in holders:
        yield f"  {one['name']}  certificate {short(one['node_id'])}  expires {ago(one['expires_at'])}"
    for one in answer["schedulers"]:
        how = "token" if one["has_token"] else "quota"
        yield f"  {one['name']}  {how}, {_bounds(one)} on a host, expires {ago(one['expires_at'])}"
    if certified is None:
        yield "Hosts and schedulers with certificates: the founding host knows"
        return
    yield f"Hosts: {certified['hosts']} with a certificate, {certified['behind']} of all not by the newest CA"
    yield "Of these, may order on others"
    for one in certified["dispatchers"]:
        yield f"  {short(one['node_id'])}  {one['name']}".rstrip()


def _revoked_lines(revoked: list[dict[str, Any]]) -> Iterable[str]:
    yield f"Revoked: {len(revoked)}"
    for one in revoked[-_REVOKED_SHOWN_COUNT:]:
        yield f"  {short(one['node_id'])}  listed until its certificate ends, {ago(one['until'])}"


_REVOKED_SHOWN_COUNT = 10
