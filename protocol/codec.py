"""The strict codec: one frozen dataclass per message, one msgpack array per dataclass.

A message is the array `[type, field, field, ...]`, a nested record the array of its fields. What a field may hold is
said by its annotation, with its bounds, and checked in both directions; `None` is allowed only where the annotation
says so. There are no optional, unknown or reordered fields: what may be said is negotiated by version and capability
beforehand, so anything unexpected is `MalformedError`.

Nothing is allocated that was not first checked: frames are bounded before they reach this module, msgpack refuses any
declared length beyond the bytes at hand, and an array's also beyond ARRAY_MAX_COUNT, since arrays in arrays in arrays
could each declare the whole frame.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

import msgpack

from protocol.errors import LocalError, MalformedError
from protocol.identifiers import Identifier
from protocol.limits import ARRAY_MAX_COUNT


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds, both inclusive: of an int's value, of a str's characters, of bytes' or a tuple's length."""

    low: int
    high: int


U8 = Annotated[int, Between(0, 2**8 - 1)]
U16 = Annotated[int, Between(0, 2**16 - 1)]
U32 = Annotated[int, Between(0, 2**32 - 1)]
U64 = Annotated[int, Between(0, 2**64 - 1)]

Record = TypeVar("Record")
Check = Callable[[Any], Any]
"""Turns what msgpack gave into the field's value, or raises MalformedError."""


def pack_record(record: object) -> bytes:
    """Bytes of one dataclass as an array of its fields. `LocalError` if a value is out of its bounds."""
    return _pack([], record)


def unpack_record(kind: type[Record], data: bytes | memoryview) -> Record:
    """The inverse of `pack_record`; any bytes give a `kind` or `MalformedError`."""
    return cast(Record, _checker(kind)(_unpack(data)))


class Vocabulary:
    """A closed set of messages, each with its type number: what may be said on one kind of channel."""

    def __init__(self, messages: dict[int, type[Any]]) -> None:
        self._kinds = messages
        self._numbers = {kind: number for number, kind in messages.items()}
        if len(self._numbers) != len(messages):
            raise LocalError("a message stands twice in one vocabulary")

    @property
    def messages(self) -> Mapping[int, type[Any]]:
        """By type number."""
        return self._kinds

    def encode(self, message: object) -> bytes:
        """Bytes of one message. `LocalError` for one that is not of this vocabulary or out of bounds."""
        number = self._numbers.get(type(message))
        if number is None:
            raise LocalError(f"{type(message).__name__} is not said here")
        return _pack([number], message)

    def decode(self, data: bytes | memoryview) -> Any:
        """One message, or `MalformedError`."""
        plain = _unpack(data)
        if not isinstance(plain, list) or not plain or type(plain[0]) is not int:
            raise MalformedError("not a message")
        kind = self._kinds.get(plain[0])
        if kind is None:
            raise MalformedError(f"unknown message type {plain[0]}")
        return _checker(kind)(plain[1:])


def _pack(head: list[int], record: object) -> bytes:
    """The head and the record's fields as one array, checked as the receiver will check them."""
    plain = _plain(record)
    try:
        _checker(type(record))(plain)
        return cast(bytes, msgpack.packb([*head, *plain]))
    except (MalformedError, UnicodeEncodeError) as error:
        raise LocalError(f"not sendable: {error}") from error


def _unpack(data: bytes | memoryview) -> Any:
    try:
        # use_list: lists are what the checkers below expect; maps and extension types are never part of a message.
        longest = min(len(data), ARRAY_MAX_COUNT)
        return msgpack.unpackb(data, use_list=True, raw=False, max_array_len=longest, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises half a dozen unrelated types; all of them mean the same here
        raise MalformedError(f"not msgpack: {type(error).__name__}") from error


def _plain(value: Any) -> Any:
    names = _names(value.__class__)
    if names is not None:
        return [_plain(getattr(value, name)) for name in names]
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, list):
        raise LocalError("not sendable: a list where a tuple belongs")  # it would pass for a tuple below
    return value


@cache
def _names(kind: type) -> tuple[str, ...] | None:
    """Of a dataclass's fields; None for any other type."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else None


def _checker(annotation: Any) -> Check:
    """The check that an annotation stands for, built once per annotation."""
    check = _CHECKS.get(annotation)
    if check is None:
        check = _CHECKS[annotation] = _build_checker(annotation)
    return check


_CHECKS: dict[Any, Check] = {}


def _build_checker(annotation: Any) -> Check:
    if get_origin(annotation) is Annotated:
        base, bounds = get_args(annotation)[:2]
        return _bounded(base, bounds)
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is typing.Union:
        return _optional(annotation)
    if annotation is bool:
        return _exactly(bool)
    if isinstance(annotation, type):
        if issubclass(annotation, Identifier):
            return _identifier(annotation)
        if issubclass(annotation, IntEnum):
            return _enum(annotation)
        if is_dataclass(annotation):
            return _dataclass(annotation)
    raise LocalError(f"no check for the annotation {annotation!r}")


def _exactly(kind: type) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise MalformedError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return check


def _bounded(base: Any, bounds: Between) -> Check:
    if get_origin(base) is tuple:
        if bounds.high > ARRAY_MAX_COUNT:
            raise LocalError(f"no array has more than {ARRAY_MAX_COUNT} items")
        return _tuple(_checker(get_args(base)[0]), bounds)
    is_int, low, high = base is int, bounds.low, bounds.high

    def check(value: Any) -> Any:
        if type(value) is not base:
            raise MalformedError(f"expected {base.__name__}, got {type(value).__name__}")
        size = value if is_int else len(value)
        if not low <= size <= high:
            raise MalformedError(f"{base.__name__} of {size} is not in {low}..{high}")
        return value

    return check


def _tuple(item: Check, bounds: Between) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or not bounds.low <= len(value) <= bounds.high:
            raise MalformedError(f"expected an array of {bounds.low}..{bounds.high}")
        return tuple(item(one) for one in value)

    return check


def _optional(annotation: Any) -> Check:
    arms = [arm for arm in get_args(annotation) if arm is not type(None)]
    if len(arms) != 1:
        raise LocalError("a field is of one type, or that or None")
    inner = _checker(arms[0])
    return lambda value: None if value is None else inner(value)


def _identifier(kind: type[Identifier]) -> Check:
    exact = _exactly(bytes)
    return lambda value: kind(exact(value))


def _enum(kind: type[IntEnum]) -> Check:
    exact = _exactly(int)

    def check(value: Any) -> IntEnum:
        try:
            return kind(exact(value))
        except ValueError as error:
            raise MalformedError(f"no {kind.__name__} {value}") from error

    return check


def _dataclass(kind: type) -> Check:
    hints = typing.get_type_hints(kind, include_extras=True)
    checks = [_checker(hints[field.name]) for field in fields(kind)]

    def check(value: Any) -> Any:
        if type(value) is not list or len(value) != len(checks):
            raise MalformedError(f"{kind.__name__} takes {len(checks)} fields")
        return kind(*[one(item) for one, item in zip(checks, value, strict=True)])

    return check
