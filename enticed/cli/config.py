"""The daemon's settings: what holds, where each value comes from, and taking up what has changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from enticed.cli.client import Daemon
from enticed.cli.command import Command, daemon_of, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import note, table
from enticed.config import DEFAULT_FILE, DEFAULT_STATE, VARIABLE_PREFIX
from enticed.config_sources import Sources
from protocol.errors import LocalError

Settings = list[dict[str, Any]]
"""Each with key, value and origin."""


@click.group()
def config() -> None:
    """Show the daemon's settings and where each comes from.

    \b
    entice config show
    """


@config.command(cls=Command)
@click.option(
    "--state",
    "state_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The daemon's state.  [default: what the daemon says, else /var/lib/enticed]",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Its settings.  [default: what the daemon says, else /etc/enticed/enticed.toml where there is one]",
)
@click.pass_context
def show(ctx: click.Context, state_dir: Path | None, file: Path | None) -> None:
    """Print every setting, its value and where that comes from.

    What the running daemon uses, and beside it what its files say by now where that differs; without a daemon, what
    the files say. A mistake in the files is told in one line, and the exit code is 1.

    \b
    entice config show
    """
    running = _running(daemon_of(ctx))
    if running is None:
        note(f"no daemon answers at {setup_of(ctx).socket}: this is what the files say")
        settings = _from_files(state_dir or DEFAULT_STATE, file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None))
        setup_of(ctx).show({"running": False, "settings": settings, "files_differ": []}, lambda: _table(settings))
        return
    told_file = None if running["file"] is None else Path(running["file"])
    differing = _differing(running["settings"], state_dir or Path(running["state"]), file or told_file)

    def tell() -> Iterable[str]:
        yield from _table(running["settings"])
        if differing:
            yield ""
            yield "The files say otherwise by now; `entice reload` takes up what can be without a restart:"
            yield from (f"  {one['key']} = {_written(one['value'])}  ({one['origin']})" for one in differing)

    setup_of(ctx).show({"running": True, **running, "files_differ": differing}, tell)


@click.command(cls=Command)
@click.pass_context
def reload(ctx: click.Context) -> None:
    """Have the daemon read its settings again.

    It says what holds from now on and what needs a restart. With a mistake in the files everything stays as it was,
    and the exit code is 1.

    \b
    entice reload
    """
    answer = daemon_of(ctx).ask("POST", "/v1/reload")

    def tell() -> Iterable[str]:
        for title, changes in (("changed", answer["applied"]), ("needs a restart", answer["restart"])):
            for one in changes:
                yield f"{title}: {one['key']} = {_written(one['new'])}, was {_written(one['old'])}  ({one['origin']})"
        if not answer["applied"] and not answer["restart"]:
            yield "nothing has changed"

    setup_of(ctx).show(answer, tell)


def _running(daemon: Daemon) -> dict[str, Any] | None:
    """What the daemon uses; None where there is none."""
    try:
        return daemon.ask("GET", "/v1/config")
    except Failed as error:
        if error.code is not Exit.NO_DAEMON:
            raise
        return None


def _from_files(state_dir: Path, file: Path | None) -> Settings:
    return Sources(state_dir, file).load().table()


def _differing(running: Settings, state_dir: Path, file: Path | None) -> Settings:
    """What the files say otherwise than the daemon, where neither its environment nor its command line says it."""
    try:
        found = _from_files(state_dir, file)
    except LocalError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        note(f"{error}: what the files say by now is not shown")
        return []
    used = {one["key"]: one for one in running if not one["origin"].startswith((VARIABLE_PREFIX, "--"))}
    return [one for one in found if one["key"] in used and one["value"] != used[one["key"]]["value"]]


def _table(settings: Settings) -> Iterable[str]:
    rows = [(one["key"], _written(one["value"]), one["origin"]) for one in settings]
    return table(("SETTING", "VALUE", "FROM"), rows, "no settings")


def _written(value: Any) -> str:
    """A value as it stands in TOML; nothing where there is none."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)
