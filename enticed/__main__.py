"""`enticed`: the daemon's command."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import click
import uvloop

from enticed import __version__
from enticed.config import load_config, with_flags
from enticed.daemon import run
from enticed.notify import Manager, Notifier
from protocol.errors import EnticedError

FAILED = 1
LOG_LEVELS = ("debug", "info", "warning", "error")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--state", "state_dir", required=True, type=click.Path(path_type=Path), help="This host's state.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="Settings, as in systemd/enticed.toml.")
@click.option("--listen", metavar="ADDR:PORT", help="Where peers reach this host, TCP and UDP.")
@click.option("--socket", type=click.Path(path_type=Path), help="Where `entice` reaches the daemon.")
@click.option("--bootstrap", multiple=True, metavar="ADDR:PORT", help="A host to ask first; repeatable.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True)
@click.version_option(__version__)
def main(
    state_dir: Path,
    file: Path | None,
    listen: str | None,
    socket: Path | None,
    bootstrap: tuple[str, ...],
    log_level: str,
) -> None:
    """Serve and fetch virtual-machine images on this host.

    The host must be enrolled first: `entice init` founds a cluster, `entice join` joins one.
    """
    logging.basicConfig(
        stream=sys.stderr, level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        config = with_flags(load_config(state_dir, file), listen, socket, bootstrap)
        manager = Manager.from_environment(os.environ, os.getpid())
        with Notifier(manager) as notifier, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config, notifier))
    except (EnticedError, ValueError) as error:
        click.echo(f"enticed: {error}", err=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
