"""Every route of every server, called bare and as every role: it answers whom docs/security.md says, nobody else."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from enticed.control.loopback import LoopbackServer
from enticed.gateway.server import ApiServer
from enticed.http_server import TcpServer
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, found_cluster
from enticed.operating.watching import WatchingServer
from protocol.credentials import Role
from tests.attacks import certificates, page, strangers
from tests.control.engine import MemoryEngine
from tests.control.operations import MemoryOperations
from tests.control.running import Running, running
from tests.gateway.clients import Shown, tls
from tests.programs import need_root

DENIED = 403
PATIENCE_S = 60.0


@dataclass
class Servers:
    """Every HTTP server that a daemon has, with an engine in memory behind them. base: by the setting."""

    state: Path
    founder: HostIdentity
    control: Running
    tcp: dict[str, TcpServer]
    session: aiohttp.ClientSession
    base: dict[str, str]

    def routers(self) -> dict[str, web.UrlDispatcher]:
        found = {on: server._runner.app.router for on, server in self.tcp.items()}
        return found | {"socket": self.control.server.router}

    async def status(self, route: page.Route, client: aiohttp.ClientSession, **more: object) -> int:
        """Of one bare request; its body is not waited for, since some have no end."""
        url = self.base[route.on] + re.sub(r"{\w+}", "a", route.path)
        async with client.request(route.method, url, **more) as answer:  # type: ignore[arg-type]
            return answer.status

    def client(self, shown: Shown | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls(self.founder, shown), limit=0))


@asynccontextmanager
async def servers(directory: Path) -> AsyncIterator[Servers]:
    founder = found_cluster(directory / "founder", "", "", time.time(), serves_at=ip_address("127.0.0.1"))
    store = directory / "api-store"
    store.mkdir()
    engine, operations = MemoryEngine(store), MemoryOperations(directory)
    authority = Authority.load(directory / "founder")
    tcp: dict[str, TcpServer] = {
        "api_listen": ApiServer(founder, "127.0.0.1", 0, authority, ("127.0.0.1:7400",), engine),
        "metrics_listen": WatchingServer(operations, "127.0.0.1", 0),
        "content_listen": LoopbackServer(engine, "127.0.0.1", 0),
    }
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(running(directory))
        stack.push_async_callback(engine.close)
        for server in tcp.values():
            await stack.enter_async_context(server)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        base = {on: f"http{'s' if on == 'api_listen' else ''}://127.0.0.1:{one.port}" for on, one in tcp.items()}
        yield Servers(directory / "founder", founder, control, tcp, session, base | {"socket": "http://localhost"})


def play(directory: Path, scenario: Callable[[Servers], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), servers(directory) as made:
            await scenario(made)

    asyncio.run(main())


def test_every_route_stands_on_the_page(tmp_path: Path) -> None:
    async def scenario(made: Servers) -> None:
        there = {
            (on, route.method, route.resource.canonical)
            for on, router in made.routers().items()
            for route in router.routes()
            if route.resource is not None and route.method != "HEAD"  # which comes with GET
        }
        written = [(route.on, route.method, route.path) for route in page.routes()]
        assert sorted(there - set(written)) == [], "routes that docs/security.md does not have: say who may use them"
        assert sorted(set(written) - there) == [], "docs/security.md has routes that are not there"
        assert len(written) == len(set(written))

    play(tmp_path, scenario)


@pytest.mark.needs_root
def test_every_route_is_for_whom_the_page_says(tmp_path: Path) -> None:
    need_root()

    async def scenario(made: Servers) -> None:
        routes = page.routes()
        await hold_socket(made, [route for route in routes if route.on == "socket"])
        await hold_api(made, [route for route in routes if route.on == "api_listen"], tmp_path)
        for route in routes:
            if route.on in ("metrics_listen", "content_listen"):
                assert route.who == "anyone"
                assert await made.status(route, made.session) != DENIED, route

    play(tmp_path, scenario)


async def hold_socket(made: Servers, routes: list[page.Route]) -> None:
    """As another user of the host, and as the daemon's own."""
    assert {route.who for route in routes} == {"reader", "operator"}
    asked = [(route.method, re.sub(r"{\w+}", "a", route.path)) for route in routes]
    for route, status in zip(routes, await strangers.statuses(made.control.path, asked), strict=True):
        assert (status == DENIED) == (route.who == "operator"), (route, status)
    for route in routes:
        assert await made.status(route, made.control.session) != DENIED, route


async def hold_api(made: Servers, routes: list[page.Route], directory: Path) -> None:
    """Without a certificate, and with that of each role."""
    assert {route.who for route in routes} == {"anyone", "scheduler"}
    shown: dict[str, Shown | None] = {"nobody": None}
    for role in Role:
        shown[role.name.lower()] = certificates.of_role(made.state, made.founder.authority_der, role, directory)
    for name, certificate in shown.items():
        async with made.client(certificate) as client:
            for route in routes:
                status = await made.status(route, client)
                # Joining is open to anybody, and denied to who has no token; nothing is said without a body.
                assert (status == DENIED) == (route.who not in ("anyone", name)), (name, route, status)


def test_certificates_that_are_not_good_open_no_route(tmp_path: Path) -> None:
    """Expired, and of another cluster, even a founder's: there is no connection at all, and so no route."""

    async def scenario(made: Servers) -> None:
        old = certificates.of_role(made.state, made.founder.authority_der, Role.SCHEDULER, tmp_path, expired=True)
        foreign = found_cluster(tmp_path / "foreign", "", "", time.time())
        alien = Shown(foreign.directory / "node.crt", foreign.directory / "node.key")
        for shown in (old, alien):
            async with made.client(shown) as client:
                for route in page.routes():
                    if route.on == "api_listen":
                        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                            await made.status(route, client)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://pages.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_web_page_is_a_client(tmp_path: Path, headers: dict[str, str]) -> None:
    """With the certificate that its user has chosen, with the daemon's own rights: a page gets nothing."""

    async def scenario(made: Servers) -> None:
        shown = certificates.of_role(made.state, made.founder.authority_der, Role.SCHEDULER, tmp_path)
        async with made.client(shown) as scheduler:
            clients = {"api_listen": scheduler, "socket": made.control.session}
            for route in page.routes():
                client = clients.get(route.on, made.session)
                assert await made.status(route, client, headers=headers) == DENIED, route
            for route in page.routes():  # asked for from another page: no leave is given
                url = made.base[route.on] + re.sub(r"{\w+}", "a", route.path)
                preflight = headers | {"Access-Control-Request-Method": route.method}
                async with clients.get(route.on, made.session).options(url, headers=preflight) as answer:
                    assert answer.status >= 400
                    assert not [name for name in answer.headers if name.lower().startswith("access-control")]

    play(tmp_path, scenario)


@pytest.mark.parametrize("host", ["pages.example", "127.0.0.1.pages.example:80", "[fe80::1]", "a b", "", "x" * 5000])
def test_an_odd_host_leads_nowhere_else(tmp_path: Path, host: str) -> None:
    """A name of theirs that leads to loopback: no image is read that way, and no server is confused by it."""

    async def scenario(made: Servers) -> None:
        content = next(route for route in page.routes() if route.on == "content_listen")
        assert await made.status(content, made.session, headers={"Host": host}) in (400, DENIED)
        for route in page.routes():
            if route.on == "socket" and route.path == "/v1/status":
                assert await made.status(route, made.control.session, headers={"Host": host}) in (200, 400)

    play(tmp_path, scenario)
