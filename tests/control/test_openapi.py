"""The API's document and its router say the same; the document is one that others can read."""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web

from enticed.control import openapi
from enticed.control.openapi import OPERATIONS, PATH_PARAMETERS, document
from enticed.control.schemas import RECORDS
from tests.control.running import Running, serve

WHAT_TO_DO = (
    "Every route has its row in OPERATIONS (enticed/control/openapi.py), its records in enticed/control/schemas.py, "
    "and a name for each {part} of its path in PATH_PARAMETERS; see 'Where to add what' in docs/architecture.md."
)


def routed(router: web.UrlDispatcher) -> set[tuple[str, str]]:
    """Method and path of every route; HEAD comes with GET."""
    found = {(route.method, route.resource.canonical) for route in router.routes() if route.resource is not None}
    return {(method, path) for method, path in found if method != "HEAD"}


def test_router_and_document_have_the_same_routes(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        routes = routed(control.server.router)
        assert sorted(routes - set(OPERATIONS)) == [], f"routes that are not in the document. {WHAT_TO_DO}"
        assert sorted(set(OPERATIONS) - routes) == [], f"in the document, and no routes. {WHAT_TO_DO}"
        parts = {part for _, path in routes for part in re.findall(r"{(\w+)}", path)}
        assert parts == set(PATH_PARAMETERS), WHAT_TO_DO
        assert await control.ask("GET", openapi.PATH) == (200, document())

    serve(tmp_path, test)


def test_every_record_is_used_and_every_reference_leads_somewhere() -> None:
    used = set(re.findall(r"'#/components/schemas/(\w+)'", repr(document())))
    assert used == set(RECORDS)


def test_operations_have_names_of_their_own() -> None:
    names = [one["operationId"] for methods in document()["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)
