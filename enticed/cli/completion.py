"""Completion for shells, by click's own mechanism; names of images come from the running daemon
(`command.image_argument`).
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from enticed.cli.command import Command

VARIABLE = "_ENTICE_COMPLETE"

# Click's own script for bash, but that the line is taken apart here: bash breaks words at colons, which names of images
# have. What stands before the last colon of a word is there already, and is taken off each completion again.
_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" word response completion type value
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${words[-1]}"
    response=$(env COMP_WORDS="$line" COMP_CWORD=$((${#words[@]} - 1)) %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    while IFS=',' read -r type value; do
        if [[ $type == dir ]]; then
            compopt -o dirnames
        elif [[ $type == file ]]; then
            compopt -o default
        elif [[ $type == plain ]]; then
            [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && value="${value#"${word%%"${word##*:}"}"}"
            COMPREPLY+=("$value")
        fi
    done <<< "$response"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": FishComplete}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion of `entice` for a shell; images are completed from the running daemon.

    \b
    entice completion bash > /etc/bash_completion.d/entice
    entice completion zsh > /usr/share/zsh/site-functions/_entice
    entice completion fish > /etc/fish/completions/entice.fish
    """
    root = ctx.find_root()
    click.echo(SHELLS[shell](root.command, {}, "entice", VARIABLE).source())
