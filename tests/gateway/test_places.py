"""Who has the places of the HTTPS API: strangers a part of them, and none for long; schedulers and members the rest."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from enticed.gateway import server
from enticed.gateway.server import ApiServer
from enticed.identity.authority import Authority
from enticed.identity.bundles import with_revoked, with_scheduler, without_scheduler
from enticed.identity.host import HostIdentity, found_cluster
from protocol.trust import Revocation, TrustedScheduler
from tests.clusters import enrol
from tests.control.engine import MemoryEngine
from tests.gateway.clients import node, scheduler, tls

PLACES, STRANGERS, OF_ONE = 8, 6, 4
LIFETIME_S, KEEPALIVE_S = 4.0, 2.0
TOKEN = "ENS1." + "a" * 43
PATIENCE_S = 60.0


class Connection:
    """One connection to the API, kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, path: str, more: str = "") -> tuple[str, bool]:
        """The status, empty from who hangs up, and whether the answer is the last one."""
        try:
            self.writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode(errors="surrogateescape"))
            await self.writer.drain()
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            if "\r\ncontent-length: " in head:
                await self.reader.readexactly(int(head.split("\r\ncontent-length: ")[1].split("\r\n")[0]))
        except (ConnectionError, asyncio.IncompleteReadError):
            return "", True
        return head.split(" ")[1], "\r\nconnection: close\r\n" in head


