"""The HTTPS API as strangers see it: TLS 1.3, bounded, one clear error each, and slower for who keeps failing."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from enticed.gateway import server
from enticed.gateway.server import ApiServer
from enticed.gateway.throttle import FailureThrottle
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, HostKeys
from enticed.limits import (
    API_BODY_MAX_SIZE_BYTES,
    JOIN_FAILURES_MAX_COUNT,
    JOIN_FAILURES_WINDOW_S,
    JOIN_SOURCES_MAX_COUNT,
)
from enticed.problems import CONTENT_TYPE
from protocol.codec import pack_record, unpack_record
from protocol.credentials import read_certificate, verify_certificate
from protocol.enrolment import JoinAnswer, JoinRequest, request_certificate
from protocol.errors import LocalError
from protocol.limits import ADDRESSES_MAX_COUNT
from protocol.token import parse_token
from protocol.trust import open_trust
from tests.clusters import make_cluster, state_dir

BOOTSTRAP = tuple(f"10.0.0.{n}:7440" for n in range(1, 9))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[HostIdentity]]:
    directory = tmp_path_factory.mktemp("cluster")
    return directory, make_cluster(directory, 2)


@pytest.fixture
def authority(cluster: tuple[Path, list[HostIdentity]]) -> Authority:
    return Authority.load(state_dir(cluster[0], 0))


@pytest.fixture
def founder(cluster: tuple[Path, list[HostIdentity]]) -> HostIdentity:
    return cluster[1][0]


def stranger_tls(founder: HostIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=founder.authority_der)
    return context


def visit(
    founder: HostIdentity,
    authority: Authority | None,
    work: Callable[[aiohttp.ClientSession, str], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Run the server, and `work` as a client of it."""

    async def run() -> None:
        connector = aiohttp.TCPConnector(ssl=tls or stranger_tls(founder))
        async with (
            ApiServer(founder, "127.0.0.1", 0, authority, BOOTSTRAP) as running,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            await work(session, f"https://127.0.0.1:{running.port}")

    asyncio.run(run())


def join_body(authority: Authority, secret: bytes | None = None) -> bytes:
    token, keys = parse_token(authority.issue_token("127.0.0.1:1")), HostKeys.generate()
    request = request_certificate(keys.node, keys.sealing_key)
    return pack_record(JoinRequest(token.token, secret or token.secret, request, "z", "r"))


async def error_of(response: aiohttp.ClientResponse) -> str:
    """The one clear line of the problem document that every refusal is."""
    assert response.content_type == CONTENT_TYPE
    problem = json.loads(await response.read())
    assert set(problem) == {"type", "title", "status", "detail", "kind"}
    assert problem["status"] == response.status
    text = problem["detail"]
    assert isinstance(text, str)
    assert text
    assert "\n" not in text
    return text


def test_what_joining_needs(founder: HostIdentity, authority: Authority) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/v1/ca") as response:
            assert await response.read() == founder.authority_der
        async with session.get(f"{base}/v1/trust") as response:
            assert open_trust(await response.read(), (founder.authority_der,)) == founder.trust
        async with session.post(f"{base}/v1/join", data=join_body(authority)) as response:
            answer = unpack_record(JoinAnswer, await response.read())
        assert answer.bootstrap == BOOTSTRAP[:ADDRESSES_MAX_COUNT]
        assert verify_certificate(answer.certificate, (founder.authority_der,), time.time()).zone == "z"

    visit(founder, authority, work)


def test_who_joins_and_who_is_refused_is_logged(
    founder: HostIdentity, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", server.__name__)
    body = join_body(authority)
    token = unpack_record(JoinRequest, body).token.hex()

    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async with session.post(f"{base}/v1/join", data=body) as response:
            node = read_certificate(unpack_record(JoinAnswer, await response.read()).certificate).node
        assert logged() == [("INFO", f"host {node} joined from 127.0.0.1, z/r, token {token}")]
        for status in (403, 403, 403):
            async with session.post(f"{base}/v1/join", data=body) as response:
                assert response.status == status

    def logged() -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == server.__name__]

    visit(founder, authority, work)
    _, *refused = logged()
    used = "refused to enrol 127.0.0.1: the join token has been used already: ask for another"
    assert refused == [("WARNING", used)], "once a minute, whoever comes how often"
    secret = unpack_record(JoinRequest, body).secret
    assert not any(text in caplog.text for text in (secret.hex(), str(secret)))


def test_nobody_joins_at_a_member(founder: HostIdentity) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        for method, path in (("GET", "/v1/ca"), ("GET", "/v1/trust"), ("POST", "/v1/join"), ("GET", "/")):
            async with session.request(method, base + path) as response:
                assert response.status == 404
                assert "Not Found" in await error_of(response)

    visit(founder, None, work)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/join", b"", 405),
        ("GET", "/../../etc/passwd", b"", 404),
        ("POST", "/v1/join", b"", 400),
        ("POST", "/v1/join", b"{}", 400),
        ("POST", "/v1/join", bytes(API_BODY_MAX_SIZE_BYTES + 1), 413),
    ],
)
def test_what_makes_no_sense(
    founder: HostIdentity, authority: Authority, method: str, path: str, body: bytes, status: int
) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async with session.request(method, base + path, data=body) as response:
            assert response.status == status
            await error_of(response)

    visit(founder, authority, work)


