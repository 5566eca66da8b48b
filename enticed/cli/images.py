"""The images on this host, and what it would take to have another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from enticed.cli.bars import bar
from enticed.cli.client import part
from enticed.cli.command import Command, daemon_of, image_argument, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import ago, duration, pairs, people_names, short, size, table


@click.command(cls=Command)
@click.pass_context
def images(ctx: click.Context) -> None:
    """List the images on this host, whole or in the making.

    \b
    entice images
    """
    answer = daemon_of(ctx).ask("GET", "/v1/images")
    columns = ("NAME", "IMAGE", "SIZE", "DATA", "STATE", "CREATED")
    rows = [
        (
            people_names(image),
            short(image["image_id"]),
            size(image["virtual_size_bytes"]),
            size(image["data_bytes"]),
            _state(image),
            ago(image["created_at"]),
        )
        for image in answer["images"]
    ]
    setup_of(ctx).show(answer, lambda: table(columns, rows, "no images here"))


@click.command(cls=Command)
@image_argument
@click.pass_context
def show(ctx: click.Context, image: str) -> None:
    """Show one image on this host: its names, size, digests and relatives.

    \b
    entice show ubuntu:24.04
    """
    answer = daemon_of(ctx).ask("GET", f"/v1/images/{part(image)}")

    def tell() -> Iterable[str]:
        relatives = [f"{short(one['image_id'])} ({size(one['shared_bytes'])} shared)" for one in answer["relatives"]]
        yield from pairs(
            people_names(answer),
            [
                ("image", answer["image_id"]),
                ("size", f"{size(answer['virtual_size_bytes'])}, {size(answer['data_bytes'])} of it data"),
                ("fragments", f"{answer['fragments']} in {answer['pieces']} pieces"),
                ("state", _state(answer)),
                ("private", "for members of its group alone" if answer["private"] else ""),
                ("recalled", _recalled(answer)),
                ("kept by", f"{answer['replicas']} hosts, by a publisher's word" if answer["replicas"] else ""),
                ("pinned", _pinned(answer)),
                ("created", ago(answer["created_at"])),
                ("last used", ago(answer["last_used_at"])),
                ("came as", answer["source_format"]),
                ("relatives", ", ".join(relatives)),
                *((name.replace("_", " "), digest) for name, digest in answer["digests"].items()),
            ],
        )

    setup_of(ctx).show(answer, tell)


@click.command(cls=Command)
@image_argument
@click.pass_context
def rm(ctx: click.Context, image: str) -> None:
    """Remove an image from this host; other hosts keep theirs.

    Refused while an order keeps the image here, or something has it open.

    \b
    entice rm ubuntu:22.04
    """
    answer = daemon_of(ctx).ask("DELETE", f"/v1/images/{part(image)}")
    setup_of(ctx).show(answer, lambda: [f"removed {people_names(answer)} ({short(answer['image_id'])})"])


@click.command(cls=Command)
@image_argument
@click.pass_context
def verify(ctx: click.Context, image: str) -> None:
    """Read an image on this host and check every byte of it.

    What is wrong is withdrawn from other hosts, and fetched again from them; the exit code is 5 then, and 1 where all
    that is here is right, and some of the image is not. The daemon does this by itself too, slowly, with all images
    within seven days.

    \b
    entice verify ubuntu:24.04
    """
    with bar(f"verifying {image}") as shown:
        answer = daemon_of(ctx).work(f"/v1/images/{part(image)}/verify", None, shown.update)
    wrong, missing, pieces = answer["wrong_pieces"], answer["missing_pieces"], answer["pieces"]
    setup_of(ctx).show(answer, lambda: [] if wrong or missing else [f"{image}: all {pieces} pieces are right"])
    if wrong:
        raise Failed(Exit.INTEGRITY, f"{image}: {len(wrong)} of {pieces} pieces are wrong: {_some(wrong)}")
    if missing:
        here = f"{pieces - len(missing)} of {pieces} pieces are right, {len(missing)} are not here ({_some(missing)})"
        raise Failed(Exit.FAILED, f"{image}: {here}: entice pull fetches them")


def _some(pieces: list[int]) -> str:
    return ", ".join(map(str, pieces[:10])) + (", ..." if len(pieces) > 10 else "")


@click.command(cls=Command)
@image_argument
@click.pass_context
def plan(ctx: click.Context, image: str) -> None:
    """Say what a pull would do, without doing it: bytes from where, what is missing, whether there is room, how long.

    \b
    entice plan ubuntu:24.04
    """
    answer = daemon_of(ctx).ask("GET", f"/v1/plan?target={part(image)}")
    setup_of(ctx).show(answer, lambda: _plan_lines(answer))


def _plan_lines(plan: dict[str, Any]) -> Iterable[str]:
    sources = plan["bytes_from"]
    near = ", ".join(f"{where} {size(count)}" for where, count in plan["peers"].items() if count)
    missing = (
        f"{size(plan['missing_bytes'])} in {plan['missing_pieces']} pieces" if plan["missing_pieces"] else "nothing"
    )
    return pairs(
        f"{plan['image']}: {size(plan['virtual_size_bytes'])}, image {short(plan['image_id'])}",
        [
            ("zero", size(sources["zero"])),
            ("on hand", size(sources["on_hand"])),
            ("from relatives", size(sources["relatives"])),
            ("from peers", size(sources["peers"]) + (f" ({near})" if near else "")),
            ("from origin", size(sources["origin"])),
            ("missing", missing),
            ("hosts that have it", str(plan["providers"])),
            ("room", _room(plan["room"])),
            ("time", "" if plan["estimate_s"] is None else f"about {duration(plan['estimate_s'])}"),
        ],
    )


def _room(room: dict[str, Any]) -> str:
    if not room["fits"]:
        return f"NONE: {room['trouble']}"
    going = [f"{people_names(one)} ({size(one['size_bytes'])})" for one in room["goes"]]
    needed = f"{size(room['needed_bytes'])} needed"
    return f"{needed}, for which {', '.join(going)} would be removed" if going else f"{needed}, which there is"


def _recalled(image: dict[str, Any]) -> str:
    recall = image["recalled"]
    return "" if recall is None else f"{ago(recall['at'])} by publisher {short(recall['by'])}: {recall['reason']}"


def _pinned(image: dict[str, Any]) -> str:
    if not image["pinned"]:
        return ""
    return "until it is unpinned" if image["pinned_until"] is None else f"ends {ago(image['pinned_until'])}"


def _state(image: dict[str, Any]) -> str:
    if image["recalled"]:
        return "recalled, leased" if image["leased"] else "recalled"
    if not image["ready"]:
        return f"{100 * image['pieces_held'] // max(1, image['pieces'])} %"
    kept = [word for word in ("leased", "pinned") if image[word]]
    return ", ".join(["ready", *kept])
