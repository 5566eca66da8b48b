"""The JSON of the control API. A stable schema: fields are added, never renamed, retyped or taken away.

Identifiers are lower-case hex, times unix seconds, sizes bytes; null is "none" or "not known yet".
"""

from __future__ import annotations

import base64
from typing import Any

from enticed.engine.campaign_port import CampaignHostView, CampaignView
from enticed.engine.port import (
    BytesFrom,
    Grant,
    ImageView,
    OrderView,
    OriginView,
    PeerView,
    PlanView,
    ProfileView,
    Published,
    RecallReport,
    RecallView,
    StatusView,
    Verification,
    Why,
)
from enticed.engine.space_port import RoomView


def image_json(image: ImageView) -> dict[str, Any]:
    return {
        "image_id": str(image.image),
        "names": list(image.names),
        "virtual_size_bytes": image.virtual_size_bytes,
        "data_bytes": image.data_bytes,
        "fragments": image.fragments,
        "pieces": image.pieces,
        "pieces_held": image.pieces_held,
        "ready": image.ready,
        "leased": image.leased,
        "created_at": image.created_at,
        "source_format": image.source_format,
        "relatives": [{"image_id": str(other), "shared_bytes": shared} for other, shared in image.relatives],
        "digests": dict(image.digests),
        "private": image.private,
        "recalled": None if image.recalled is None else _recall_json(image.recalled),
        "last_used_at": image.last_used_at,
        "pinned": image.pin is not None,
        "pinned_until": None if image.pin is None else image.pin.until,
        "replicas": image.replicas,
    }


def recall_json(report: RecallReport) -> dict[str, Any]:
    return {
        "image_id": str(report.image),
        "recalled": _recall_json(report.recall),
        "holders": [
            {"id": str(one.node), "addresses": list(one.addresses), "whole": one.whole} for one in report.receipts
        ],
        "estimated_others": report.estimated_others,
    }


def _recall_json(recall: RecallView) -> dict[str, Any]:
    return {"by": str(recall.publisher), "reason": recall.reason, "at": recall.issued_at}


def bytes_from_json(bytes_from: BytesFrom) -> dict[str, int]:
    return {
        "zero": bytes_from.zero,
        "on_hand": bytes_from.on_hand,
        "relatives": bytes_from.relatives,
        "peers": bytes_from.peers,
        "origin": bytes_from.origin,
    }


