"""Pulling: an order is placed and followed to its end; with `--output` the image is then written out, here and with the
caller's rights.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from enticed.cli.bars import Bar, bar, shows_bars
from enticed.cli.client import ENDED, Daemon, Events, part
from enticed.cli.command import TERM_S, Command, daemon_of, image_argument, setup_of
from enticed.cli.failures import ORDER_FAILURES, Exit, Failed, Terminated
from enticed.cli.handoff import open_image
from enticed.cli.output import duration, short, size
from enticed.limits import BAR_INTERVAL_S, PAUSED_PATIENCE_S

LEASE_WHILE_COPYING_S = 86400.0
"""Given back when the copy is made; longer than any copy takes, and not for ever if this process is killed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    target: str
    output: Path | None
    form: str
    deadline_s: float | None
    origin: bool = True
    overwrite: bool = False
    """Whether a file that is there at `output` may be replaced."""

    def terms(self, keep_s: float) -> dict[str, Any]:
        terms = {"image": self.target, "priority": "boot", "deadline_s": self.deadline_s, "keep_s": keep_s}
        return terms if self.origin else terms | {"origin": "never"}


@click.command(cls=Command)
@image_argument
@click.option("--output", metavar="PATH", type=click.Path(path_type=Path), help="Write the image to this file.")
@click.option("--format", "form", type=click.Choice(["raw", "qcow2"]), help="What to write to PATH.  [default: raw]")
@click.option("--overwrite", is_flag=True, help="Replace the file that is at PATH already.")
@click.option(
    "--deadline",
    "deadline_s",
    metavar="S",
    type=TERM_S,
    help="Wait for at most so many seconds; then the exit code is 75, and the order goes on.",
)
@click.option("--no-origin", is_flag=True, help="Take it from other hosts alone, even where this host has an origin.")
@click.option("--no-wait", is_flag=True, help="Place the order, print its key, and do not wait for it.")
@click.pass_context
def pull(
    ctx: click.Context,
    image: str,
    output: Path | None,
    form: str | None,
    overwrite: bool,
    deadline_s: float | None,
    no_origin: bool,
    no_wait: bool,
) -> None:
    """Bring the image NAME (or the one of that id) onto this host, from every host that has some of it.

    Without --output it stays in this host's store, and the path of the raw file is printed: a base to be read, never
    to be written. With --output it is written to PATH: shared with the store where the file system can, else copied;
    a file that is there, which may be the disk of a VM, is replaced with --overwrite alone. What no host has for five
    seconds fails with exit code 4, however long the deadline: pull again once a host has it. Ctrl-C cancels the order.

    \b
    entice pull ubuntu:24.04 --output /var/lib/libvirt/images/vm7.raw
    """
    if output is None and (form is not None or overwrite):
        raise click.UsageError(f"{'--overwrite' if form is None else '--format'} goes with --output", ctx)
    if no_wait and output is not None:
        raise click.UsageError("--no-wait does not go with --output: nobody waits to write it", ctx)
    if output is not None:
        _check_output(output, form, overwrite=overwrite)
    wanted = Wanted(image, output, form or "raw", deadline_s, not no_origin, overwrite)
    daemon, key = daemon_of(ctx), f"cli-{secrets.token_hex(8)}"
    if no_wait:
        order = daemon.ask("PUT", _order_path(key), wanted.terms(keep_s=0))
        setup_of(ctx).show(order, lambda: [key])
        return
    result = bring(daemon, key, wanted)
    setup_of(ctx).show(result, lambda: _lines(result))