class Api:
    def __init__(self, founder: HostIdentity, authority: Authority, port: int) -> None:
        self.founder, self.authority, self._port = founder, authority, port
        self._open: list[Connection] = []

    async def connect(self, shown: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> Connection:
        context = shown or tls(self.founder, None)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", self._port))
        made = Connection(*await asyncio.open_connection(sock=connection, ssl=context, server_hostname="127.0.0.1"))
        self._open.append(made)
        return made

    async def ca(self, source: str = "127.0.0.1") -> str:
        """What a new stranger is told that asks for the CA's certificate."""
        with suppress(ConnectionError):
            return (await (await self.connect(source=source)).ask("/v1/ca"))[0]
        return ""

    def close(self) -> None:
        for one in self._open:
            one.writer.transport.abort()


Work = Callable[[Api], Awaitable[None]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    """Runs work against an API with few places, and short times."""
    terms = replace(server.TERMS, connections_max_count=PLACES, lifetime_s=LIFETIME_S, keepalive_s=KEEPALIVE_S)
    monkeypatch.setattr(server, "TERMS", terms)
    monkeypatch.setattr(server, "API_STRANGERS_MAX_COUNT", STRANGERS)
    monkeypatch.setattr(server, "API_STRANGERS_PER_SOURCE_MAX_COUNT", OF_ONE)
    founder = found_cluster(tmp_path / "founder", "", "", time.time(), serves_at=ip_address("127.0.0.1"))
    authority = Authority.load(tmp_path / "founder", identity=founder)
    (tmp_path / "store").mkdir()

    def run(work: Work) -> None:
        async def main() -> None:
            engine = MemoryEngine(tmp_path / "store")
            async with asyncio.timeout(PATIENCE_S), ApiServer(founder, "127.0.0.1", 0, authority, (), engine) as api:
                assert api._socket is not None
                api._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full
                made = Api(founder, authority, api.port)
                try:
                    await work(made)
                finally:
                    made.close()
                    await engine.close()

        asyncio.run(main())

    return run


def test_strangers_leave_places_to_members_and_schedulers(
    serve: Callable[[Work], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TERMS", replace(server.TERMS, lifetime_s=60.0, keepalive_s=60.0))

    async def work(api: Api) -> None:
        held = [await api.connect() for _ in range(OF_ONE)]
        assert [await one.ask("/v1/ca") for one in held] == [("200", False)] * OF_ONE
        assert await api.ca() == ""
        assert [await api.ca("127.0.0.2") for _ in range(STRANGERS - OF_ONE + 1)] == ["200", "200", ""]
        nova = tls(api.founder, scheduler(api.authority, tmp_path, "nova"))
        member = tls(api.founder, node(enrol(api.authority, tmp_path / "member")))
        assert await (await api.connect(nova)).ask("/v1/orders") == ("200", False)
        assert await (await api.connect(member)).ask("/v1/ca") == ("200", False)

    serve(work)


def test_no_stranger_holds_a_place_for_long_whatever_it_does(serve: Callable[[Work], None]) -> None:
    async def work(api: Api) -> None:
        deaf = await api.connect()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        busy = [await api.connect() for _ in range(OF_ONE - 1)]
        deaf.writer.write(f"GET /{'a' * 1000} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 16_000)  # more than all buffers

        async def until_its_last(one: Connection) -> str:
            status, is_last = "200", False
            while not is_last:
                status, is_last = await one.ask("/v1/ca")
            return status

        lasts = await asyncio.gather(*map(until_its_last, busy))
        assert set(lasts) == {"200"}  # nobody is cut off who takes its last answer as that
        with suppress(ConnectionError):
            await deaf.writer.wait_closed()
        assert [await api.ca() for _ in range(OF_ONE)] == ["200"] * OF_ONE

    serve(work)


def test_streams_of_schedulers_go_on_by_certificate_and_by_token(serve: Callable[[Work], None], tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        now, hashed = time.time(), hashlib.sha256(TOKEN.encode()).digest()
        heat = TrustedScheduler("heat", 5, hashed, int(now) + 600)
        api.founder.take_trust(api.authority.seal(partial(with_scheduler, scheduler=heat, now=now)))
        nova = tls(api.founder, scheduler(api.authority, tmp_path, "nova"))
        by_certificate, by_token = await api.connect(nova), await api.connect()
        assert (await by_certificate.ask("/v1/events"))[0] == "200"
        assert (await by_token.ask("/v1/events", f"Authorization: Bearer {TOKEN}\r\n"))[0] == "200"
        for _ in range(2):  # the time of a stranger that comes after them
            stranger = await api.connect()
            await stranger.ask("/v1/ca")
            assert await stranger.reader.read() == b""
        for stream in (by_certificate, by_token):
            assert stream.reader.exception() is None
            assert not stream.reader.at_eof()
        assert [await api.ca() for _ in range(OF_ONE + 1)] == ["200"] * OF_ONE + [""]  # they have no stranger's place

    serve(work)


def test_who_is_trusted_no_more_is_a_stranger_again(serve: Callable[[Work], None], tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        now, hashed = time.time(), hashlib.sha256(TOKEN.encode()).digest()
        heat = TrustedScheduler("heat", 5, hashed, int(now) + 600)
        api.founder.take_trust(api.authority.seal(partial(with_scheduler, scheduler=heat, now=now)))
        member = enrol(api.authority, tmp_path / "member")
        by_certificate, by_token = await api.connect(tls(api.founder, node(member))), await api.connect()
        assert await by_certificate.ask("/v1/ca") == ("200", False)
        assert await by_token.ask("/v1/orders", f"Authorization: Bearer {TOKEN}\r\n") == ("200", False)
        gone = Revocation(member.node, int(now) + 600)
        api.founder.take_trust(api.authority.seal(partial(without_scheduler, name="heat")))
        api.founder.take_trust(api.authority.seal(partial(with_revoked, revocations=(gone,), now=now)))
        for one in (by_certificate, by_token):
            while (await one.ask("/v1/ca"))[0]:
                pass  # until it is hung up on

    serve(work)


def test_a_token_of_any_bytes_is_a_wrong_one(serve: Callable[[Work], None], caplog: pytest.LogCaptureFixture) -> None:
    async def work(api: Api) -> None:
        stranger = await api.connect()
        for _ in range(3):
            assert (await stranger.ask("/v1/orders", "Authorization: Bearer \udcff\r\n"))[0] == "403"

    serve(work)
    assert not [record for record in caplog.records if record.exc_info]
