"""The JSON of those answers of the control API that have another shape than their records; of others, `answers.py`.

A stable schema: fields are added, never renamed, retyped or taken away. Identifiers are lower-case hex, times unix
seconds, sizes bytes; null is "none" or "not known yet".
"""

from __future__ import annotations

import base64
from typing import Any

from enticed.control.answers import json_of
from enticed.engine.port import (
    Grant,
    PlanView,
    RecallReport,
    StatusView,
    Why,
)
from enticed.engine.retention.port import RoomView


def recall_json(report: RecallReport) -> dict[str, Any]:
    return {
        "image_id": str(report.image),
        "recalled": json_of(report.recall),
        "holders": [
            {"id": str(one.node), "addresses": list(one.addresses), "whole": one.whole} for one in report.receipts
        ],
        "estimated_others": report.estimated_others,
    }


def why_json(one: Why) -> dict[str, Any]:
    order = one.order
    return {
        "key": order.key,
        "image": order.target,
        "image_id": None if order.image is None else str(order.image),
        "state": order.state.value,
        "why": one.why,
    }


def plan_json(plan: PlanView) -> dict[str, Any]:
    return {
        "image": plan.target,
        "image_id": str(plan.image),
        "virtual_size_bytes": plan.virtual_size_bytes,
        "data_bytes": plan.data_bytes,
        "bytes_from": json_of(plan.bytes_from),
        "peers": dict(plan.peers),
        "missing_bytes": plan.missing_bytes,
        "missing_pieces": plan.missing_pieces,
        "estimate_s": plan.estimate_s,
        "providers": plan.providers,
        "room": _room_json(plan.room),
    }


def _room_json(room: RoomView) -> dict[str, Any]:
    return {
        "fits": not room.trouble,
        "needed_bytes": room.needed_bytes,
        "short_bytes": room.short_bytes,
        "goes": [
            {"image_id": str(one.image), "names": list(one.names), "size_bytes": one.decision.candidate.size_bytes}
            for one in room.goes
        ],
        "trouble": room.trouble or None,
    }


def grant_json(grant: Grant) -> dict[str, Any]:
    return {
        "certificate": base64.b64encode(grant.certificate).decode(),
        "authority": base64.b64encode(grant.authority).decode(),
        "id": str(grant.node),
        "expires_at": grant.expires_at,
        "api": list(grant.api),
    }


def status_json(status: StatusView, may_change: bool) -> dict[str, Any]:
    """may_change: whether the one who asks may change things here."""
    return json_of(status) | {"may_change": may_change}
