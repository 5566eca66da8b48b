"""Boot profiles: what VMs read of an image first, from the host where one booted to all that will boot it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

import click

from enticed.cli.client import part
from enticed.cli.command import Command, daemon_of, image_argument, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import short, size


@click.group()
def profile() -> None:
    """Note what a VM reads of an image first, for other hosts to fetch first.

    \b
    entice profile record ubuntu:24.04
    """


@profile.command(cls=Command)
@image_argument
@click.pass_context
def show(ctx: click.Context, image: str) -> None:
    """Show what was read of an image on this host, since the first reader came after ten quiet minutes.

    \b
    entice --json profile show ubuntu:24.04 > boot.json
    """
    answer = daemon_of(ctx).ask("GET", f"/v1/images/{part(image)}/profile")
    setup_of(ctx).show(answer, lambda: _lines(image, answer, "read"))


@profile.command(cls=Command)
@image_argument
@click.option(
    "--from",
    "source",
    metavar="FILE",
    type=click.File("r"),
    help="What `entice --json profile show` has printed.",
)
@click.pass_context
def record(ctx: click.Context, image: str, source: TextIO | None) -> None:
    """Sign what was read of an image on this host as what a VM reads first, when it boots.

    Hosts on which somebody reads the image later fetch that first. Replaces the profile before. Only a host with
    a publisher's key signs: a VM may have booted on another all the same.

    \b
    ssh host7 entice --json profile show ubuntu:24.04 | entice profile record ubuntu:24.04 --from -
    """
    body = None if source is None else {"ranges": _ranges(source)}
    answer = daemon_of(ctx).ask("PUT", f"/v1/images/{part(image)}/profile", body)
    setup_of(ctx).show(answer, lambda: _lines(image, answer, "recorded"))


def _ranges(source: TextIO) -> Any:
    try:
        return json.load(source)["ranges"]
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(Exit.USAGE, f"{source.name} is not what `entice --json profile show` prints") from error


def _lines(image: str, answer: dict[str, Any], done: str) -> Iterable[str]:
    ranges = answer["ranges"]
    yield f"{image} ({short(answer['image_id'])}): {size(answer['total_bytes'])} in {len(ranges)} ranges {done}"
