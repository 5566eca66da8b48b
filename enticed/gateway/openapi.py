"""What schedulers may call, as an OpenAPI document, served as `/v1/openapi.json` over HTTPS: of the control API's rows,
those whose routes are served there, with what else they can meet there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from aiohttp import web

from enticed.control.openapi import JSON, OPERATIONS, PATH, Operation, document_of

_NO_SCHEDULER, _QUOTA = 403, 429
_WITHIN_QUOTA = {("PUT", "/v1/orders/{key}"), ("PUT", "/v1/campaigns/{campaign}")}
_SECURITY = {
    "certificate": {"type": "mutualTLS", "description": "a certificate of `entice grant scheduler NAME`"},
    "token": {"type": "http", "scheme": "bearer", "description": "a token of `entice grant scheduler NAME --token`"},
}


def route(others: Iterable[web.RouteDef]) -> web.RouteDef:
    """That of the document, which has itself and these others."""

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=encoded, content_type=JSON)

    own = web.get(PATH, serve)
    encoded = json.dumps(document((one.method, one.path) for one in (*others, own))).encode()
    return own


def document(routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """routes: by method and path."""
    described = document_of(
        {one: _row(one) for one in routes},
        "Spoken over HTTPS on `api_listen` with schedulers, each of which shows its certificate or its bearer token.",
    )
    described["components"]["securitySchemes"] = _SECURITY
    return described | {"security": [{scheme: []} for scheme in _SECURITY]}


def _row(one: tuple[str, str]) -> Operation:
    row, more = OPERATIONS[one], (_NO_SCHEDULER, *((_QUOTA,) if one in _WITHIN_QUOTA else ()))
    return replace(row, problems=(*row.problems, *more))
