"""The manual pages name every command, option and setting that there is, and are well-formed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import click
import pytest

from enticed.__main__ import main as enticed
from enticed.cli.main import entice
from enticed.config import SETTINGS
from tests.programs import need
from tests.project.imports import ROOT

PAGES = ROOT / "docs" / "man"
COMMON = {"--json", "--socket", "--help", "-h"}
"""Said once for all commands."""
WHAT_TO_DO = "Every command has its `.Ss entice NAME` in docs/man/entice.1, with its options as `.It Fl -option`."


def page(name: str) -> str:
    return (PAGES / name).read_text()


def sections(text: str) -> dict[str, str]:
    """Title and text of each subsection."""
    found = re.split(r"^\.S[sh] (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def options(text: str) -> set[str]:
    """What is documented there: `.It Fl -output Ar PATH , Fl h`."""
    items = re.findall(r"^\.It (Fl .+)$", text, re.MULTILINE)
    return {f"-{name}" for item in items for name in re.findall(r"Fl (\S+)", item)}


def has(command: click.Command) -> set[str]:
    """The options that it takes."""
    with click.Context(command) as context:
        found = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


def commands(group: click.Group, name: str = "entice") -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by what is typed."""
    with click.Context(group) as context:
        for word in group.list_commands(context):
            command = group.get_command(context, word)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, f"{name} {word}")
            else:
                yield f"{name} {word}", command


def test_every_command_of_entice_with_its_options() -> None:
    documented = {title: text for title, text in sections(page("entice.1")).items() if title.startswith("entice ")}
    found = dict(commands(entice))
    for title, text in documented.items():
        (name,) = [name for name in found if f"{title} ".startswith(f"{name} ")] or [""]
        assert name, f"{title}: there is no such command. {WHAT_TO_DO}"
        assert options(text) == has(found.pop(name)) - COMMON, f"{title}: {WHAT_TO_DO}"
    assert found == {}, WHAT_TO_DO


def test_the_options_of_both_programs() -> None:
    assert options(sections(page("entice.1"))["DESCRIPTION"]) == has(entice) | {"-h", "--help"}
    assert options(page("enticed.8")) == has(enticed) | {"-h", "--help"}


def test_every_setting() -> None:
    keys = set()
    for title, text in sections(page("enticed.toml.5")).items():
        table = re.fullmatch(r"Table (\w+)", title)
        prefix = f"{table[1]}." if table else ""
        keys |= {prefix + key for key in re.findall(r"^\.It Ic (\S+)$", text, re.MULTILINE)}
    assert keys == {setting.key for setting in SETTINGS}, "each has its `.It Ic key` in docs/man/enticed.toml.5"


@pytest.mark.parametrize("name", ["entice.1", "enticed.8", "enticed.toml.5"])
def test_mandoc_has_no_complaint(name: str) -> None:
    lint = subprocess.run(
        [need("mandoc"), "-T", "lint", PAGES / name], capture_output=True, text=True, check=False, timeout=60
    )
    # The other pages need not be installed where this is tested.
    complaints = [line for line in lint.stdout.splitlines() if "referenced manual not found" not in line]
    assert (complaints, lint.stderr) == ([], "")
