"""Scenarios from TOML files: those that ship, by name, and a user's own, by path. What is not known is refused."""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from protocol.errors import LocalError
from simnet.outcome import FIGURES
from simnet.scenario import Scenario

SHIPPED = Path(__file__).with_name("scenarios")
Record = TypeVar("Record")


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load(name: str) -> Scenario:
    """The scenario of this name, or the one in this file; `LocalError` with the file and the place in it."""
    path = SHIPPED / f"{name}.toml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        raise LocalError(f"no file and no scenario is called {name!r}{nearest(name, shipped())}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
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
    scenario = _record(Scenario, {"name": name, **table}, "")
    for figure in scenario.goals:
        if figure not in FIGURES:
            raise LocalError(f"goals: no figure is called {figure!r}{nearest(figure, FIGURES)}")
    return scenario


def nearest(name: str, known: Collection[str]) -> str:
    """What was probably meant."""
    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean {close[0]!r}?" if close else f": there are {', '.join(sorted(known))}"


def _record(kind: type[Record], table: Any, where: str) -> Record:
    """A dataclass from a table with its fields as keys; all that it has no default for are needed."""
    if not isinstance(table, Mapping):
        raise LocalError(f"{where} is a table")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise LocalError(f"{where or 'the scenario'}: no key is called {key!r}{nearest(key, known)}")
    for key, field in known.items():
        if key not in table and field.default is MISSING and field.default_factory is MISSING:
            raise LocalError(f"{where or 'the scenario'} needs {key}")
    return kind(**{key: _value(hints[key], value, f"{where}.{key}".lstrip(".")) for key, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """A value of this type, as TOML has it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _value(next(one for one in inner if one is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise LocalError(f"{where} is a list")
        return tuple(_value(inner[0], one, f"{where}[{number}]") for number, one in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise LocalError(f"{where} is a table")
        return {key: _value(inner[1], one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(kind, value, where)
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            raise LocalError(f"{where} is not {value!r}{nearest(str(value), [one.value for one in kind])}")
        return kind(value)
    return _plain(kind, value, where)


def _plain(kind: type[Any], value: Any, where: str) -> Any:
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number and value == value:  # a NaN is none
        return float(value)
    if type(value) is not kind or kind is float:
        raise LocalError(f"{where} is {names[kind]}, not {value!r}")
    return value
