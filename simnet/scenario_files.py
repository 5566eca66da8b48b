"""Scenarios from TOML files: those that ship, by name, and a user's own, by path. What is not known is refused."""

from __future__ import annotations

import difflib
import reprlib
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from protocol.errors import LocalError
from simnet.bounds import BOUNDS, Bounds
from simnet.outcome import FIGURES
from simnet.scenario import Scenario

SHIPPED = Path(__file__).with_name("scenarios")
Record = TypeVar("Record")


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load(name: str) -> Scenario:
    """The scenario of this name, or the one in this file; `LocalError` with the file and the place in it."""
    path = SHIPPED / f"{name}.toml" if name in shipped() else Path(name)
    try:
        table = tomllib.loads(_text(path))
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of too many digits
        raise LocalError(f"{path}: {error}") from error
    try:
        return scenario_of(path.stem, table)
    except LocalError as error:
        raise LocalError(f"{path}: {error}") from error


def scenario_of(name: str, table: Mapping[str, Any]) -> Scenario:
    """The scenario that a parsed file describes; `LocalError` where it has a key or a value that cannot be."""
    if "name" in table:
        raise LocalError("a scenario is called as its file is: leave out name")
    goals = table.get("goals")
    for figure in goals if isinstance(goals, Mapping) else ():
        if figure not in FIGURES:
            raise LocalError(f"goals: no figure is called {figure!r}{nearest(figure, FIGURES)}")
    return _record(Scenario, {"name": name, **table}, "")


def nearest(name: str, known: Collection[str]) -> str:
    """What was probably meant."""
    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean {close[0]!r}?" if close else f": there are {', '.join(sorted(known))}"


def _text(path: Path) -> str:
    """What is in the file; `LocalError` where there is none, `OSError` where it cannot be read."""
    if path.is_dir():
        raise LocalError(f"{path} is a directory")
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise LocalError(f"there is no file {path}")
        raise LocalError(f"no file and no scenario is called {str(path)!r}{nearest(str(path), shipped())}")
    return path.read_text(encoding="utf-8")


def _record(kind: type[Record], table: Any, where: str) -> Record:
    """A dataclass from a table with its fields as keys; all that it has no default for are needed."""
    if not isinstance(table, Mapping):
        raise LocalError(f"{where} is a table")
    hints, bounds = get_type_hints(kind), BOUNDS[kind]
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise LocalError(f"{where or 'the scenario'}: no key is called {key!r}{nearest(key, known)}")
    needed = [key for key, field in known.items() if field.default is MISSING and field.default_factory is MISSING]
    missing = [key for key in needed if key not in table]
    if missing:
        raise LocalError(f"{where or 'the scenario'} needs {', '.join(missing)}")
    values = {
        key: _value(hints[key], value, f"{where}.{key}".lstrip("."), bounds.get(key)) for key, value in table.items()
    }
    try:
        return kind(**values)
    except LocalError as error:
        raise LocalError(f"{where}: {error}" if where else str(error)) from error


def _value(kind: Any, value: Any, where: str, bounds: Bounds | None) -> Any:
    """A value of this type, as TOML has it; numbers are within the bounds."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _value(next(one for one in inner if one is not type(None)), value, where, bounds)
    if origin is tuple:
        if not isinstance(value, list):
            raise LocalError(f"{where} is a list")
        return tuple(_value(inner[0], one, f"{where}[{number}]", bounds) for number, one in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise LocalError(f"{where} is a table")
        return {key: _value(inner[1], one, f"{where}.{key}", bounds) for key, one in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(kind, value, where)
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            meant = nearest(value if isinstance(value, str) else "", [one.value for one in kind])
            raise LocalError(f"{where} is not {_shown(value)}{meant}")
        return kind(value)
    return _plain(kind, value, where, bounds)


def _plain(kind: type[Any], value: Any, where: str, bounds: Bounds | None) -> Any:
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # a NaN is none
    if not (is_number if kind is float else type(value) is kind):
        raise LocalError(f"{where} is {names[kind]}, not {_shown(value)}")
    if bounds is not None:
        least, most = bounds
        if value < least:
            raise LocalError(f"{where} is at least {least:,.10g}, not {_shown(value)}")
        if value > most:
            raise LocalError(f"{where} is at most {most:,.10g}, not {_shown(value)}")
    return kind(value)


def _shown(value: Any) -> str:
    """Short, on one line."""
    try:
        return reprlib.repr(value)
    except ValueError:  # in hexadecimal there may be more digits than Python writes
        return "a number of thousands of digits"
