"""Publishing: the file is opened, and a container decoded, here and with the caller's rights; the daemon gets bytes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enticed.cli.bars import bar
from enticed.cli.client import Daemon
from enticed.cli.command import Command, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.handoff import give
from enticed.cli.output import duration, short, size

if TYPE_CHECKING:
    from enticed.image.formats import ImageFormat
    from enticed.image.source import Source

DECODE_DIRECTORY = Path("/var/tmp")
"""Where containers are decoded unless TMPDIR says otherwise: /tmp is often in memory, and disks are large."""


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.argument("name")
@click.option(
    "--format",
    "form",
    metavar="F",
    help="raw, qcow2, vmdk, vhd or vhdx.  [default: what the file says of itself]",
)
@click.option(
    "--relative",
    "relatives",
    metavar="NAME",
    multiple=True,
    help="An image that shares content with this one; may be repeated.  [default: the earlier version of NAME]",
)
@click.option("--digests", is_flag=True, help="Compute SHA-256 and SHA-512 too, by which clouds know images. Slower.")
@click.option("--private", metavar="GROUP", help="Only members of GROUP get it: see `entice group`.")
@click.option("--verbatim", is_flag=True, help="Deliver the file's own bytes, not the disk that is in it.")
@click.pass_context
def publish(
    ctx: click.Context,
    file: Path,
    name: str,
    form: str | None,
    relatives: tuple[str, ...],
    digests: bool,
    verbatim: bool,
    private: str | None,
) -> None:
    """Publish the disk image FILE as NAME, for every host of the cluster.

    Raw files, sparse files and block devices are read as they are; qcow2, VMDK, VHD and VHDX are decoded first (in
    TMPDIR, else in /var/tmp). The host has a publisher's key: the
    founding host its own, others by `entice grant publisher`.

    \b
    entice publish ubuntu-24.04.qcow2 ubuntu:24.04
    """
    from enticed.image.formats import ImageFormat
    from enticed.image.source import inspect, open_source
    from protocol.errors import LocalError

    since = time.monotonic()
    daemon = daemon_of(ctx)
    try:
        named = None if form is None else ImageFormat.named(form)
    except LocalError as error:
        raise Failed(Exit.USAGE, str(error)) from error
    _check_rights(daemon, name)
    with ExitStack() as stack:
        fd = open_source(file)
        stack.callback(os.close, fd)
        asked = {"name": name, "verbatim": verbatim, "relatives": list(relatives) or None, "digests": digests}
        asked["private"] = private
        content, more = _content(inspect(fd), file, named, verbatim=verbatim, digests=digests)
        stack.callback(os.close, content)
        ticket = give(daemon.path, content)
        with bar(f"publishing {name}") as shown:
            result = daemon.work("/v1/images", asked | more | {"ticket": ticket}, shown.update)
    # What the user waited for: decoding is part of it.
    result["seconds"] = time.monotonic() - since

    def tell() -> Iterable[str]:
        yield f"published {result['name']} ({short(result['image_id'])}) in {duration(result['seconds'])}"
        yield (
            f"  {size(result['virtual_size_bytes'])}, {size(result['data_bytes'])} of it data in "
            f"{result['fragments']} fragments, {size(result['new_bytes'])} new"
        )
        if (needed := result["signatures_needed"]) > 1:
            yield f"{needed} publishers have to sign before anybody can pull it. On another publisher's host:"
            yield f"  entice sign {result['name']} --expect {result['image_id']}"

    setup_of(ctx).show(result, tell)


_NO_KEY = (
    "this host has no publisher's key: publish on one that has, or have `entice trust key` make one here, "
    "`entice grant publisher` on the founding host trust it, and restart enticed"
)


def _check_rights(daemon: Daemon, name: str) -> None:
    """Found out before a large file is decoded for nothing."""
    status = daemon.ask("GET", "/v1/status")
    if not status["may_change"]:
        raise Failed(Exit.DENIED, "only root, the daemon's user and members of its group may publish")
    trust = daemon.ask("GET", "/v1/trust")
    key = trust["own_publisher"]
    if key is None:
        raise Failed(Exit.DENIED, _NO_KEY)
    said = [one for one in trust["publishers"] if one["key"] == key]
    if not said:
        raise Failed(
            Exit.DENIED, f"this host's key {key} is not trusted: `entice grant publisher` on the founding host"
        )
    patterns = [pattern for one in said for pattern in one["names"]]
    if not any(fnmatchcase(name, pattern) for pattern in patterns):
        raise Failed(
            Exit.DENIED, f"publisher {said[0]['name']} may not sign {name}: its names are {', '.join(patterns)}"
        )


def _content(
    source: Source, file: Path, named: ImageFormat | None, *, verbatim: bool, digests: bool
) -> tuple[int, dict[str, Any]]:
    """A descriptor of the raw content, the caller's to close, and what the request says about where it is from."""
    from enticed.image.formats import ImageFormat, detect
    from protocol.errors import LocalError

    try:
        form = detect(source) if named is None else named
    except LocalError:
        if not verbatim:
            raise
        form = ImageFormat.RAW  # a format that is not taken apart, nor has to be
    about: dict[str, Any] = {"source_format": form.value}
    if form is ImageFormat.RAW or verbatim:
        return os.dup(source.fd), about
    fd = asyncio.run(_decode(source, form, file))
    try:
        return fd, about | (_source_digests(source, file) if digests else {})
    except BaseException:
        os.close(fd)
        raise


async def _decode(source: Source, form: ImageFormat, file: Path) -> int:
    from enticed.image.containers import decode, inspect_container

    container = await inspect_container(source, form)
    directory = Path(os.environ["TMPDIR"]) if os.environ.get("TMPDIR") else DECODE_DIRECTORY
    total_bytes = container.virtual_size_bytes
    with bar(f"decoding {file.name}") as shown:
        return await decode(container, directory, lambda share: shown.update(int(share * total_bytes), total_bytes))


def _source_digests(source: Source, file: Path) -> dict[str, str]:
    """Of the container's own bytes, which the daemon does not see."""
    from enticed.image.digests import digest_source

    with bar(f"digests of {file.name}") as shown:
        found = digest_source(source, progress=shown.update)
    return {"source_sha256": found.sha256.hex(), "source_sha512": found.sha512.hex()}
