"""Answers that follow from records: the JSON of a dataclass of the engine's port, and its schema.

So a field of the API is written once, in the record. Its name, with the unit last, and its type say what it is:
`_bytes` are bytes, `_at` and `_until` are unix seconds. What programs are to know besides stands beside the type:
`Annotated[str, "who placed it"]`. Identifiers are told as lower-case hex, bytes as base64; null is "none" or "not known
yet". Programs rely on all of it: fields are added, never renamed, retyped or taken away.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import chain
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from enticed.control.schema_kinds import (
    BYTES,
    COUNT,
    FLAG,
    IMAGE_ID,
    KEY,
    NODE_ID,
    NUMBER,
    PUBLISHER_KEY,
    TEXT,
    TIME,
    Schema,
    answer,
    array,
    enum,
    or_null,
    ref,
)
from enticed.engine.campaigns.port import CampaignHostView
from enticed.engine.port import BytesFrom, RecallView
from enticed.engine.retention.port import RoomView
from protocol.identifiers import Identifier, ImageId, NodeId, PublisherKey

_NAMES = {"image": "image_id", "node": "node_id", "target": "image"}
"""Of fields that JSON calls otherwise."""
_REFERRED: dict[Any, str] = {
    BytesFrom: "BytesFrom",
    RecallView: "Recall",
    CampaignHostView: "CampaignHost",
    RoomView: "Room",
}
"""Records within records that have a name of their own in the document."""
_BY_NAME: dict[str, Schema] = {"key": KEY, "percent": NUMBER | {"maximum": 100}}
_BY_TYPE: dict[Any, Schema] = {
    bool: FLAG,
    str: TEXT,
    bytes: TEXT,
    ImageId: IMAGE_ID,
    NodeId: NODE_ID,
    PublisherKey: PUBLISHER_KEY,
    dict[str, str]: {"type": "object", "additionalProperties": TEXT},
    dict[str, int]: {"type": "object", "additionalProperties": COUNT},
}
_MOMENT = re.compile(r"(.*_)?(at|until|since)")


def json_of(record: object, *, without: str = "") -> dict[str, Any]:
    """A record as it is told. without: a field that is left out."""
    kind: Any = type(record)
    return {told: _value(getattr(record, name)) for name, told in _told(kind) if name != without}


def schema_of(record: Any, *, without: str = "", **more: Schema) -> Schema:
    """What `json_of` makes of such records. more: fields that are told besides, or are more than their type says."""
    hints = get_type_hints(record, include_extras=True)
    return answer(**{told: _schema(name, hints[name]) for name, told in _told(record) if name != without} | more)


@cache
def _told(record: Any) -> tuple[tuple[str, str], ...]:
    """Its fields, each with what JSON calls it."""
    return tuple((field.name, _NAMES.get(field.name, field.name)) for field in fields(record))


def _value(value: object) -> Any:
    kind: Any = type(value)
    tell = _teller(kind)
    return value if tell is None else tell(value)


@cache
def _teller(kind: type) -> Callable[[Any], Any] | None:
    """What makes JSON of such values; None where they are it. There may be thousands to tell."""
    if issubclass(kind, Identifier):
        return str
    if issubclass(kind, Enum):
        return lambda one: one.value
    if issubclass(kind, tuple):
        return lambda some: [_value(one) for one in some]
    if issubclass(kind, bytes):
        return lambda some: base64.b64encode(some).decode()
    return json_of if is_dataclass(kind) else None


def _schema(name: str, hint: Any) -> Schema:
    """Of what a field of this name and type is told as; `TypeError` for a type that no field has had yet."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        said = {"description": arguments[1]} if isinstance(arguments[1], str) else {}
        return _schema(name, arguments[0]) | said
    if kind in (Union, UnionType):
        known = [one for one in arguments if one is not NoneType]
        schema = _schema(name, known[0]) if len(known) == 1 else enum(dict.fromkeys(chain.from_iterable(known)))
        return or_null(schema) if NoneType in arguments else schema
    if kind is tuple:
        return array(_schema(name, arguments[0]))
    if hint in _REFERRED:
        return ref(_REFERRED[hint])
    if is_dataclass(hint):
        return schema_of(hint)
    return _plain(name, hint)


def _plain(name: str, hint: Any) -> Schema:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if hint in _BY_TYPE:
        return _BY_TYPE[hint]
    if issubclass(hint, Enum):
        return enum(hint)
    if hint is int:
        return BYTES if name.endswith("_bytes") else COUNT
    if hint is float:
        return TIME if _MOMENT.fullmatch(name) else NUMBER
    raise TypeError(f"{name} is of a type that no field has had yet: {hint}")
