"""The control API as an OpenAPI document, served as `/v1/openapi.json`: one row of `OPERATIONS` for each route.

Whoever adds a route to `routes.py` (or to `operating/routes.py`) adds its row here, and its records to `schemas.py`; a
test compares the router with this table, both ways, and another sends generated requests to a real daemon and holds
what comes back against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any

from aiohttp import web

import enticed
from enticed.control.schema_kinds import (
    CAMPAIGN_KEY,
    IMAGE_ID,
    KEY,
    TARGET,
    TEXT,
    Schema,
    answer,
    array,
    enum,
    ref,
)
from enticed.control.schemas import RECORDS
from enticed.control.space_schemas import FREE_BYTES
from enticed.core.orders import OrderState
from enticed.limits import CAMPAIGN_WAIT_MAX_S, CONTENT_DEADLINE_MAX_S, CONTROL_PROGRESS_MIN_S
from enticed.problems import CONTENT_TYPE

PATH = "/v1/openapi.json"
JSON, LINES, EVENTS, PLAIN = "application/json", "application/x-ndjson", "text/event-stream", "text/plain"
BYTES = "application/octet-stream"
_REFERENCE = re.compile(r"#/components/schemas/(\w+)")

REFUSED = (400, 404, 405, 413)
"""What any request can meet: itself, its path, its method, its size."""
CHANGING = (403, 408)
"""What requests that change something can meet besides: the caller's rights, and a body that does not come."""

PATH_PARAMETERS: dict[str, Schema] = {"target": TARGET, "key": KEY, "campaign": CAMPAIGN_KEY}
"""By their names in a path, which mean the same in every path."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path does. gives: the schema of a JSON answer, or of one line of a stream of them.

    query, headers: what may stand there, by name; needed: which of them must. takes: the record that the body is.
    problems: what it can meet besides REFUSED and, where it changes something, CHANGING;
    told_plainly: those that may come as plain text, too.
    """

    summary: str
    gives: Schema | None = None
    media: str = JSON
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    takes: str | None = None
    also: tuple[int, ...] = ()
    """Other statuses of an answer that is no problem."""
    problems: tuple[int, ...] = ()
    told_plainly: tuple[int, ...] = ()


def _listed(name: str, record: str) -> Schema:
    return answer(**{name: array(ref(record))})


def _lines(result: Schema) -> Schema:
    """A line of `work_stream`."""
    progress = answer(done_bytes={"type": "integer"}, total_bytes={"type": "integer"})
    return {"oneOf": [answer(progress=progress), answer(result=result), answer(error=ref("Problem"))]}


