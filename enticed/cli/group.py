"""Groups: hosts that share a secret, and the private images that only they may have."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from enticed.cli.command import Command, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import table

state_option = click.option(
    "--state",
    "state_dir",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True, readable=False),
    help="Where the daemon keeps identity and images.",
)


@click.group()
def group() -> None:
    """Let this host into groups: their private images are for their members alone.

    Who knows a group's secret is a member. Needs no daemon; one that runs takes it up when it starts again.

    \b
    entice group create team-a --state /var/lib/enticed      prints a line: the secret
    entice group join - --state /var/lib/enticed             on other hosts, with that line on standard input
    entice publish disk.qcow2 team-a/web:1 --private team-a
    """


@group.command(cls=Command)
@click.argument("name")
@state_option
@click.pass_context
def create(ctx: click.Context, name: str, state_dir: Path) -> None:
    """Make a group, let this host into it, and print the line that lets others in: a secret.

    \b
    entice group create team-a --state /var/lib/enticed
    """
    from enticed.identity.groups import enter_group, new_group
    from protocol.group import format_group

    made = new_group(name)
    enter_group(state_dir, made)
    line = format_group(made)
    setup_of(ctx).show({"name": name, "secret": line}, lambda: [line])


@group.command(cls=Command)
@click.argument("secret")
@state_option
@click.pass_context
def join(ctx: click.Context, secret: str, state_dir: Path) -> None:
    """Let this host into a group with the line that `create` printed; `-` reads it from standard input.

    \b
    entice group join - --state /var/lib/enticed < team-a.secret
    """
    from enticed.identity.groups import enter_group
    from protocol.errors import MalformedError
    from protocol.group import parse_group
    from protocol.limits import GROUP_TOKEN_MAX_CHARS

    line = sys.stdin.readline(GROUP_TOKEN_MAX_CHARS + 2).strip() if secret == "-" else secret
    try:
        joined = parse_group(line)
    except MalformedError as error:
        raise Failed(Exit.USAGE, str(error)) from error
    enter_group(state_dir, joined)
    setup_of(ctx).show({"name": joined.name}, lambda: [f"in group {joined.name}, once the daemon starts again"])


@group.command(cls=Command)
@click.argument("name")
@state_option
@click.pass_context
def leave(ctx: click.Context, name: str, state_dir: Path) -> None:
    """Take this host out of a group: it has no part in its images any more, and serves none of them.

    What it holds of them stays private, until `entice rm`. Whoever kept the secret can join again: to shut a member
    out, publish what is to come for a new group, and recall what it is to have no more.

    \b
    entice group leave team-a --state /var/lib/enticed
    """
    from enticed.identity.groups import leave_group

    leave_group(state_dir, name)
    setup_of(ctx).show({"name": name}, lambda: [f"out of group {name}, once the daemon starts again"])


@group.command("list", cls=Command)
@state_option
@click.pass_context
def list_groups(ctx: click.Context, state_dir: Path) -> None:
    """List the groups that this host is in, without their secrets.

    \b
    entice group list --state /var/lib/enticed
    """
    from enticed.identity.groups import load_groups

    groups = load_groups(state_dir)
    answer = {"groups": [{"name": one.name, "id": str(one.id)} for one in groups]}
    rows = [(one.name, str(one.id)) for one in groups]
    setup_of(ctx).show(answer, lambda: table(("NAME", "ID"), rows, "in no group"))
