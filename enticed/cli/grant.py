"""Granting: a certificate for a scheduler, whose key is made here and stays with who asked."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from enticed.cli.command import Command, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import ago, pairs
from enticed.limits import SCHEDULER_LIFETIME_S, SCHEDULER_MAX_LIFETIME_S

_DAY_S = 86400


@click.command(cls=Command)
@click.argument("role", type=click.Choice(["scheduler"]))
@click.argument("name")
@click.option(
    "--output",
    metavar="DIR",
    default=".",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write NAME.crt, NAME.key and ca.crt.  [default: here]",
)
@click.option(
    "--days",
    default=SCHEDULER_LIFETIME_S // _DAY_S,
    metavar="N",
    type=click.IntRange(1, SCHEDULER_MAX_LIFETIME_S // _DAY_S),
    help=f"Good for so long.  [default: {SCHEDULER_LIFETIME_S // _DAY_S}]",
)
@click.pass_context
def grant(ctx: click.Context, role: str, name: str, output: Path, days: int) -> None:
    """Give the scheduler NAME a certificate with which it orders images over HTTPS.

    Works on the founding host, through its daemon. Two certificates of one NAME are one scheduler: so it is renewed.

    \b
    entice grant scheduler nova --output /etc/nova/enticed
    """
    from enticed.identity.host import HostKeys, certificate_pem, key_pem
    from protocol.enrolment import request_certificate

    files = {"certificate": output / f"{name}.crt", "key": output / f"{name}.key", "ca": output / "ca.crt"}
    _check_room(output, files["certificate"], files["key"])
    keys = HostKeys.generate()
    request = base64.b64encode(request_certificate(keys.node, keys.sealing_key)).decode()
    terms = {"role": role, "name": name, "request": request, "lifetime_s": days * _DAY_S}
    answer = daemon_of(ctx).ask("POST", "/v1/grants", terms)
    authority = certificate_pem(base64.b64decode(answer["authority"]))
    try:
        _write(files["key"], key_pem(keys.node), 0o600)
        _write(files["certificate"], certificate_pem(base64.b64decode(answer["certificate"])), 0o644)
        if not files["ca"].exists() or files["ca"].read_bytes() != authority:
            _write(files["ca"], authority, 0o644)
    except OSError as error:
        raise Failed(Exit.FAILED, f"cannot write in {output}: {error.strerror}") from error
    result = {
        "name": name,
        "id": answer["id"],
        "expires_at": answer["expires_at"],
        "api": answer["api"],
        "files": {kind: str(path) for kind, path in files.items()},
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
            raise Failed(Exit.USAGE, "a scheduler's name is made of letters, digits, '.', '_' and '-'")
        if path.exists():
            raise Failed(Exit.FAILED, f"{path} is there already: move it away, or name another directory")


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
        [("certificate", files["certificate"]), ("key (a secret)", files["key"]), ("CA of the cluster", files["ca"])],
    )
    yield ""
    yield "For example:"
    yield f"  curl --cacert {files['ca']} --cert {files['certificate']} --key {files['key']} https://{api}/v1/orders"