def order_json(order: OrderView) -> dict[str, Any]:
    return {
        "key": order.key,
        "image": order.target,
        "image_id": None if order.image is None else str(order.image),
        "state": order.state.value,
        "failure": None if order.failure is None else order.failure.value,
        "reason": order.reason,
        "priority": order.priority.value,
        "created_at": order.created_at,
        "due_at": order.due_at,
        "keep_until": order.keep_until,
        "ready_at": order.ready_at,
        "late": order.late,
        "percent": order.percent,
        "virtual_size_bytes": order.virtual_size_bytes,
        "data_bytes": order.data_bytes,
        "done_bytes": order.done_bytes,
        "fragments": order.fragments,
        "bytes_from": bytes_from_json(order.bytes_from),
        "bytes_per_s": order.bytes_per_s,
        "estimate_s": order.estimate_s,
        "path": order.path,
        "copies": order.copies,
        "promise": None if order.promise is None else order.promise.value,
        "owner": order.owner,
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


def published_json(published: Published) -> dict[str, Any]:
    return {
        "image_id": str(published.image),
        "name": published.name,
        "name_version": published.name_version,
        "virtual_size_bytes": published.virtual_size_bytes,
        "data_bytes": published.data_bytes,
        "fragments": published.fragments,
        "new_bytes": published.new_bytes,
        "seconds": published.seconds,
        "signatures_needed": published.signatures_needed,
    }


def profile_json(profile: ProfileView) -> dict[str, Any]:
    return {
        "image_id": str(profile.image),
        "ranges": [list(one) for one in profile.ranges],
        "total_bytes": profile.total_bytes,
    }


def verification_json(verification: Verification) -> dict[str, Any]:
    return {
        "image_id": str(verification.image),
        "pieces": verification.pieces,
        "wrong_pieces": list(verification.wrong_pieces),
    }


def plan_json(plan: PlanView) -> dict[str, Any]:
    return {
        "image": plan.target,
        "image_id": str(plan.image),
        "virtual_size_bytes": plan.virtual_size_bytes,
        "data_bytes": plan.data_bytes,
        "bytes_from": bytes_from_json(plan.bytes_from),
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


def peer_json(peer: PeerView) -> dict[str, Any]:
    return {
        "node_id": str(peer.node),
        "addresses": list(peer.addresses),
        "zone": peer.zone,
        "rack": peer.rack,
        "in_flight_bytes": peer.in_flight_bytes,
        "bytes_per_s": peer.bytes_per_s,
        "strikes": peer.strikes,
        "images": peer.images,
    }


def campaign_json(campaign: CampaignView, *, with_hosts: bool = True) -> dict[str, Any]:
    """with_hosts: each of them, of which there may be thousands."""
    shown = {
        "key": campaign.key,
        "image": campaign.target,
        "image_id": str(campaign.image),
        "owner": campaign.owner,
        "state": campaign.state.value,
        "created_at": campaign.created_at,
        "due_at": campaign.due_at,
        "keep_s": campaign.keep_s,
        "at_most_at_once": campaign.at_most_at_once or None,
        "labels": {label.key: label.value for label in campaign.labels},
        "complete": campaign.is_complete,
        "promise": None if campaign.promise is None else campaign.promise.value,
        "hosts_ready": campaign.ready,
        "hosts_total": campaign.total,
        "revision": campaign.revision,
    }
    return shown | ({"hosts": [_campaign_host_json(host) for host in campaign.hosts]} if with_hosts else {})


def _campaign_host_json(host: CampaignHostView) -> dict[str, Any]:
    return {
        "host": host.host,
        "name": host.name,
        "node_id": None if host.node is None else str(host.node),
        "state": host.state,
        "failure": None if host.failure is None else host.failure.value,
        "percent": host.percent,
        "promise": None if host.promise is None else host.promise.value,
        "estimate_s": host.estimate_s,
        "reason": host.reason,
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
    return {
        "version": status.version,
        "node_id": str(status.node),
        "zone": status.zone,
        "rack": status.rack,
        "founder": status.founder,
        "may_change": may_change,
        "listen": list(status.listen),
        "advertise": list(status.advertise),
        "images": status.images,
        "peers": status.peers,
        "dht_nodes": status.dht_nodes,
        "used_bytes": status.used_bytes,
        "quota_bytes": status.quota_bytes,
        "free_bytes": status.free_bytes,
        "reserved_bytes": status.reserved_bytes,
        "room_bytes": status.room_bytes,
        "state": status.state,
        "uploads": status.uploads,
        "orders": dict(status.orders),
        "started_at": status.started_at,
        "certificate_expires_at": status.certificate_expires_at,
        "certificate_trouble": status.certificate_trouble,
        "sent_bytes": status.sent_bytes,
        "received_bytes": status.received_bytes,
        "loop_lag_p99_ms": status.loop_lag_p99_ms,
        "memory_bytes": status.memory_bytes,
        "origin": None if status.origin is None else _origin_json(status.origin),
        "revoked": status.revoked,
        "disowned_by": [str(node) for node in status.disowned_by],
        "degraded": status.degraded or None,
        "degraded_since": status.degraded_since,
    }


def _origin_json(origin: OriginView) -> dict[str, Any]:
    return {
        "prefix": origin.prefix,
        "state": origin.state.value,
        "said": origin.said,
        "since": origin.since,
        "received_bytes": origin.received_bytes,
    }
