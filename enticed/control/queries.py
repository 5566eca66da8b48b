"""Reading what stands in a request's address and headers: texts, each right, or refused in one clear line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from enticed.control.fields import quoted
from enticed.core.orders import OrderState
from enticed.limits import CAMPAIGN_WAIT_MAX_S, CONTENT_DEADLINE_MAX_S, CONTROL_PROGRESS_MIN_S
from enticed.problems import UsageError


def parse_state(text: str) -> OrderState:
    try:
        return OrderState(text)
    except ValueError as error:
        raise UsageError(f"{quoted(text)} is no state of an order: {', '.join(OrderState)}") from error


def parse_event_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UsageError("Last-Event-ID is the number of an event")
    return int(text)


def parse_progress_interval(text: str) -> float:
    """How often progress is to be told, in seconds."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or float(text) < CONTROL_PROGRESS_MIN_S:
        raise UsageError(f"progress_s is a number of seconds, at least {CONTROL_PROGRESS_MIN_S}")
    return float(text)


def parse_deadline(text: str) -> float:
    """How long a reader is ready to wait, in seconds."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0 < float(text) <= CONTENT_DEADLINE_MAX_S:
        raise UsageError(f"deadline_s is a number of seconds, up to {CONTENT_DEADLINE_MAX_S:.0f}")
    return float(text)


def parse_query(query: Mapping[str, str], *known: str) -> dict[str, str]:
    """The parameters of a query, none of which may be unknown."""
    for name in query:
        if name not in known:
            raise UsageError(f"no parameter is called {quoted(name)} here")
    return dict(query)


def parse_revision(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UsageError("after is the revision of a campaign")
    return int(text)


def parse_wait(text: str) -> float:
    """How long to wait for a change, in seconds."""
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= CAMPAIGN_WAIT_MAX_S:
        raise UsageError(f"wait_s is seconds, from 0 to {CAMPAIGN_WAIT_MAX_S:g}")
    return wait_s
