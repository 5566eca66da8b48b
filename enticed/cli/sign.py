"""Signing what another publisher has published, where it takes several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from enticed.cli.command import Command, daemon_of, image_argument, setup_of
from enticed.cli.output import ago, pairs, size


@click.command(cls=Command)
@image_argument
@click.option("--expect", metavar="ID", help="The image that the name has to mean, or nothing is signed.")
@click.option("--look", is_flag=True, help="Sign nothing: show what would be signed.")
@click.pass_context
def sign(ctx: click.Context, image: str, expect: str | None, look: bool) -> None:
    """Add this host's signature to what another publisher has published: an image, and the name if one is given.

    Works on a host with a publisher's key, where `entice trust threshold` has several publishers sign. The image need
    not be here, and is not fetched: what is signed are the words about it. Build the same content yourself, compare
    its id, and say it with --expect.

    \b
    entice sign ubuntu:24.04 --look
    entice sign ubuntu:24.04 --expect 9c0f1b...
    """
    asked = {"image": image, "expect": expect and expect.lower(), "look": look}
    answer = daemon_of(ctx).ask("POST", "/v1/signatures", asked)
    setup_of(ctx).show(answer, lambda: _lines(answer, look))


def _lines(answer: dict[str, Any], look: bool) -> Iterable[str]:
    content = f"{size(answer['virtual_size_bytes'])}, {size(answer['data_bytes'])} of it data"
    yield from pairs(
        "This would be signed:" if look else "Signed:",
        [
            ("image", answer["image_id"]),
            ("content", f"{content}, came as {answer['source_format']}, published {ago(answer['issued_at'])}"),
            ("signed by", _by(answer["signed_by"], answer["needed"])),
            *(("name", f"{one['name']}, by {_by(one['signed_by'], answer['needed'])}") for one in answer["names"]),
        ],
    )
    if not look:
        told = answer["told"]
        yield f"{told} other host{'' if told == 1 else 's'} with the image took the signature."


def _by(publishers: list[str], needed: int) -> str:
    return f"{', '.join(publishers)} ({len(publishers)} of {needed})"