_PIECES = array({"type": "integer"})
_VERIFICATION = answer(image_id=IMAGE_ID, pieces={"type": "integer"}, wrong_pieces=_PIECES, missing_pieces=_PIECES)
_PUBLISHED = answer(image_id=IMAGE_ID, name=TARGET, new_bytes={"type": "integer"}, seconds={"type": "number"})

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/status"): Operation("How this host is doing", ref("Status")),
    ("GET", "/v1/images"): Operation("The images on this host, whole or in the making", _listed("images", "Image")),
    ("POST", "/v1/images"): Operation(
        "Publish the file that was handed over, with progress", _lines(_PUBLISHED), LINES, takes="Publication"
    ),
    ("GET", "/v1/images/{target}"): Operation("One image on this host", ref("Image")),
    ("DELETE", "/v1/images/{target}"): Operation(
        "Remove an image from this host; 409 while it is leased, pinned or open", ref("Image"), problems=(409,)
    ),
    ("GET", "/v1/images/{target}/replicas"): Operation(
        "How many hosts of the cluster are to hold an image, and how many do", ref("Floor"), problems=(403, 409, 503)
    ),
    ("PUT", "/v1/images/{target}/replicas"): Operation(
        "Have so many hosts of the cluster hold an image; 0 takes that back",
        ref("Floor"),
        takes="FloorRequest",
        problems=(409, 503, 507),
    ),
    ("PUT", "/v1/images/{target}/pin"): Operation(
        "Keep an image on this host, for a time or until it is unpinned",
        ref("Image"),
        takes="PinRequest",
        problems=(503,),
    ),
    ("DELETE", "/v1/images/{target}/pin"): Operation("Let an image go when room is wanted", ref("Image")),
    ("GET", "/v1/gc"): Operation(
        "Which images would go to make room, and why each other would stay",
        ref("Reckoning"),
        query={"free_bytes": FREE_BYTES},
        problems=(403,),
    ),
    ("POST", "/v1/gc"): Operation("Have images go to make room", ref("Reckoning"), takes="GcRequest", problems=(409,)),
    ("POST", "/v1/images/{target}/verify"): Operation(
        "Read an image back and check every byte, with progress", _lines(_VERIFICATION), LINES
    ),
    ("POST", "/v1/images/{target}/recall"): Operation(
        "Recall an image for good: no host serves or orders it any more. Without a reason: how it was recalled",
        ref("RecallReport"),
        takes="RecallRequest",
        problems=(409, 503, 507),
    ),
    ("GET", "/v1/images/{target}/content"): Operation(
        "An image's bytes, all or one range of them, whole on this host or not; what is not here is fetched first. By "
        "name it is what that means now, and the ETag says which image that is",
        TEXT | {"format": "binary"},
        BYTES,
        query={"deadline_s": {"type": "number", "exclusiveMinimum": 0, "maximum": CONTENT_DEADLINE_MAX_S}},
        headers={"Range": TEXT, "If-Range": TEXT, "If-None-Match": TEXT},
        also=(206, 304),
        problems=(403, 409, 416, 422, 503, 507),
    ),
    ("GET", "/v1/images/{target}/profile"): Operation(
        "What readers on this host read of an image, in that order; 404 where nobody did of late", ref("Profile")
    ),
    ("PUT", "/v1/images/{target}/profile"): Operation(
        "Sign what a VM reads first: other hosts fetch that first. Without ranges: what was read on this host",
        ref("Profile"),
        takes="ProfileRequest",
        problems=(409, 507),
    ),
    ("GET", "/v1/plan"): Operation(
        "What a pull would do, without doing it",
        ref("Plan"),
        query={"target": TARGET},
        needed=("target",),
        problems=(403, 409, 422, 503, 507),
    ),
    ("GET", "/v1/orders"): Operation("All orders", _listed("orders", "Order"), query={"state": enum(OrderState)}),
    ("GET", "/v1/why"): Operation(
        "Why orders do not go on: the one of this key, or those for an image of this name or id",
        _listed("orders", "Why"),
        query={"what": TEXT},
        needed=("what",),
    ),
    ("PUT", "/v1/orders/{key}"): Operation(
        "Order an image onto this host, or renew an order: the same key again is the same order. A name that nobody "
        "knows is 404 to a scheduler; for this host's users, the order fails",
        ref("Order"),
        takes="OrderTerms",
        problems=(409, 503, 507),
    ),
    ("GET", "/v1/orders/{key}"): Operation("One order", ref("Order")),
    ("DELETE", "/v1/orders/{key}"): Operation("Cancel an order, and end its lease", ref("Order"), problems=(409, 503)),
    ("GET", "/v1/events"): Operation(
        "Changes of orders as they happen, server-sent; resumable by Last-Event-ID",
        ref("Order"),
        EVENTS,
        query={"key": KEY, "progress_s": {"type": "number", "minimum": CONTROL_PROGRESS_MIN_S, "maximum": 9999}},
        headers={"Last-Event-ID": {"type": "string", "pattern": "^[0-9]{1,18}$"}},
        problems=(503,),
    ),
    ("GET", "/v1/campaigns"): Operation("All campaigns, without their hosts", _listed("campaigns", "Campaign")),
    ("PUT", "/v1/campaigns/{campaign}"): Operation(
        "Bring an image to many hosts, or ask for that again: the same key again is the same campaign",
        ref("CampaignWithHosts"),
        takes="CampaignTerms",
        problems=(409, 503, 507),
    ),
    ("GET", "/v1/campaigns/{campaign}"): Operation(
        "One campaign and each of its hosts: now, or once it is newer than the revision `after`",
        ref("CampaignWithHosts"),
        query={
            "after": {"type": "string", "pattern": "^[0-9]{1,18}$"},
            "wait_s": {"type": "number", "minimum": 0, "maximum": CAMPAIGN_WAIT_MAX_S},
        },
    ),
    ("DELETE", "/v1/campaigns/{campaign}"): Operation(
        "Cancel a campaign, and its orders on all hosts", ref("CampaignWithHosts"), problems=(503,)
    ),
    ("GET", "/v1/peers"): Operation("The hosts that this one is connected to", _listed("peers", "Peer")),
    ("POST", "/v1/tokens"): Operation(
        "A token with which other hosts join the cluster",
        ref("Token"),
        takes="TokenRequest",
        problems=(409, 503),
    ),
    ("POST", "/v1/grants"): Operation(
        "A certificate for a scheduler, which orders over HTTPS with it; 409 for keys or terms that none is made for",
        ref("Grant"),
        takes="GrantRequest",
        problems=(409,),
    ),
    ("GET", "/v1/trust"): Operation("Who may do what, by the newest trust bundle that this host has", ref("Trust")),
    ("GET", "/v1/trust/hosts"): Operation(
        "The hosts with a certificate that were not revoked, oldest first; 403 but on the founding host",
        _listed("hosts", "CertifiedHost"),
        problems=(403,),
    ),
    ("POST", "/v1/trust/revocations"): Operation(
        "Take back what a host, scheduler or publisher may do, everywhere within a minute",
        ref("Trust"),
        takes="RevocationRequest",
        problems=(409, 503),
    ),
    ("POST", "/v1/trust/publishers"): Operation(
        "Trust a publisher's key, for these names; 409 when all places are taken",
        ref("Trust"),
        takes="PublisherRequest",
        problems=(409, 503),
    ),
    ("POST", "/v1/trust/threshold"): Operation(
        "How many publishers have to sign each image and name; 409 for more than there are",
        ref("Trust"),
        takes="ThresholdRequest",
        problems=(409, 503),
    ),
    ("POST", "/v1/signatures"): Operation(
        "Sign what another publisher has signed: an image's statement, and its name",
        ref("Signing"),
        takes="SigningRequest",
        problems=(409, 503),
    ),
    ("POST", "/v1/trust/schedulers"): Operation(
        "Take a scheduler's bearer token, and bound its orders",
        ref("Trust"),
        takes="SchedulerRequest",
        problems=(409, 503),
    ),
    ("POST", "/v1/trust/rotations"): Operation(
        "Bring in a new CA or publisher's key; finish: retire those before it, 409 while hosts need the old CA",
        ref("Trust"),
        takes="RotationRequest",
        problems=(409, 503),
    ),
    ("GET", "/v1/config"): Operation("Every setting, its value and where that comes from", ref("Configuration")),
    ("GET", "/v1/doctor"): Operation(
        "What is wrong with host, store, time, network and trust, and what to do", _listed("findings", "Finding")
    ),
    ("POST", "/v1/reload"): Operation(
        "Read the settings again; 409 if they are wrong, and nothing changes", ref("Reloaded"), problems=(409,)
    ),
    ("GET", "/livez"): Operation("Whether the daemon lives", media=PLAIN),
    ("GET", "/readyz"): Operation(
        "Whether this host can do what it is there for; verbose: check by check",
        media=PLAIN,
        query={"verbose": TEXT},
        told_plainly=(503,),
    ),
    ("GET", "/metrics"): Operation("Numbers in Prometheus' text format", media=PLAIN),
    ("GET", PATH): Operation("This document", {"type": "object"}),
}


