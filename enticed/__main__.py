"""`enticed`: the daemon's command."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click
import uvloop

from enticed import __version__, logs
from enticed.config import LOG_LEVELS, Config
from enticed.config_sources import Configured, Flag, Sources, set_flag
from enticed.daemon import run
from enticed.notify import Manager, Notifier
from enticed.operating.live_settings import LiveSettings
from protocol.errors import EnticedError, LocalError

FAILED = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--state", "state_dir", required=True, type=click.Path(path_type=Path), help="This host's state.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Settings; conf.d/*.toml beside it comes after it.",
)
@click.option("--listen", metavar="ADDR:PORT", help="Where peers reach this host, TCP and UDP.")
@click.option("--socket", metavar="PATH", help="Where `entice` reaches the daemon.")
@click.option("--bootstrap", multiple=True, metavar="ADDR:PORT", help="A host to ask first; repeatable.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much is logged.  [default: info]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, over all files; repeatable.")
@click.version_option(__version__)
def main(
    state_dir: Path,
    file: Path | None,
    listen: str | None,
    socket: str | None,
    bootstrap: tuple[str, ...],
    log_level: str | None,
    settings: tuple[str, ...],
) -> None:
    """Serve and fetch virtual-machine images on this host.

    The host must be enrolled first: `entice init` founds a cluster, `entice join` joins one. Every setting has a
    variable too, like ENTICED_STORE_QUOTA_BYTES for `quota_bytes` in [store]. SIGHUP reads the settings again.
    """
    try:
        own = [
            Flag("--listen", "listen", listen),
            Flag("--socket", "socket", socket),
            Flag("--bootstrap", "bootstrap", list(bootstrap) or None),
            Flag("--log-level", "log_level", log_level),
        ]
        flags = _right(state_dir, settings, [flag for flag in own if flag.value is not None])
        sources = Sources(state_dir.absolute(), file and file.absolute(), dict(os.environ), flags)
        configured = sources.load()
        logs.set_up(configured.config.log_level, os.environ)
        manager = Manager.from_environment(os.environ, os.getpid())
        with Notifier(manager) as notifier, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(LiveSettings(configured, sources), notifier))
    except (EnticedError, ValueError) as error:
        priority = "<3>" if logs.writes_to_journal(os.environ, sys.stderr.fileno()) else ""
        click.echo(f"{priority}enticed: {error}", err=True)
        sys.exit(FAILED)


def _right(state_dir: Path, settings: Iterable[str], own: Iterable[Flag]) -> tuple[Flag, ...]:
    """What the command line sets; `click.UsageError` where any of it is wrong by itself."""
    try:
        flags = (*map(set_flag, settings), *own)
        for flag in flags:
            Configured(Config(state_dir), {}).with_value(flag.name, flag.key, flag.value)
    except LocalError as error:
        raise click.UsageError(str(error)) from error
    return flags


if __name__ == "__main__":
    main()
