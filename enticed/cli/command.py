"""What all commands have in common: `--json` and `--socket` may also stand after the command."""

from __future__ import annotations

from math import isfinite
from typing import Any

import click

from enticed.cli.client import Daemon
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import Setup
from enticed.limits import COMPLETION_TIMEOUT_S, ORDER_TERM_MAX_S


class Command(click.Command):
    """A command that takes the global options too, wherever they stand."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += [
            click.Option(
                ["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Print one JSON object."
            ),
            click.Option(
                ["--socket"], metavar="PATH", expose_value=False, callback=_set_socket, help="Where the daemon listens."
            ),
        ]


class Number(click.FloatRange):
    """A float within bounds; `nan` is within none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


TERM_S = Number(0, ORDER_TERM_MAX_S, min_open=True)
"""Seconds from now; the daemon takes no more."""


def setup_of(ctx: click.Context) -> Setup:
    setup = ctx.find_object(Setup)
    assert setup is not None
    return setup


def daemon_of(ctx: click.Context) -> Daemon:
    return Daemon(setup_of(ctx).socket)


def target(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Checks a NAME or IMAGE_ID before anybody is asked: the daemon says what is wrong with others."""
    if not value.strip("./ "):
        raise Failed(Exit.USAGE, "an image is given by its name, like 'ubuntu:24.04', or by its id")
    return value


def _known_images(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For completion: images on this host whose name or id begins so; none where no daemon answers at once."""
    daemon = Daemon(str(ctx.find_root().params["socket"]))
    try:
        images = daemon.ask("GET", "/v1/images", timeout_s=COMPLETION_TIMEOUT_S)["images"]
    except Failed:
        return []  # whoever presses Tab wants no error message
    names = {name for image in images for name in image["names"] if not name.startswith(("sha256:", "sha512:"))}
    ids = {image["image_id"] for image in images} if incomplete else set()
    return sorted(name for name in names | ids if name.startswith(incomplete))


image_argument = click.argument("image", metavar="NAME|IMAGE_ID", callback=target, shell_complete=_known_images)
"""The argument of every command that is about one image."""


def _set_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setup_of(ctx).as_json = True


def _set_socket(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        setup_of(ctx).socket = value