async def serve(request: web.Request) -> web.Response:
    return web.Response(body=_encoded(), content_type=JSON)


def document() -> dict[str, Any]:
    """All that is spoken on the unix socket."""
    return document_of(
        OPERATIONS,
        "Spoken over the daemon's unix socket. Whoever can connect may read; root, the daemon's own user and members "
        "of `socket_group` may change things.",
    )


def document_of(operations: Mapping[tuple[str, str], Operation], description: str) -> dict[str, Any]:
    """These operations as an OpenAPI 3.1 document, with the records that they speak of."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "enticed",
            "version": enticed.__version__,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _records(paths)},
    }


def _records(described: object) -> dict[str, Schema]:
    """The records that something refers to, and those that they refer to."""
    found: dict[str, Schema] = {}
    new = {name: RECORDS[name] for name in _REFERENCE.findall(json.dumps(described))}
    while new:
        found |= new
        named = _REFERENCE.findall(json.dumps(list(new.values())))
        new = {name: RECORDS[name] for name in named if name not in found}
    return found


@cache
def _encoded() -> bytes:
    return json.dumps(document()).encode()


def _operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    schema = TEXT if operation.gives is None else operation.gives
    refused = {*REFUSED, *(() if method == "GET" else CHANGING), *operation.problems, *operation.told_plainly}
    return {
        "operationId": _identifier(method, path),
        "summary": operation.summary,
        "parameters": _parameters(path, operation),
        **_body(operation.takes),
        "responses": {
            "200": {"description": "done", "content": {operation.media: {"schema": schema}}},
            **{str(status): {"description": HTTPStatus(status).phrase} for status in operation.also},
            **{str(status): _problem(status, status in operation.told_plainly) for status in sorted(refused)},
        },
    }


def _body(record: str | None) -> dict[str, Any]:
    """None may stay away where every field may."""
    if record is None:
        return {}
    return {"requestBody": {"required": bool(RECORDS[record]["required"]), "content": {JSON: {"schema": ref(record)}}}}


def _problem(status: int, plainly: bool) -> dict[str, Any]:
    content = {CONTENT_TYPE: {"schema": ref("Problem")}} | ({PLAIN: {"schema": TEXT}} if plainly else {})
    return {"description": HTTPStatus(status).phrase, "content": content}


def _parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    named = [
        *(("path", name, PATH_PARAMETERS[name]) for name in re.findall(r"{(\w+)}", path)),
        *(("query", name, schema) for name, schema in operation.query.items()),
        *(("header", name, schema) for name, schema in operation.headers.items()),
    ]
    return [
        {"in": place, "name": name, "required": place == "path" or name in operation.needed, "schema": schema}
        for place, name, schema in named
    ]


def _identifier(method: str, path: str) -> str:
    words = re.findall(r"\w+", path.removeprefix("/v1"))
    return "_".join([method.lower(), *words])