def _check_output(output: Path, form: str | None, *, overwrite: bool) -> None:
    """What can be known to fail is found out before anything is fetched."""
    if output.is_dir():
        raise Failed(Exit.USAGE, f"{output} is a directory: name the file to write")
    if output.exists() and not output.is_file():
        raise Failed(Exit.USAGE, f"{output} is there and no regular file")
    if output.exists() and not overwrite:
        raise Failed(Exit.USAGE, f"{output} is there already: --overwrite replaces it")
    if form is None and output.suffix.lower() == ".qcow2":
        raise Failed(Exit.USAGE, f"{output} would not be qcow2: say --format qcow2, or --format raw if that is meant")
    parent = Path(os.path.realpath(output)).parent
    if not parent.is_dir():
        raise Failed(Exit.USAGE, f"there is no directory {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Failed(Exit.DENIED, f"you may not write in {parent}")


def bring(daemon: Daemon, key: str, wanted: Wanted) -> dict[str, Any]:
    """Pull to the end, with a bar; what `pull` prints. Interrupted, it cancels the order."""
    since = time.monotonic()
    try:
        with bar(f"pulling {wanted.target}") as shown:
            order = _follow(daemon, key, wanted, since, shown)
    except KeyboardInterrupt as error:
        raise _cancelled(daemon, key, error) from error
    path, name = order["path"], _name(daemon, wanted.target)
    if wanted.output is not None:
        try:
            _write_out(daemon, order["image_id"], wanted)
        finally:
            with suppress(Failed):  # the daemon is gone, and with it who asked for the lease
                daemon.ask("PUT", _order_path(key), wanted.terms(keep_s=0))
        path = str(wanted.output.absolute())
    return {
        "image_id": order["image_id"],
        "name": name,
        "virtual_size_bytes": order["virtual_size_bytes"],
        "data_bytes": order["data_bytes"],
        "fragments": order["fragments"],
        "seconds": time.monotonic() - since,
        "bytes_from": order["bytes_from"],
        "path": path,
    }


def _follow(daemon: Daemon, key: str, wanted: Wanted, since: float, shown: Bar) -> dict[str, Any]:
    """Place the order and wait for its end: the order, ready."""
    deadline = None if wanted.deadline_s is None else since + wanted.deadline_s
    paused_since: float | None = None
    keep_s = LEASE_WHILE_COPYING_S if wanted.output is not None else 0.0
    order: dict[str, Any] | None = None
    while order is None or order["state"] not in ENDED:
        with _listening(daemon, key, is_placed=order is not None) as events:
            # Events are listened to first. Where the stream was cut off, what was missed is in the order as it is now.
            order = (
                daemon.ask("PUT", _order_path(key), wanted.terms(keep_s))
                if order is None
                else daemon.ask("GET", _order_path(key))
            )
            with suppress(ConnectionError):
                while order["state"] not in ENDED:
                    paused_since = (paused_since or time.monotonic()) if order["state"] == "paused" else None
                    changed = events.next(_sooner(deadline, paused_since))
                    if changed is None:
                        raise _paused(order, key) if order["state"] == "paused" else _late(order, key, wanted)
                    order = changed
                    shown.update(order["done_bytes"], order["data_bytes"], f"{wanted.target}: {order['state']}")
    if order["state"] == "ready":
        return order
    if order["state"] == "cancelled":
        raise Failed(Exit.FAILED, f"somebody has cancelled the order {key}")
    raise Failed(ORDER_FAILURES.get(order["failure"], Exit.FAILED), order["reason"] or order["failure"])


@contextmanager
def _listening(daemon: Daemon, key: str, *, is_placed: bool) -> Iterator[Events]:
    try:
        with daemon.events(key, BAR_INTERVAL_S if shows_bars() else None) as events:
            yield events
    except Failed as error:
        if error.code is Exit.NO_DAEMON and is_placed:
            raise Failed(Exit.NO_DAEMON, f"{error}; the order {key} goes on when it is back") from error
        raise


def _sooner(deadline: float | None, paused_since: float | None) -> float | None:
    """Until when to wait. A disk that is full, or fails, may be so for long: who waits for it is told, and let go."""
    if paused_since is None:
        return deadline
    gives_up_at = paused_since + PAUSED_PATIENCE_S
    return gives_up_at if deadline is None else min(deadline, gives_up_at)


def _paused(order: dict[str, Any], key: str) -> Failed:
    return Failed(Exit.TEMPORARY, f"paused: {order['reason']}; once that is over, it goes on by itself as {key}")


def _late(order: dict[str, Any], key: str, wanted: Wanted) -> Failed:
    return Failed(
        Exit.TEMPORARY,
        f"late: after {wanted.deadline_s:g} s the order for {wanted.target} is {order['state']}, "
        f"{order['percent']:.0f} % done; it goes on as {key}",
    )


def _cancelled(daemon: Daemon, key: str, interruption: KeyboardInterrupt) -> Failed:
    """Whoever stops waiting wants the image no more; what others have ordered goes on."""
    code = Exit.TERMINATED if isinstance(interruption, Terminated) else Exit.INTERRUPTED
    try:
        daemon.ask("DELETE", _order_path(key))
    except Failed as error:
        if error.code is Exit.NOT_FOUND:
            return Failed(code, "interrupted before the order was placed")
        return Failed(code, f"interrupted, but the order {key} could not be cancelled: {error}")
    return Failed(code, f"interrupted: the order {key} is cancelled")


def _write_out(daemon: Daemon, image: str, wanted: Wanted) -> None:
    from enticed.image.compose import copy_out, qcow2_out
    from enticed.image.source import inspect

    assert wanted.output is not None
    fd = open_image(daemon.path, image)
    try:
        source = inspect(fd)
        with bar(f"writing {wanted.output.name}") as shown:
            if wanted.form == "raw":
                copy_out(source, wanted.output, progress=shown.update, overwrite=wanted.overwrite)
            else:
                size_bytes = source.size_bytes

                def progress(share: float) -> None:
                    shown.update(int(share * size_bytes), size_bytes)

                asyncio.run(qcow2_out(source, wanted.output, progress, overwrite=wanted.overwrite))
    finally:
        os.close(fd)


def _name(daemon: Daemon, wanted: str) -> str | None:
    """What the image is called, where it was asked for by its id; None where it has no name."""
    if not re.fullmatch("[0-9a-fA-F]{64}", wanted):
        return wanted
    names = daemon.ask("GET", f"/v1/images/{part(wanted)}")["names"]
    return str(names[0]) if names else None


def _order_path(key: str) -> str:
    return f"/v1/orders/{part(key)}"


def _lines(result: dict[str, Any]) -> Iterable[str]:
    yield result["path"]
    sources = ", ".join(
        f"{size(count)} {source.replace('_', ' ')}" for source, count in result["bytes_from"].items() if count
    )
    yield f"  {result['name'] or 'image'} ({short(result['image_id'])}), {size(result['virtual_size_bytes'])}"
    yield f"  in {duration(result['seconds'])}; bytes: {sources or 'none'}"
