"""Whatever a request says, it is understood or refused with the one error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.control.fields import (
    parse_key,
    parse_object,
    parse_order,
    parse_own_key,
    parse_publish,
    parse_target,
    parse_token_request,
)
from enticed.control.queries import parse_progress_interval
from enticed.core.campaigns.admission import key_of
from enticed.engine.reading import KEY_PREFIX
from enticed.engine.retention.floor_keeping import KEEP_PREFIX
from enticed.engine.stock.stockroom import HEAL_PREFIX
from enticed.problems import UsageError
from protocol.identifiers import ImageId, NodeId

FIELDS = (
    "image", "deadline_s", "priority", "keep_s", "ticket", "name", "source_format", "verbatim", "relatives", "digests",
    "source_sha256", "source_sha512", "uses", "ttl_s",
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["a", "web:1", "boot", "a" * 64, "b" * 128, "sha256:" + "c" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("parse", [parse_order, parse_publish, parse_token_request])
@given(values=st.dictionaries(st.sampled_from(FIELDS) | st.text(), VALUES, max_size=6))
def test_any_object(parse: Callable[[dict[str, Any]], object], values: dict[str, Any]) -> None:
    try:
        parse(values)
    except UsageError:
        pass


@given(body=st.binary(max_size=200))
def test_any_body(body: bytes) -> None:
    try:
        assert isinstance(parse_object(body), dict)
    except UsageError:
        pass


@pytest.mark.parametrize("parse", [parse_key, parse_own_key, parse_target, parse_progress_interval])
@given(text=st.text(max_size=300))
def test_any_text(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except UsageError:
        pass


def test_keys_of_orders_that_hosts_place_are_no_clients() -> None:
    node, image = NodeId(bytes(range(20))), ImageId(bytes(range(32)))
    for key in (key_of(node, "web"), *(f"{prefix}{image}" for prefix in (KEY_PREFIX, HEAL_PREFIX, KEEP_PREFIX))):
        assert parse_key(key) == key  # to look at it, and for who may, to cancel it
        with pytest.raises(UsageError, match="hosts place by themselves"):
            parse_own_key(key)
    for key in ("web:tuesday", "read-the-news", f"{node}", f"my-{node}:web", f"keep-{node}"):
        assert parse_own_key(key) == key
