"""Recalling: an image that must not be used any more, on any host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from enticed.cli.client import part
from enticed.cli.command import Command, daemon_of, image_argument, setup_of
from enticed.cli.output import ago, short, table


@click.command(cls=Command)
@image_argument
@click.option("--reason", metavar="TEXT", help="Why, in one line: every host that meets the image shows it.")
@click.pass_context
def recall(ctx: click.Context, image: str, reason: str | None) -> None:
    """Have no host of the cluster serve or order an image any more, and say which ones held it.

    Works on a host with a publisher's key, and is for good: publish what is to be used instead. What is on the disks
    stays there until `entice rm`, for the guests that run from it. Without --reason: how an image was recalled, and
    who still has it; on any host.

    \b
    entice recall ubuntu:24.04 --reason "CVE-2024-3094: use ubuntu:24.04.1"
    entice recall ubuntu:24.04
    """
    path = f"/v1/images/{part(image)}/recall"
    answer = daemon_of(ctx).ask("POST", path, {"reason": reason})
    setup_of(ctx).show(answer, lambda: _lines(image, answer))


def _lines(image: str, answer: dict[str, Any]) -> Iterable[str]:
    said, others = answer["recalled"], answer["estimated_others"]
    yield f"{image} ({short(answer['image_id'])}) was recalled {ago(said['at'])}: {said['reason']}"
    rows = [
        (short(one["id"]), ", ".join(one["addresses"]), "all of it" if one["whole"] else "some of it")
        for one in sorted(answer["holders"], key=lambda one: one["addresses"])
    ]
    yield from table(("HOST", "ADDRESS", "HOLDS, AS IT SIGNED"), rows, "no host has signed that it holds it")
    if others:
        yield f"and about {others} more, by estimate: they have not signed, or could not be asked"
