"""Granting: certificates and tokens for schedulers, names for publishers; keys stay with who asked."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from enticed.cli.command import Command, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import ago, pairs
from enticed.limits import (
    ORDERS_MAX_COUNT,
    ORDERS_PER_OWNER_MAX_COUNT,
    SCHEDULER_LIFETIME_S,
    SCHEDULER_MAX_LIFETIME_S,
)

BEARER_PREFIX = "ENS1."
_DAY_S = 86400


@click.command(cls=Command)
@click.argument("role", type=click.Choice(["scheduler", "publisher"]))
@click.argument("name")
@click.option(
    "--output",
    metavar="DIR",
    default=".",
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    help="Where to write what is made: NAME.key, and of a scheduler NAME.crt and ca.crt.  [default: here]",
)
@click.option(
    "--days",
    default=SCHEDULER_LIFETIME_S // _DAY_S,
    metavar="N",
    type=click.IntRange(1, SCHEDULER_MAX_LIFETIME_S // _DAY_S),
    help=f"Of a scheduler: good for so long.  [default: {SCHEDULER_LIFETIME_S // _DAY_S}]",
)
@click.option(
    "--names",
    metavar="PATTERN",
    multiple=True,
    help="Of a publisher: which names it may sign, a name or a beginning and '*'; several.",
)
@click.option("--key", metavar="HEX", help="Of a publisher: its public key (`entice trust key` there), none is made.")
@click.option("--token", is_flag=True, help="Of a scheduler: a bearer token on top, for clients without certificates.")
@click.option(
    "--orders",
    metavar="N",
    type=click.IntRange(1, ORDERS_MAX_COUNT),
    help=f"Of a scheduler: so many orders on one host at once.  [default: {ORDERS_PER_OWNER_MAX_COUNT}]",
)
@click.pass_context
def grant(
    ctx: click.Context,
    role: str,
    name: str,
    output: Path,
    days: int,
    names: tuple[str, ...],
    key: str | None,
    token: bool,
    orders: int | None,
) -> None:
    """Let the scheduler NAME order images over HTTPS, or the publisher NAME sign some names.

    Works on the founding host, through its daemon. Two certificates of one NAME are one scheduler: so it is renewed.

    \b
    entice grant scheduler nova --output /etc/nova/enticed
    entice grant publisher builds --names 'ubuntu:*' --key 5f3a...
    """
    if role == "publisher":
        if token or orders:
            raise Failed(Exit.USAGE, "--token and --orders are of schedulers")
        _grant_publisher(ctx, name, output, names, key)
    elif names or key:
        raise Failed(Exit.USAGE, "--names and --key are of publishers")
    else:
        _grant_scheduler(ctx, name, output, days, with_token=token, orders=orders)


def _grant_publisher(ctx: click.Context, name: str, output: Path, names: tuple[str, ...], key: str | None) -> None:
    if not names:
        raise Failed(Exit.USAGE, "say which names the publisher may sign: --names 'ubuntu:*'")
    path = None
    if key is None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        from enticed.identity.pem import key_pem

        path = output / f"{name}.key"
        _check_room(output, path)
        private = Ed25519PrivateKey.generate()
        key = private.public_key().public_bytes_raw().hex()
        # Written before it is trusted: a key that is trusted and lost would be of use to nobody.
        _write_files(output, {path: (key_pem(private), 0o600)})
    try:
        daemon_of(ctx).ask("POST", "/v1/trust/publishers", {"name": name, "key": key, "names": list(names)})
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise
    result = {"name": name, "key": key, "names": list(names), "file": None if path is None else str(path)}

    def tell() -> Iterable[str]:
        yield f"Publisher {name} may sign {', '.join(names)}, on every host within a minute."
        if path is not None:
            yield f"Its key, a secret, is in {path}: move it to STATE/identity/publisher.key of the host that"
            yield "publishes, owned by the daemon's user, and restart the daemon there."

    setup_of(ctx).show(result, tell)


def _grant_scheduler(
    ctx: click.Context, name: str, output: Path, days: int, *, with_token: bool, orders: int | None
) -> None:
    from enticed.identity.host import HostKeys
    from enticed.identity.pem import certificate_pem, key_pem
    from protocol.enrolment import request_certificate

    files = {"certificate": output / f"{name}.crt", "key": output / f"{name}.key", "ca": output / "ca.crt"}
    _check_room(output, files["certificate"], files["key"])
    keys = HostKeys.generate()
    request = base64.b64encode(request_certificate(keys.node, keys.sealing_key)).decode()
    terms = {"role": "scheduler", "name": name, "request": request, "lifetime_s": days * _DAY_S}
    answer = daemon_of(ctx).ask("POST", "/v1/grants", terms)
    # All that are believed: while one CA follows the other, hosts show certificates of either.
    authorities = daemon_of(ctx).ask("GET", "/v1/trust")["authorities"]
    authority = b"".join(certificate_pem(base64.b64decode(one["certificate"])) for one in authorities)
    made = {
        files["key"]: (key_pem(keys.node), 0o600),
        files["certificate"]: (certificate_pem(base64.b64decode(answer["certificate"])), 0o644),
    }
    if not files["ca"].exists() or files["ca"].read_bytes() != authority:
        made[files["ca"]] = (authority, 0o644)
    _write_files(output, made)
    token = f"{BEARER_PREFIX}{secrets.token_urlsafe(32)}" if with_token else None
    if token or orders:
        hashed = {"token_sha256": hashlib.sha256(token.encode()).hexdigest()} if token else {}
        bounds = {"orders": orders} if orders else {}
        daemon_of(ctx).ask(
            "POST", "/v1/trust/schedulers", {"name": name, "lifetime_s": days * _DAY_S, **hashed, **bounds}
        )
    result = {
        "name": name,
        "id": answer["id"],
        "expires_at": answer["expires_at"],
        "api": answer["api"],
        "files": {kind: str(path) for kind, path in files.items()},
        "token": token,
    }
    setup_of(ctx).show(result, lambda: _lines(result))


def _check_room(output: Path, *files: Path) -> None:
    """What can be known to fail is found out before anything is granted."""
    if not output.is_dir():
        raise Failed(Exit.USAGE, f"there is no directory {output}")
    if not os.access(output, os.W_OK | os.X_OK):
        raise Failed(Exit.DENIED, f"you may not write in {output}")
    for path in files:
        if path.parent != output:
            raise Failed(Exit.USAGE, "a name is made of letters, digits, '.', '_' and '-'")
        if path.exists():
            raise Failed(Exit.FAILED, f"{path} is there already: move it away, or name another directory")


def _write_files(output: Path, files: dict[Path, tuple[bytes, int]]) -> None:
    """Each with its mode."""
    try:
        for path, (data, mode) in files.items():
            _write(path, data, mode)
    except OSError as error:
        raise Failed(Exit.FAILED, f"cannot write in {output}: {error.strerror}") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole, or not at all; never readable by more than `mode` says."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)


def _lines(result: dict[str, Any]) -> Iterable[str]:
    files = result["files"]
    api = next(iter(result["api"]), "HOST:7401")
    yield from pairs(
        f"Scheduler {result['name']} may order images, until its certificate expires {ago(result['expires_at'])}.",
        [
            ("certificate", files["certificate"]),
            ("key (a secret)", files["key"]),
            ("CA of the cluster", files["ca"]),
            ("token (a secret)", result["token"] or ""),
        ],
    )
    yield ""
    yield "For example:"
    yield f"  curl --cacert {files['ca']} --cert {files['certificate']} --key {files['key']} https://{api}/v1/orders"