def test_what_is_no_http(founder: HostIdentity, authority: Authority) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", URL(base).port, ssl=stranger_tls(founder), server_hostname=""
        )
        writer.write(b"GET / FTP\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert b" 400 Bad Request\r\nContent-Type: application/problem+json\r\n" in answer

    visit(founder, authority, work)


def test_who_keeps_failing_has_to_wait(founder: HostIdentity, authority: Authority) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        for _ in range(JOIN_FAILURES_MAX_COUNT):
            async with session.post(f"{base}/v1/join", data=join_body(authority, bytes(24))) as response:
                assert response.status == 403
                assert await error_of(response) == "the join token is wrong"
        async with session.post(f"{base}/v1/join", data=join_body(authority)) as response:
            assert response.status == 429
            assert 0 < int(response.headers["Retry-After"]) <= JOIN_FAILURES_WINDOW_S
            assert "too many" in await error_of(response)

    visit(founder, authority, work)


def test_a_body_that_does_not_come(
    founder: HostIdentity, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "API_BODY_TIMEOUT_S", 0.05)

    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async with session.post(f"{base}/v1/join", data=never()) as response:
            assert response.status == 408
            assert "in time" in await error_of(response)

    visit(founder, authority, work)


def test_a_founder_that_cannot_write_gives_nothing_away(tmp_path: Path) -> None:
    (founder,) = make_cluster(tmp_path, 1)
    authority = Authority.load(state_dir(tmp_path, 0))
    body = join_body(authority)

    async def work(session: aiohttp.ClientSession, base: str) -> None:
        founder.directory.rename(tmp_path / "gone")
        async with session.post(f"{base}/v1/join", data=body) as response:
            assert response.status == 500
            assert "cannot write" in await error_of(response)
        (tmp_path / "gone").rename(founder.directory)
        async with session.post(f"{base}/v1/join", data=body) as response:
            assert response.status == 200

    visit(founder, authority, work)


def test_a_crowd_joins_at_once(founder: HostIdentity, authority: Authority) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async def join() -> bytes:
            async with session.post(f"{base}/v1/join", data=join_body(authority)) as response:
                assert response.status == 200
                return unpack_record(JoinAnswer, await response.read()).certificate

        assert len(set(await asyncio.gather(*(join() for _ in range(20))))) == 20

    visit(founder, authority, work)


def test_a_member_may_show_its_certificate(
    cluster: tuple[Path, list[HostIdentity]], founder: HostIdentity, authority: Authority
) -> None:
    tls, member = stranger_tls(founder), cluster[1][1]
    tls.load_cert_chain(member.directory / "node.crt", member.directory / "node.key")

    async def work(session: aiohttp.ClientSession, base: str) -> None:
        async with session.get(f"{base}/v1/ca") as response:
            assert response.status == 200

    visit(founder, authority, work, tls)


def test_a_foreign_certificate_is_worse_than_none(founder: HostIdentity, authority: Authority, tmp_path: Path) -> None:
    tls, foreign = stranger_tls(founder), make_cluster(tmp_path, 1)[0]
    tls.load_cert_chain(foreign.directory / "node.crt", foreign.directory / "node.key")

    async def work(session: aiohttp.ClientSession, base: str) -> None:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{base}/v1/ca")

    visit(founder, authority, work, tls)


def test_tls_1_2_is_refused(founder: HostIdentity, authority: Authority) -> None:
    tls = stranger_tls(founder)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2

    async def work(session: aiohttp.ClientSession, base: str) -> None:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{base}/v1/ca")

    visit(founder, authority, work, tls)


def test_an_address_that_is_taken(founder: HostIdentity) -> None:
    async def run() -> None:
        async with ApiServer(founder, "127.0.0.1", 0) as first:
            second = ApiServer(founder, "127.0.0.1", first.port)
            with pytest.raises(LocalError, match=r"api_listen.* in use"):
                await second.start()
            await second.close()

    asyncio.run(run())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=1)
