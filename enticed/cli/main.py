"""The command itself: finds out which command is meant, runs it, and turns what went wrong into a line and a code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from enticed import __version__
from enticed.cli.command import setup_of
from enticed.cli.failures import Exit, Failed, Terminated, exit_code
from enticed.cli.output import Setup
from protocol.errors import EnticedError

DEFAULT_SOCKET = "/run/enticed/entice.sock"
SOCKET_VARIABLE = "ENTICE_SOCKET"

# Name, where it is, and what the overview says of it, so that the overview imports none of them.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("enticed.cli.cluster", "init", "Found a cluster on this host."),
    "token": ("enticed.cli.cluster", "token", "Print a token with which other hosts join."),
    "join": ("enticed.cli.cluster", "join", "Enrol this host in a cluster."),
    "grant": ("enticed.cli.grant", "grant", "Let a scheduler order images, or a publisher sign names."),
    "revoke": ("enticed.cli.trust", "revoke", "Take back what a host, scheduler or publisher may do."),
    "trust": ("enticed.cli.trust", "trust", "Show who may do what; rotate and back up the CA."),
    "group": ("enticed.cli.group", "group", "Let this host into groups, for private images."),
    "publish": ("enticed.cli.publish", "publish", "Publish a disk image under a name."),
    "pull": ("enticed.cli.pull", "pull", "Bring an image onto this host."),
    "attach": ("enticed.cli.attach", "attach", "Make an image a VM's disk before it is whole."),
    "profile": ("enticed.cli.profile", "profile", "Note what a VM reads first, for other hosts to fetch first."),
    "plan": ("enticed.cli.images", "plan", "Say what a pull would do, without doing it."),
    "images": ("enticed.cli.images", "images", "List the images on this host."),
    "show": ("enticed.cli.images", "show", "Show one image on this host."),
    "order": ("enticed.cli.order", "order", "Bring an image onto many hosts, ahead of time."),
    "campaigns": ("enticed.cli.order", "campaigns", "List what is being brought onto many hosts; follow or cancel it."),
    "recall": ("enticed.cli.recall", "recall", "Have no host serve or order an image any more."),
    "sign": ("enticed.cli.sign", "sign", "Sign what another publisher has published, where it takes several."),
    "orders": ("enticed.cli.hosts", "orders", "List the orders: pulls, and what schedulers asked for."),
    "cancel": ("enticed.cli.hosts", "cancel", "Cancel an order, and let its image go."),
    "why": ("enticed.cli.hosts", "why", "Say why an order does not go on."),
    "peers": ("enticed.cli.hosts", "peers", "List the hosts that this one is connected to."),
    "status": ("enticed.cli.hosts", "status", "Show how the daemon on this host is doing."),
    "doctor": ("enticed.cli.doctor", "doctor", "Say what is wrong with this host, and what to do."),
    "config": ("enticed.cli.config", "config", "Show the daemon's settings and where each comes from."),
    "reload": ("enticed.cli.config", "reload", "Have the daemon read its settings again."),
    "export": ("enticed.cli.export", "export", "Write an image where an origin can be read: a directory or S3."),
    "verify": ("enticed.cli.images", "verify", "Read an image on this host and check every byte."),
    "rm": ("enticed.cli.images", "rm", "Remove an image from this host."),
    "keep": ("enticed.cli.space", "keep", "Have so many hosts of the cluster hold an image."),
    "pin": ("enticed.cli.space", "pin", "Keep an image on this host."),
    "unpin": ("enticed.cli.space", "unpin", "Let an image go when room is wanted."),
    "gc": ("enticed.cli.space", "gc", "Remove images that nobody here needs, or say which would go."),
    "completion": ("enticed.cli.completion", "completion", "Print the completion of this command for a shell."),
    "simulate": ("enticed.cli.simulate", "simulate", "Say how long until many hosts have an image."),
    "demo": ("enticed.cli.demo", "demo", "Show it all with a throwaway swarm on this machine."),
}


class Commands(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`entice COMMAND --help` says more about each. Exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, "
    "4 not found, 5 integrity, 6 denied, 75 late or temporary.",
)
@click.option(
    "--socket",
    metavar="PATH",
    envvar=SOCKET_VARIABLE,
    default=DEFAULT_SOCKET,
    help=f"Where the daemon listens.  [default: ${SOCKET_VARIABLE}, else {DEFAULT_SOCKET}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text, also of an error.")
@click.version_option(__version__, prog_name="entice", message="%(prog)s %(version)s")
@click.pass_context
def entice(ctx: click.Context, socket: str, as_json: bool) -> None:
    """Publish virtual machine disk images, and pull them from every host that has them.

    \b
    entice publish disk.qcow2 ubuntu:24.04      on the host that founded the cluster
    entice pull ubuntu:24.04 --output vm.raw    on any other
    """
    setup = setup_of(ctx)
    setup.socket, setup.as_json = socket, as_json


def main() -> NoReturn:
    """The entry point of the command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command to its exit code. What went wrong is the last line on stderr: for people, or with --json one JSON
    object."""
    setup = Setup(DEFAULT_SOCKET)

    def ends(code: Exit, said: str) -> Exit:
        # Of wrong usage it may be too early to know that --json was among it.
        setup.fail(code, said, as_json=setup.as_json or "--json" in arguments)
        return code

    try:
        entice.main(list(arguments), prog_name="entice", standalone_mode=False, obj=setup)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return Exit.USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "entice"
        return ends(Exit.USAGE, f"{_one_line(error.format_message())} (see: {command} --help)")
    except click.ClickException as error:
        return ends(Exit.FAILED, _one_line(error.format_message()))
    except click.exceptions.Exit as error:
        return error.exit_code
    except Failed as error:
        return ends(error.code, str(error))
    except EnticedError as error:
        return ends(exit_code(error), str(error))
    except (KeyboardInterrupt, click.Abort) as error:
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        return ends(Exit.TERMINATED, "terminated") if terminated else ends(Exit.INTERRUPTED, "interrupted")
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except OSError as error:
        said = error.strerror or str(error)
        code = Exit.DENIED if isinstance(error, PermissionError) else Exit.FAILED
        return ends(code, f"{os.fsdecode(error.filename)}: {said}" if isinstance(error.filename, str | bytes) else said)
    return Exit.DONE


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    main()
