"""Clients of the HTTPS API with one certificate or another, and an engine in memory behind it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from enticed.gateway.server import ApiServer
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, HostKeys
from enticed.identity.pem import certificate_pem, key_pem
from enticed.problems import CONTENT_TYPE
from protocol.enrolment import request_certificate
from tests.control.engine import MemoryEngine


@dataclass(frozen=True)
class Shown:
    """A certificate to show, and its key, in files."""

    certificate: Path
    key: Path


def scheduler(authority: Authority, directory: Path, name: str, lifetime_s: int = 3600) -> Shown:
    keys = HostKeys.generate()
    certificate = authority.grant_scheduler(name, request_certificate(keys.node, keys.sealing_key), lifetime_s)
    shown = Shown(directory / f"{name}.crt", directory / f"{name}.key")
    shown.certificate.write_bytes(certificate_pem(certificate))
    shown.key.write_bytes(key_pem(keys.node))
    return shown


def node(member: HostIdentity) -> Shown:
    return Shown(member.directory / "node.crt", member.directory / "node.key")


def tls(founder: HostIdentity, shown: Shown | None) -> ssl.SSLContext:
    """As any HTTP client makes it: the CA is trusted, and the server's name is checked."""
    context = ssl.create_default_context(cadata=founder.authority_der)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


@dataclass
class Client:
    session: aiohttp.ClientSession
    base: str
    engine: MemoryEngine

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and JSON; whatever is refused is told in a problem document."""
        async with self.session.request(method, self.base + path, json=body, **more) as response:
            if response.status < 400:
                return response.status, await response.json()
            problem = await response.json(content_type=CONTENT_TYPE)
            assert problem["status"] == response.status
            assert "\n" not in problem["detail"]
            return response.status, problem


@asynccontextmanager
async def serving(founder: HostIdentity, directory: Path, **clients: Shown | None) -> AsyncIterator[dict[str, Client]]:
    """A server on 127.0.0.1, and a client for each of `clients`, which share an engine."""
    store = directory / "store"
    store.mkdir(exist_ok=True)
    engine = MemoryEngine(store)
    async with ApiServer(founder, "127.0.0.1", 0, engine=engine) as server:
        made: dict[str, Client] = {}
        try:
            for name, shown in clients.items():
                session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls(founder, shown)))
                made[name] = Client(session, f"https://127.0.0.1:{server.port}", engine)
            yield made
        finally:
            for client in made.values():
                await client.session.close()
            await engine.close()