@given(st.lists(st.binary(max_size=200), min_size=50, max_size=50))
def test_any_body_gets_an_answer(founder: HostIdentity, authority: Authority, bodies: list[bytes]) -> None:
    async def work(session: aiohttp.ClientSession, base: str) -> None:
        for body in bodies:
            async with session.post(f"{base}/v1/join", data=body) as response:
                assert response.status in (400, 429)
                await error_of(response)

    visit(founder, authority, work)


def failing(throttle: FailureThrottle, address: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        throttle.charge(address, now)


def test_the_wait_ends() -> None:
    throttle = FailureThrottle()
    failing(throttle, "10.0.0.1", JOIN_FAILURES_MAX_COUNT - 1)
    assert throttle.wait_s("10.0.0.1", 0) == 0
    throttle.charge("10.0.0.1", 5)
    assert throttle.wait_s("10.0.0.1", 10) == JOIN_FAILURES_WINDOW_S - 10
    assert throttle.wait_s("10.0.0.2", 10) == 0
    assert throttle.wait_s("10.0.0.1", JOIN_FAILURES_WINDOW_S) == 0
    throttle.charge("10.0.0.1", JOIN_FAILURES_WINDOW_S)
    assert throttle.wait_s("10.0.0.1", JOIN_FAILURES_WINDOW_S) == 0


def test_one_host_is_one_source_whatever_its_address() -> None:
    throttle = FailureThrottle()
    failing(throttle, "2001:db8::1", JOIN_FAILURES_MAX_COUNT)
    assert throttle.wait_s("2001:db8::ffff:2", 0) > 0
    assert throttle.wait_s("2001:db8:0:1::1", 0) == 0
    failing(throttle, "::ffff:10.0.0.1", JOIN_FAILURES_MAX_COUNT)
    assert throttle.wait_s("10.0.0.1", 0) > 0
    failing(throttle, "fe80::1%eth0", JOIN_FAILURES_MAX_COUNT)
    assert throttle.wait_s("fe80::2%eth0", 0) > 0


def test_only_so_many_sources_are_remembered() -> None:
    throttle = FailureThrottle()
    failing(throttle, "10.255.0.1", JOIN_FAILURES_MAX_COUNT)
    for n in range(JOIN_SOURCES_MAX_COUNT):
        throttle.charge(f"10.0.{n // 256}.{n % 256}", 1)
    assert throttle.wait_s("10.255.0.1", 1) == 0
