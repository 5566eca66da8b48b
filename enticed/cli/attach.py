"""Attaching: an image as a block device for a VM, read while the rest of it may still be far away."""

from __future__ import annotations

import os
import pwd
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from enticed.cli.client import Daemon, part
from enticed.cli.command import TERM_S, Command, daemon_of, image_argument, setup_of
from enticed.cli.failures import ORDER_FAILURES, Exit, Failed, Terminated
from enticed.cli.handoff import open_image
from enticed.cli.nbdkit import NbdServer, check
from enticed.cli.output import short, size
from enticed.cli.pull import Wanted, bring
from enticed.limits import ATTACH_FIND_TIMEOUT_S, NBD_RECONNECT_DELAY_S

KNOWN = ("fetching", "verifying", "ready")
"""States of an order whose image has its manifest here."""
ENDED = ("failed", "cancelled")


@click.command(cls=Command)
@image_argument
@click.option("--nbd", "path", metavar="PATH", type=click.Path(path_type=Path), help="Where to make the NBD socket.")
@click.option("--owner", metavar="USER", help="A user who may connect to it, as QEMU's; else only you may.")
@click.option("--detach", is_flag=True, help="Serve in the background, and print the process to end it with.")
@click.option("--wait-whole", is_flag=True, help="Attach nothing: wait until the image is whole, and print its path.")
@click.option(
    "--deadline",
    "deadline_s",
    metavar="S",
    type=TERM_S,
    help=f"For finding the image, or for all of it with --wait-whole.  [default: {ATTACH_FIND_TIMEOUT_S:g}, or no end]",
)
@click.pass_context
def attach(
    ctx: click.Context,
    image: str,
    path: Path | None,
    owner: str | None,
    detach: bool,
    wait_whole: bool,
    deadline_s: float | None,
) -> None:
    """Make the image NAME a block device for a VM at once, before it is whole on this host.

    What the VM reads is fetched first and checked before it is seen; the rest follows when the VM is quiet. The image
    is never written to: the VM's own writes go to a qcow2 overlay, and the lines printed say how. Serves until Ctrl-C.
    Needs nbdkit.

    \b
    entice attach ubuntu:24.04                  prints what to tell QEMU
    entice attach ubuntu:24.04 --wait-whole     prints the path of the raw file, once it is whole
    """
    daemon, setup = daemon_of(ctx), setup_of(ctx)
    if wait_whole:
        if path is not None or owner is not None or detach:
            raise click.UsageError("--wait-whole attaches nothing: it goes with no other option but --deadline", ctx)
        whole = bring(daemon, f"cli-{secrets.token_hex(8)}", Wanted(image, None, "raw", deadline_s))
        setup.show(whole, lambda: [whole["path"]])
        return
    check()
    uid = None if owner is None else _uid(owner)
    with ExitStack() as stack:
        try:
            order = stack.enter_context(_ordered(daemon, image, deadline_s or ATTACH_FIND_TIMEOUT_S))
            nbd = path or stack.enter_context(_private_directory(uid)) / "nbd.sock"
            file = _raw_file(daemon, order)
            server = stack.enter_context(NbdServer(daemon.path, order["image_id"], nbd.absolute(), uid, file))
            pid = os.fork() if detach else os.getpid()
            if pid == 0:
                _leave_terminal()
                server.serve()
            result = _result(order, server, pid)
            setup.show(result, lambda: _lines(result, detach=detach))
            sys.stdout.flush()
            if detach:
                os._exit(Exit.DONE)  # what is to be cleaned up is the child's by now
            server.serve()
        except KeyboardInterrupt as error:
            # Being ended is how this command ends.
            raise click.exceptions.Exit(Exit.TERMINATED if isinstance(error, Terminated) else Exit.DONE) from error


@contextmanager
def _ordered(daemon: Daemon, image: str, deadline_s: float) -> Iterator[dict[str, Any]]:
    """An order that keeps the image here, and gets what is read of it, as long as the context lasts."""
    key = f"attach-{secrets.token_hex(8)}"
    order_path = f"/v1/orders/{part(key)}"
    deadline = time.monotonic() + deadline_s
    try:
        with daemon.events(key) as events:
            order = daemon.ask("PUT", order_path, {"image": image, "priority": "read"})
            while order["state"] not in (*KNOWN, *ENDED):
                changed = events.next(deadline)
                if changed is None:
                    why = order["reason"] or f"its order is still {order['state']}"
                    raise Failed(Exit.TEMPORARY, f"{image} is not attached after {deadline_s:g} s: {why}")
                order = changed
        if order["state"] in ENDED:
            raise Failed(ORDER_FAILURES.get(order["failure"], Exit.FAILED), order["reason"] or "it was cancelled")
        yield order
    finally:
        with suppress(Failed):  # the daemon is gone: the order is ended by whoever sees it
            daemon.ask("DELETE", order_path)


def _raw_file(daemon: Daemon, order: dict[str, Any]) -> int | None:
    """A descriptor of the image's file, where it is whole and nbdkit, as this user, may open it anew. Never closed: it
    is needed until the end."""
    if order["state"] != "ready":
        return None
    descriptor = open_image(daemon.path, order["image_id"])
    if os.access(f"/proc/self/fd/{descriptor}", os.R_OK):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def _private_directory(uid: int | None) -> Iterator[Path]:
    """Where nobody else reaches a socket, or, for another user's, goes through without being told what is in it."""
    parent = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run")
    directory = Path(tempfile.mkdtemp(prefix="entice-", dir=parent if os.access(parent, os.W_OK) else None))
    try:
        if uid is not None:
            directory.chmod(0o711)  # not given to that user, who could put other files in place of the socket
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _uid(owner: str) -> int:
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError as error:
        raise Failed(Exit.USAGE, f"there is no user {owner}") from error


def _leave_terminal() -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _result(order: dict[str, Any], server: NbdServer, pid: int) -> dict[str, Any]:
    # QEMU takes a comma for the end of a value, and two for one.
    value = str(server.path).replace(",", ",,")
    qemu = [
        "-blockdev",
        f"driver=nbd,node-name=image,server.type=unix,server.path={value},read-only=on,"
        f"reconnect-delay={NBD_RECONNECT_DELAY_S}",
        "-blockdev", "driver=file,node-name=overlay,filename=vm.qcow2",
        "-blockdev", "driver=qcow2,node-name=disk,file=overlay,backing=image",
        "-device", "virtio-blk-pci,drive=disk,rerror=stop",
    ]  # fmt: skip
    overlay = ["qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", server.uri, "vm.qcow2"]
    return {
        "image_id": order["image_id"],
        "image": order["image"],
        "virtual_size_bytes": order["virtual_size_bytes"],
        "pid": pid,
        "socket": str(server.path),
        "uri": server.uri,
        "overlay": shlex.join(overlay),
        "qemu": shlex.join(qemu),
    }


def _lines(result: dict[str, Any], *, detach: bool) -> Iterable[str]:
    yield f"{result['image']} ({short(result['image_id'])}), {size(result['virtual_size_bytes'])}, is at"
    yield f"  {result['uri']}"
    yield "the disk of a VM on it, once for each VM:"
    yield f"  {result['overlay']}"
    yield "and for QEMU:"
    yield f"  {result['qemu']}"
    yield f"until: kill {result['pid']}" if detach else "until Ctrl-C"
