"""Hypothesis strategies for whatever the codec can carry, drawn from the same annotations that the codec reads."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Annotated, Any, get_args, get_origin

from hypothesis import strategies as st

from protocol.identifiers import Identifier

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
"""Anything that msgpack can say."""


def records(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Valid records of a dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in fields(kind)})


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Valid values of a field."""
    if get_origin(annotation) is Annotated:
        base, bounds = get_args(annotation)[:2]
        if base is int:
            return st.integers(bounds.low, bounds.high)
        most = min(bounds.high, bounds.low + 8)
        if base is str:
            return st.text(min_size=bounds.low, max_size=most)
        if base is bytes:
            return st.binary(min_size=bounds.low, max_size=most)
        return st.lists(values(get_args(base)[0]), min_size=bounds.low, max_size=most).map(tuple)
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is typing.Union:
        return st.one_of(*(st.none() if arm is type(None) else values(arm) for arm in get_args(annotation)))
    if annotation is bool:
        return st.booleans()
    if issubclass(annotation, Identifier):
        size = annotation.size_bytes
        return st.binary(min_size=size, max_size=size).map(annotation)
    if issubclass(annotation, IntEnum):
        return st.sampled_from(annotation)
    assert isinstance(annotation, type)
    assert is_dataclass(annotation)
    return records(annotation)
