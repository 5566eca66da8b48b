"""Exporting: an image is written where hosts find it as in an origin, with the caller's rights and credentials."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enticed.cli.bars import bar
from enticed.cli.command import Command, daemon_of, setup_of, target
from enticed.cli.failures import Exit, Failed
from enticed.cli.handoff import open_image
from enticed.cli.output import ago, duration, short, size
from protocol.errors import LocalError
from protocol.names import is_digest_name, is_image_id

if TYPE_CHECKING:
    from enticed.origin.papers import Papers
    from enticed.origin.port import Depot


@click.command(cls=Command)
@click.argument("image", metavar="NAME|IMAGE_ID", callback=target)
@click.argument("prefix", metavar="DIRECTORY|s3://BUCKET/PREFIX")
@click.option("--endpoint", metavar="URL", help="Of an S3 service that is not Amazon's.")
@click.option("--force", is_flag=True, help="Write everything anew, whatever is there.")
@click.pass_context
def export(ctx: click.Context, image: str, prefix: str, endpoint: str | None, force: bool) -> None:
    """Write the image NAME (or the one of that id) where other hosts can have it when no host is left that does.

    That is a directory, which any web server can serve, or a bucket; `origin` in a host's configuration names it, or
    the web server's address. Credentials for S3 are found in AWS's usual ways. The image has to be whole on this host.
    What is there already is not written again, but for the image's names, which expire: export again from time to time.

    \b
    entice export ubuntu:24.04 /srv/www/images
    entice export ubuntu:24.04 s3://images/prod --endpoint https://s3.example:9000
    """
    depot = _depot(prefix, endpoint)
    since = time.monotonic()
    try:
        papers, written_bytes = _export(daemon_of(ctx).path, image, depot, force=force)
    finally:
        depot.close()
    result = {
        "image_id": str(papers.image),
        "prefix": depot.label,
        "names": {paper.name: paper.expires_at for paper in papers.names},
        "written_bytes": written_bytes,
        "seconds": time.monotonic() - since,
    }
    setup_of(ctx).show(result, lambda: _lines(result))


def _depot(prefix: str, endpoint: str | None) -> Depot:
    from enticed.origin.prefix import Prefix, parse_prefix
    from enticed.origin.schemes import open_depot

    try:
        where = parse_prefix(prefix) if "://" in prefix else Prefix("file", "", str(Path(prefix).absolute()))
        return open_depot(where, endpoint)
    except LocalError as error:
        raise Failed(Exit.USAGE, str(error)) from error


def _export(socket: str, image: str, depot: Depot, *, force: bool) -> tuple[Papers, int]:
    """The image's papers, and how many bytes were written."""
    from enticed.origin.export import export_image
    from enticed.origin.papers import read_papers

    with _opened(socket, image, "papers") as papers_fd:
        papers = read_papers(papers_fd)
    is_name = not is_image_id(image) and not is_digest_name(image)
    if is_name and image not in [paper.name for paper in papers.names]:
        raise Failed(Exit.FAILED, f"the record of {image} on this host has expired: pull it again, then export it")
    with _opened(socket, str(papers.image), "raw") as raw_fd, bar(f"exporting {image}") as shown:
        return papers, export_image(depot, papers, raw_fd, shown.update, force=force)


@contextmanager
def _opened(socket: str, image: str, part: str) -> Iterator[int]:
    fd = open_image(socket, image, part)
    try:
        yield fd
    finally:
        os.close(fd)


def _lines(result: dict[str, Any]) -> Iterable[str]:
    yield f"{short(result['image_id'])} is in {result['prefix']}"
    yield f"  {size(result['written_bytes'])} written in {duration(result['seconds'])}"
    for name, expires_at in result["names"].items():
        if not is_digest_name(name):
            yield f"  {name}, until its record expires {ago(expires_at)}: export again before that"
