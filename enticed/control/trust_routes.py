"""Who may do what, over the unix socket: looked at, granted, taken back, rotated."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from aiohttp import web

from enticed.control.answers import json_of
from enticed.control.fields import Fields, parse_object, parse_target
from enticed.control.queries import parse_query
from enticed.engine.trust.port import CosigningOffice, HolderView, Signing, TrustOffice, TrustView
from enticed.identity.limits import QUOTA_MAX_BYTES
from enticed.limits import (
    CONTROL_BODY_TIMEOUT_S,
    ORDERS_MAX_COUNT,
    SCHEDULER_LIFETIME_S,
    SCHEDULER_MAX_LIFETIME_S,
    SCHEDULER_MIN_LIFETIME_S,
)
from enticed.problems import UsageError, read_body
from protocol.credentials import parse_label
from protocol.errors import MalformedError
from protocol.identifiers import ImageId, PublisherKey
from protocol.limits import NAME_MAX_CHARS, PUBLISHER_MAX_NAMES, STATEMENT_MAX_SIGNATURES


class TrustRoutes:
    def __init__(self, office: TrustOffice, cosigning: CosigningOffice) -> None:
        self._office = office
        self._cosigning = cosigning

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/trust", self.show),
            web.get("/v1/trust/hosts", self.hosts),
            web.post("/v1/trust/revocations", self.revoke),
            web.post("/v1/trust/publishers", self.grant_publisher),
            web.post("/v1/trust/threshold", self.set_threshold),
            web.post("/v1/trust/schedulers", self.grant_token),
            web.post("/v1/trust/rotations", self.rotate),
            web.post("/v1/signatures", self.sign),
        ]

    async def show(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        return web.json_response(trust_json(await self._office.view()))

    async def hosts(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        return web.json_response({"hosts": [json_of(one) for one in await self._office.hosts()]})

    async def revoke(self, request: web.Request) -> web.Response:
        who = (await _fields(request, "who")).text("who")
        if not 0 < len(who) <= NAME_MAX_CHARS:
            raise UsageError("who is the id or the name of a host, or the name of a scheduler or publisher")
        return web.json_response(trust_json(await self._office.revoke(who)))

    async def grant_publisher(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "name", "key", "names")
        names = fields.texts("names", PUBLISHER_MAX_NAMES, "names, or beginnings of names and '*'") or ()
        key = fields.hexadecimal("key", PublisherKey.size_bytes)
        if key is None:
            raise UsageError("key is missing: a publisher's public key")
        return web.json_response(
            trust_json(await self._office.grant_publisher(_name(fields), PublisherKey(key), names))
        )

    async def set_threshold(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "threshold")
        threshold = fields.count("threshold", STATEMENT_MAX_SIGNATURES, default=0)
        return web.json_response(trust_json(await self._office.set_threshold(threshold)))

    async def sign(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "image", "expect", "look")
        target, expected = parse_target(fields.text("image")), fields.hexadecimal("expect", ImageId.size_bytes)
        image = None if expected is None else ImageId(expected)
        return web.json_response(signing_json(await self._cosigning.sign(target, image, look=fields.flag("look"))))

    async def grant_token(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "name", "token_sha256", "orders", "bytes", "lifetime_s")
        token = fields.hexadecimal("token_sha256", hashlib.sha256().digest_size)
        orders = fields.count("orders", ORDERS_MAX_COUNT, default=0) or None
        bound = fields.count("bytes", QUOTA_MAX_BYTES, default=-1, least=0)
        max_bytes = None if bound < 0 else bound
        lifetime_s = fields.seconds("lifetime_s")
        lifetime_s = SCHEDULER_LIFETIME_S if lifetime_s is None else lifetime_s
        if not SCHEDULER_MIN_LIFETIME_S <= lifetime_s <= SCHEDULER_MAX_LIFETIME_S:
            raise UsageError(f"lifetime_s is {SCHEDULER_MIN_LIFETIME_S} to {SCHEDULER_MAX_LIFETIME_S} seconds")
        view = await self._office.grant_token(_name(fields), token, orders, max_bytes, lifetime_s)
        return web.json_response(trust_json(view))

    async def rotate(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "what", "finish", "force")
        what, finish, force = fields.text("what"), fields.flag("finish"), fields.flag("force")
        if what == "ca":
            view = await self._office.rotate_authority(finish=finish, force=force)
        elif what == "publisher":
            view = await self._office.rotate_publisher(finish=finish)
        else:
            raise UsageError("what is ca or publisher")
        return web.json_response(trust_json(view))


async def _fields(request: web.Request, *known: str) -> Fields:
    parse_query(request.query)
    return Fields(parse_object(await read_body(request, CONTROL_BODY_TIMEOUT_S)), *known)


def _name(fields: Fields) -> str:
    try:
        name = parse_label(fields.text("name"))
    except MalformedError as error:
        raise UsageError(f"name: {error}") from error
    if not name:
        raise UsageError("a scheduler or publisher has a name")
    return name


def trust_json(view: TrustView) -> dict[str, Any]:
    certified = view.certified
    return {
        "serial": view.serial,
        "issued_at": view.issued_at,
        "authorities": [
            {
                "sha256": one.hash,
                "certificate": base64.b64encode(one.certificate).decode(),
                "expires_at": one.expires_at,
            }
            for one in view.authorities
        ],
        "registrars": [str(node) for node in view.registrars],
        "publishers": [
            {
                "name": one.name,
                "key": one.key.hex(),
                "names": list(one.names),
                "is_this_host": one.key == view.own_publisher,
            }
            for one in view.publishers
        ],
        "own_publisher": None if view.own_publisher is None else view.own_publisher.hex(),
        "threshold": view.threshold,
        "schedulers": [
            {
                "name": one.name,
                "orders": one.orders,
                "bytes": one.max_bytes or None,
                "has_token": one.token_sha256 is not None,
                "expires_at": one.expires_at,
            }
            for one in view.schedulers
        ],
        "revoked": [{"node_id": str(one.node), "until": one.until} for one in view.revoked],
        "certified": None
        if certified is None
        else {
            "hosts": certified.hosts,
            "dispatchers": [_holder_json(one) for one in certified.dispatchers],
            "schedulers": [_holder_json(one) for one in certified.schedulers],
            "behind": certified.behind,
        },
    }


def signing_json(signing: Signing) -> dict[str, Any]:
    said = signing.statement
    return {
        "image_id": str(said.image),
        "virtual_size_bytes": said.virtual_size_bytes,
        "data_bytes": said.data_bytes,
        "source_format": said.source_format,
        "digests": [] if said.digests is None else list(said.digests.names),
        "issued_at": said.issued_at,
        "signed_by": list(signing.signed_by),
        "needed": signing.needed,
        "names": [{"name": one.name, "signed_by": list(one.signed_by)} for one in signing.names],
        "told": signing.told,
    }


def _holder_json(one: HolderView) -> dict[str, Any]:
    return {"node_id": str(one.node), "name": one.name, "expires_at": one.expires_at}
