"""SPEC.md against the code: all that it lists of messages, records, states and limits, and what refers to it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest

import protocol
from protocol import (
    credentials,
    datagram,
    dht,
    dsse,
    enrolment,
    floor,
    group,
    limits,
    messages,
    names,
    profile,
    providers,
    recall,
    statement,
    trust,
)
from protocol.codec import Vocabulary
from protocol.identifiers import Identifier
from protocol.session import BULK_BACK, BULK_FORWARD, CONTROL_RECEIVED, CONTROL_SENT, Table

PACKAGE = Path(protocol.__file__).parent
SPEC = (PACKAGE / "SPEC.md").read_text()
HEADINGS = re.findall(r"^#+ (.+)$", SPEC, re.MULTILINE)

SHORT = {(0, 2**bits - 1): f"u{bits}" for bits in (8, 16, 32, 64)}


def section(heading: str) -> str:
    """The text under a heading, up to the next one."""
    start = re.search(rf"^#+ {re.escape(heading)}$", SPEC, re.MULTILINE)
    assert start, heading
    end = re.compile(r"^#+ ", re.MULTILINE).search(SPEC, start.end())
    return SPEC[start.end() : end.start() if end else len(SPEC)]


def tables(text: str, *columns: str) -> Iterator[tuple[str, ...]]:
    """The rows of all tables in the text that have these columns."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = (tuple(line.strip("|\n").strip().split(" | ")) for line in block.splitlines())
        if head == columns:
            yield from rows


def notation(annotation: Any) -> str:
    """A field's annotation as SPEC.md writes it."""
    if get_origin(annotation) is Annotated:
        base, bounds = get_args(annotation)[:2]
        span = f"{bounds.low}" if bounds.low == bounds.high else f"{bounds.low}..{bounds.high}"
        if base is int:
            return SHORT.get((bounds.low, bounds.high), f"int {span}")
        if get_origin(base) is tuple:
            return f"[{notation(get_args(base)[0])}] {span}"
        return f"{ {str: 'text', bytes: 'bytes'}[base] } {span}"
    if get_origin(annotation) in (types.UnionType, typing.Union):
        return f"{notation(next(arm for arm in get_args(annotation) if arm is not type(None)))}?"
    return "bool" if annotation is bool else str(annotation.__name__)


def field_list(kind: type[Any]) -> str:
    hints = typing.get_type_hints(kind, include_extras=True)
    return ", ".join(f"`{field.name}` {notation(hints[field.name])}" for field in fields(kind)) or "none"


def named(annotation: Any) -> Iterator[type[Any]]:
    """The records, enumerations and identifiers that an annotation speaks of, and those that they speak of."""
    for part in get_args(annotation):
        yield from named(part)
    if isinstance(annotation, type) and issubclass(annotation, Identifier | IntEnum):
        yield annotation
    elif isinstance(annotation, type) and is_dataclass(annotation):
        yield annotation
        hints = typing.get_type_hints(annotation, include_extras=True)
        for field in fields(annotation):
            yield from named(hints[field.name])


VOCABULARIES = {
    "Messages: control": messages.CONTROL,
    "Messages: bulk": messages.BULK,
    "Meeting": datagram.HELLOS,
    "Messages: DHT": dht.DHT,
}
ROOTS = (
    providers._Signed,
    dsse.Envelope,
    statement.Statement,
    statement.StatementSet,
    profile.BootProfile,
    names.NameRecord,
    recall.Recall,
    floor.Floor,
    group.Privacy,
    trust.TrustBundle,
    credentials.NodeRecord,
    credentials.Attributes,
    enrolment.JoinRequest,
    enrolment.JoinAnswer,
)
"""What is packed as a record; all other records are fields of these or of messages."""
MESSAGES = [kind for vocabulary in VOCABULARIES.values() for kind in vocabulary.messages.values()]
NAMED: set[type[Any]] = {found for kind in (*ROOTS, *MESSAGES) for found in named(kind)} | {datagram.Kind}


@pytest.mark.parametrize(("heading", "vocabulary"), VOCABULARIES.items(), ids=VOCABULARIES)
def test_messages(heading: str, vocabulary: Vocabulary) -> None:
    said = [(str(number), f"`{kind.__name__}`", field_list(kind)) for number, kind in vocabulary.messages.items()]
    assert list(tables(section(heading), "no.", "message", "fields")) == said


def test_records() -> None:
    kinds = {kind for kind in NAMED if is_dataclass(kind) and kind not in MESSAGES}
    packed = {(f"`{spec_name(kind)}`", field_list(kind)) for kind in kinds}
    assert set(tables(SPEC, "record", "fields")) == packed


def spec_name(kind: type[Any]) -> str:
    return "ProviderRecord" if kind is providers._Signed else kind.__name__


def test_enumerations() -> None:
    kinds = {kind for kind in NAMED if issubclass(kind, IntEnum)}
    values = {(f"`{kind.__name__}`", ", ".join(f"{one.value} {one.name}" for one in kind)) for kind in kinds}
    assert set(tables(SPEC, "enumeration", "values")) == values


def test_identifiers() -> None:
    sizes = {kind.__name__: kind.size_bytes for kind in NAMED if issubclass(kind, Identifier)}
    listed = {
        name: int(size)
        for names_, sizes_, _ in tables(section("Identifiers"), "identifier", "bytes", "what")
        for name, size in zip(re.findall(r"`(\w+)`", names_), sizes_.split(", "), strict=True)
    }
    assert listed == sizes | {"Digest": 32}


STATES: dict[tuple[str, str, str], Table] = {
    ("state", "says", "then"): CONTROL_SENT,
    ("state", "hears", "then"): CONTROL_RECEIVED,
    ("state", "asker says", "then"): BULK_FORWARD,
    ("state", "answerer says", "then"): BULK_BACK,
}


@pytest.mark.parametrize(("columns", "table"), STATES.items(), ids=[columns[1] for columns in STATES])
def test_states(columns: tuple[str, ...], table: Table) -> None:
    listed = {
        (state, message, then)
        for states, said, then in tables(section("States"), *columns)
        for state in states.split(", ")
        for message in re.findall(r"`(\w+)`", said)
    }
    assert listed == {(state.name, kind.__name__, then.name) for (state, kind), then in table.items()}


def test_limits() -> None:
    units = {"KIB", "MIB", "GIB", "TIB"}
    listed = {name.strip("`"): int(value.replace(",", "")) for name, value, *_ in tables(SPEC, "limit", "value", "of")}
    assert listed == {name: value for name, value in vars(limits).items() if name.isupper() and name not in units}


def test_what_refers_to_a_section_finds_it() -> None:
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in HEADINGS}
    assert set(re.findall(r"\]\(#([\w-]+)\)", SPEC)) <= anchors
    sources = " ".join(" ".join(path.read_text().split()) for path in sorted(PACKAGE.glob("*.py")))
    quoted = re.findall(r'SPEC\.md, "([^"]+)"', sources)
    assert len(quoted) > 5
    assert set(quoted) <= set(HEADINGS)


def test_no_heading_stands_twice() -> None:
    assert len(set(HEADINGS)) == len(HEADINGS)
