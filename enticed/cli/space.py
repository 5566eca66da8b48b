"""What the images of this host take: which of them may go, and which are to stay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from enticed.cli.client import part
from enticed.cli.command import TERM_S, Command, daemon_of, image_argument, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import ago, people_names, short, size, table
from protocol.limits import REPLICAS_MAX_COUNT


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and why the rest stays.")
@click.option(
    "--free",
    "free_bytes",
    metavar="SIZE",
    callback=lambda ctx, parameter, value: None if value is None else _bytes(ctx, value),
    help="Until so much more is free, like 20G; last copies too.",
)
@click.pass_context
def gc(ctx: click.Context, dry_run: bool, free_bytes: int | None) -> None:
    """Remove images that nobody on this host needs, and say of each why it goes or stays.

    Without --free, until images take no more than low_percent of what they may. The daemon does this by itself once
    they take more than high_percent, and makes room for what is ordered or published. What is leased, pinned or in use
    stays, and so does what too few other hosts hold. With --free the exit code is 1 where not so much can go.

    \b
    entice gc --dry-run
    """
    if dry_run:
        query = "" if free_bytes is None else f"?free_bytes={free_bytes}"
        answer = daemon_of(ctx).ask("GET", f"/v1/gc{query}")
    else:
        answer = daemon_of(ctx).ask("POST", "/v1/gc", {"free_bytes": free_bytes})
    setup_of(ctx).show(answer, lambda: _reckoning_lines(answer))
    if free_bytes is not None and answer["freed_bytes"] < free_bytes:
        could = "could be" if dry_run else "was"
        raise Failed(Exit.FAILED, f"of {size(free_bytes)} only {size(answer['freed_bytes'])} {could} freed")


@click.command(cls=Command)
@image_argument
@click.option(
    "--replicas",
    metavar="N",
    type=click.IntRange(0, REPLICAS_MAX_COUNT),
    help="So many hosts at the least; 0 takes it back.",
)
@click.pass_context
def keep(ctx: click.Context, image: str, replicas: int | None) -> None:
    """Have so many hosts of the cluster hold an image, whoever leaves.

    Works on a host with a publisher's key. No host lets the image go while fewer others would hold it; and where fewer
    do, because hosts have left, others take a copy, each by itself. A host that went without a word is noticed after
    ten minutes. Without --replicas: how many there are to be, and how many there are; on any host. To keep an image on
    one host, see `entice pin`.

    \b
    entice keep ubuntu:24.04 --replicas 3
    """
    path = f"/v1/images/{part(image)}/replicas"
    daemon = daemon_of(ctx)
    answer = daemon.ask("GET", path) if replicas is None else daemon.ask("PUT", path, {"replicas": replicas})
    setup_of(ctx).show(answer, lambda: [_floor_line(image, answer)])


@click.command(cls=Command)
@image_argument
@click.option(
    "--ttl",
    "ttl_s",
    metavar="S",
    type=TERM_S,
    help="For so many seconds.  [default: until it is unpinned]",
)
@click.pass_context
def pin(ctx: click.Context, image: str, ttl_s: float | None) -> None:
    """Keep an image on this host, whatever room is wanted.

    \b
    entice pin ubuntu:24.04 --ttl 86400
    """
    answer = daemon_of(ctx).ask("PUT", f"/v1/images/{part(image)}/pin", {"ttl_s": ttl_s})
    until = f", ends {ago(answer['pinned_until'])}" if answer["pinned_until"] is not None else ""
    setup_of(ctx).show(answer, lambda: [f"pinned {people_names(answer)} ({short(answer['image_id'])}){until}"])


@click.command(cls=Command)
@image_argument
@click.pass_context
def unpin(ctx: click.Context, image: str) -> None:
    """Take a pin back: the image may go when room is wanted.

    \b
    entice unpin ubuntu:24.04
    """
    answer = daemon_of(ctx).ask("DELETE", f"/v1/images/{part(image)}/pin")
    setup_of(ctx).show(answer, lambda: [f"unpinned {people_names(answer)} ({short(answer['image_id'])})"])


def _bytes(ctx: click.Context, text: str) -> int:
    """`20G`, `512MiB`, or a number of bytes: powers of 1024 all."""
    found = re.fullmatch(r"([0-9]{1,15})\s*(?:([KMGT])(?:iB|B)?)?", text.strip(), re.IGNORECASE)
    size_bytes = int(found[1]) << 10 * (1 + "KMGT".index(found[2].upper()) if found[2] else 0) if found else 0
    if not size_bytes:
        raise click.UsageError(f"--free {text}: a size is a number of bytes, or like 512M or 20G", ctx)
    return size_bytes


def _floor_line(image: str, answer: dict[str, Any]) -> str:
    others = answer["other_holders"]
    held = "nobody could be asked" if others is None else f"held by {_hosts(others + answer['held_here'])}"
    if not answer["replicas"]:
        return f"{image}: {held}; no number is set (--replicas)"
    by = f"by publisher {short(answer['by'])}, {ago(answer['at'])}"
    return f"{image}: {held}, to be held by {_hosts(answer['replicas'])} ({by})"


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _reckoning_lines(answer: dict[str, Any]) -> Iterable[str]:
    columns = ("NAME", "IMAGE", "SIZE", "LAST USED", "OTHERS", "VERDICT", "WHY")
    rows = [
        (
            people_names(one),
            short(one["image_id"]),
            size(one["size_bytes"]),
            ago(one["last_used_at"]),
            "?" if one["other_holders"] is None else str(one["other_holders"]),
            _verdict(one, dry_run=answer["dry_run"]),
            one["why"],
        )
        for one in answer["images"]
    ]
    yield from table(columns, rows, "no images here")
    freed = "would be freed" if answer["dry_run"] else "freed"
    yield f"images take {size(answer['claimed_bytes'])} of {size(answer['limit_bytes'])}; {_freed(answer, freed)}"
    if answer["unread_guests"]:
        yield f"{answer['unread_guests']} files of guests are not seen: entice doctor names one"


def _freed(answer: dict[str, Any], freed: str) -> str:
    if not answer["wanted_bytes"]:
        return "nothing has to go"
    return f"of {size(answer['wanted_bytes'])} that are to go {size(answer['freed_bytes'])} {freed}"


def _verdict(judged: dict[str, Any], *, dry_run: bool) -> str:
    if dry_run:
        return str(judged["verdict"])
    return "evicted" if judged["gone"] else "kept"
