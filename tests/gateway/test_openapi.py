"""The document of the HTTPS API: what is served there and nothing else, for whoever may call it."""

from __future__ import annotations

import asyncio
import re
import time
from ipaddress import ip_address
from pathlib import Path

from enticed.control.openapi import PATH
from enticed.gateway.server import ApiServer
from enticed.identity.authority import Authority
from enticed.identity.host import found_cluster
from tests.control.test_openapi import routed
from tests.gateway.clients import scheduler, serving


def test_a_scheduler_reads_what_it_may_call(tmp_path: Path) -> None:
    founder = found_cluster(tmp_path / "founder", "", "", time.time(), serves_at=ip_address("127.0.0.1"))
    shown = scheduler(Authority.load(tmp_path / "founder"), tmp_path, "nova")

    async def work() -> None:
        async with serving(founder, tmp_path, nova=shown, stranger=None) as clients:
            status, document = await clients["nova"].ask("GET", PATH)
            assert status == 200
            operations = {
                (method.upper(), path): operation
                for path, methods in document["paths"].items()
                for method, operation in methods.items()
            }
            server = ApiServer(founder, "127.0.0.1", 0, engine=clients["nova"].engine)
            assert set(operations) == routed(server._runner.app.router)
            used = set(re.findall(r"'#/components/schemas/(\w+)'", repr(document)))
            assert used == set(document["components"]["schemas"])
            limited = {one for one, operation in operations.items() if "429" in operation["responses"]}
            assert limited == {("PUT", "/v1/orders/{key}"), ("PUT", "/v1/campaigns/{campaign}")}
            assert all("403" in operation["responses"] for operation in operations.values())
            assert document["security"] == [{"certificate": []}, {"token": []}]
            assert (await clients["stranger"].ask("GET", PATH))[0] == 403

    asyncio.run(work())
