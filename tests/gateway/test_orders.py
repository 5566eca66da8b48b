"""Ordering over HTTPS: who may, what they get, and what becomes of those who may not."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
import uvloop

from enticed.gateway.server import ApiServer
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, found_cluster
from enticed.limits import API_BODY_MAX_SIZE_BYTES, CONTROL_STREAMS_PER_READER_MAX_COUNT
from protocol.credentials import Role, read_certificate
from protocol.errors import DeniedError, LocalError, MalformedError
from tests.clusters import enrol
from tests.control.engine import Goods, MemoryEngine
from tests.gateway.clients import Client, node, scheduler, serving, tls
from tests.programs import need

Work = Callable[[dict[str, Client]], Awaitable[None]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HostIdentity, Authority, HostIdentity]:
    directory = tmp_path_factory.mktemp("cluster")
    founder = found_cluster(directory / "founder", "", "", time.time(), serves_at=ip_address("127.0.0.1"))
    authority = Authority.load(directory / "founder")
    return directory, founder, authority, enrol(authority, directory / "member")


def serve(cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path, work: Work) -> None:
    _, founder, authority, member = cluster

    async def run() -> None:
        clients = {
            "nova": scheduler(authority, tmp_path, "nova"),
            "heat": scheduler(authority, tmp_path, "heat"),
            "member": node(member),
            "stranger": None,
        }
        async with serving(founder, tmp_path, **clients) as made:
            await work(made)

    asyncio.run(run())


def test_a_scheduler_orders(cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path) -> None:
    async def work(clients: dict[str, Client]) -> None:
        nova = clients["nova"]
        nova.engine.shelf["web:1"] = Goods(b"x" * 4096)
        terms = {"image": "web:1", "deadline_s": 60, "keep_s": 3600}
        status, order = await nova.ask("PUT", "/v1/orders/vm-7", terms)
        assert (status, order["owner"], order["priority"]) == (200, "scheduler nova", "prewarm")
        await nova.engine.ended("vm-7")
        _, order = await nova.ask("GET", "/v1/orders/vm-7")
        assert order["state"] == "ready"
        assert (await nova.ask("PUT", "/v1/orders/vm-7", terms))[0] == 200
        _, listed = await nova.ask("GET", "/v1/orders?state=ready")
        assert [one["key"] for one in listed["orders"]] == ["vm-7"]
        _, images = await nova.ask("GET", "/v1/images")
        assert [one["leased"] for one in images["images"]] == [True]
        assert (await nova.ask("DELETE", "/v1/orders/vm-7"))[0] == 200
        assert (await nova.ask("GET", "/v1/orders/vm-7"))[1]["state"] == "cancelled"

    serve(cluster, tmp_path, work)


def test_who_may_not_order(cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path) -> None:
    """What a scheduler may is not what people on the host may; a member is no scheduler, and a stranger nobody."""

    async def work(clients: dict[str, Client]) -> None:
        calls = [
            ("PUT", "/v1/orders/a"), ("GET", "/v1/orders/a"), ("DELETE", "/v1/orders/a"), ("GET", "/v1/orders"),
            ("GET", "/v1/images"), ("GET", "/v1/events"),
        ]  # fmt: skip
        for method, path in calls:
            for name, says in (("member", "that of a node"), ("stranger", "show a scheduler's certificate")):
                status, problem = await clients[name].ask(method, path)
                assert (status, problem["kind"]) == (403, "denied")
                assert says in problem["detail"]
        for method, path in [
            ("POST", "/v1/images"), ("DELETE", "/v1/images/web:1"), ("POST", "/v1/tokens"), ("POST", "/v1/grants"),
            ("GET", "/v1/status"), ("GET", "/v1/peers"), ("POST", "/v1/join"), ("GET", "/v1/ca"),
        ]:  # fmt: skip
            assert (await clients["nova"].ask(method, path))[0] in (404, 405), path

    serve(cluster, tmp_path, work)


def test_schedulers_do_not_meddle_with_each_other(
    cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path
) -> None:
    async def work(clients: dict[str, Client]) -> None:
        nova, heat = clients["nova"], clients["heat"]
        nova.engine.shelf["web:1"] = Goods(b"x" * 4096, held_back=True)
        await nova.ask("PUT", "/v1/orders/a", {"image": "web:1"})
        status, problem = await heat.ask("PUT", "/v1/orders/a", {"image": "web:1"})
        assert (status, problem["kind"]) == (409, "failed")
        assert "scheduler nova" in problem["detail"]
        assert (await heat.ask("DELETE", "/v1/orders/a"))[0] == 403
        status, problem = await nova.ask("PUT", "/v1/orders/a", {"image": "web:2"})
        assert (status, problem["kind"]) == (409, "failed")
        assert "in use for web:1" in problem["detail"]
        await nova.engine.cancel_order("a")  # a user of the host may

    serve(cluster, tmp_path, work)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"image": "web:1", "deadline_s": 0}, "in the past"),
        ({"image": "web:1", "deadline_s": -5}, "in the past"),
        ({"image": "No Name"}, "neither a name nor an image id"),
        ({}, "image is missing"),
        ({"image": "web:1", "hurry": True}, "no field is called 'hurry'"),
    ],
)
def test_bad_input(
    cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path, body: object, says: str
) -> None:
    async def work(clients: dict[str, Client]) -> None:
        status, problem = await clients["nova"].ask("PUT", "/v1/orders/a", body)
        assert (status, problem["kind"]) == (400, "usage")
        assert says in problem["detail"]
        assert (await clients["nova"].ask("GET", "/v1/orders"))[1] == {"orders": []}

    serve(cluster, tmp_path, work)


def test_too_large_a_body(cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path) -> None:
    async def work(clients: dict[str, Client]) -> None:
        status, _ = await clients["nova"].ask("PUT", "/v1/orders/a", {"image": "x" * API_BODY_MAX_SIZE_BYTES})
        assert status == 413

    serve(cluster, tmp_path, work)


def test_schedulers_hear_nothing_of_each_other(
    cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path
) -> None:
    async def work(clients: dict[str, Client]) -> None:
        nova, heat = clients["nova"], clients["heat"]
        for client, key in ((nova, "of-nova"), (heat, "of-heat")):
            assert (await client.ask("PUT", f"/v1/orders/{key}", {"image": "nothing"}))[0] == 200
            assert (await client.ask("PUT", f"/v1/campaigns/{key}", {"image": "web:1", "hosts": ["h1"]}))[0] == 200
            await client.engine.ended(key)
        for path in ("orders", "campaigns"):
            _, listed = await heat.ask("GET", f"/v1/{path}")
            assert [one["key"] for one in listed[path]] == ["of-heat"]
            assert (await heat.ask("GET", f"/v1/{path}/of-heat"))[0] == 200
            assert (await heat.ask("GET", f"/v1/{path}/of-nova"))[0] == 404
        assert (await heat.ask("GET", "/v1/campaigns/of-nova?after=0&wait_s=1"))[0] == 404
        assert (await heat.ask("GET", "/v1/why?what=of-nova"))[0] == 404
        _, said = await heat.ask("GET", "/v1/why?what=nothing")
        assert [one["key"] for one in said["orders"]] == ["of-heat"]
        async with heat.session.get(f"{heat.base}/v1/events", headers={"Last-Event-ID": "0"}) as stream:
            heard = await stream.content.readuntil(b"of-heat")
            assert b"of-nova" not in heard

    serve(cluster, tmp_path, work)


def test_events_of_a_scheduler(cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path) -> None:
    async def work(clients: dict[str, Client]) -> None:
        nova = clients["nova"]
        await nova.ask("PUT", "/v1/orders/a", {"image": "nothing"})
        await nova.engine.ended("a")
        async with nova.session.get(f"{nova.base}/v1/events", headers={"Last-Event-ID": "0"}) as stream:
            assert stream.content_type == "text/event-stream"
            await stream.content.readuntil(b"id: 1\n")
            more = range(CONTROL_STREAMS_PER_READER_MAX_COUNT - 1)
            others = [await nova.session.get(f"{nova.base}/v1/events") for _ in more]
            status, problem = await nova.ask("GET", "/v1/events")
            assert (status, problem["kind"]) == (503, "temporary")
            heard = await clients["heat"].session.get(f"{nova.base}/v1/events")
            assert heard.status == 200  # others are not counted with it
            for one in [*others, heard]:
                one.close()

    serve(cluster, tmp_path, work)


def test_a_certificate_that_expires_while_its_connection_lasts(
    cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path
) -> None:
    _, founder, authority, _ = cluster
    clock = [time.time()]
    shown = scheduler(authority, tmp_path, "brief", lifetime_s=600)

    async def run() -> None:
        (tmp_path / "store").mkdir()
        engine = MemoryEngine(tmp_path / "store")
        async with (
            ApiServer(founder, "127.0.0.1", 0, engine=engine, clock=lambda: clock[0]) as server,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls(founder, shown), limit=1)) as session,
        ):
            client = Client(session, f"https://127.0.0.1:{server.port}", engine)
            assert (await client.ask("GET", "/v1/orders"))[0] == 200
            clock[0] += 601
            status, problem = await client.ask("GET", "/v1/orders")
            assert (status, problem["kind"]) == (403, "denied")
            assert "expired" in problem["detail"]
        await engine.close()

    asyncio.run(run())


def test_the_same_under_uvloop_and_with_curl(
    cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path
) -> None:
    need("curl")
    _, founder, authority, _ = cluster
    shown = scheduler(authority, tmp_path, "nova")
    (tmp_path / "ca.crt").write_text(ssl.DER_cert_to_PEM_cert(founder.authority_der))

    async def run() -> None:
        async with serving(founder, tmp_path, nova=shown) as made:
            base = made["nova"].base
            certificates = ["--cacert", tmp_path / "ca.crt", "--cert", shown.certificate, "--key", shown.key]

            async def curl(*arguments: str) -> str:
                command = ["curl", "-sS", "--fail-with-body", *map(str, certificates), *arguments]
                run = partial(subprocess.run, command, capture_output=True, text=True, check=False)
                done = await asyncio.to_thread(run)
                assert done.returncode == 0, done.stderr + done.stdout
                return done.stdout

            await curl("-X", "PUT", f"{base}/v1/orders/a", "-d", '{"image": "web:1"}')
            by_id = f"https://{founder.node}:{base.rpartition(':')[2]}"
            answer = await curl("--connect-to", f"::127.0.0.1:{base.rpartition(':')[2]}", f"{by_id}/v1/orders")
            assert '"scheduler nova"' in answer

    uvloop.run(run())


def test_granting(cluster: tuple[Path, HostIdentity, Authority, HostIdentity], tmp_path: Path) -> None:
    _, founder, authority, _ = cluster
    shown = scheduler(authority, tmp_path, "nova")
    credential = read_certificate(ssl.PEM_cert_to_DER_cert(shown.certificate.read_text()))
    assert (credential.role, credential.name, credential.may_dispatch) == (Role.SCHEDULER, "nova", False)
    for name, lifetime_s, error in (("", 3600, MalformedError), ("a b", 3600, MalformedError), ("a", 1, LocalError)):
        with pytest.raises(error):
            scheduler(authority, tmp_path, name, lifetime_s)
    from protocol.enrolment import request_certificate
    from tests.wire.cas import signing_key

    forged = bytearray(request_certificate(signing_key("x"), founder.credential.sealing_key))
    forged[-1] ^= 1
    with pytest.raises(DeniedError):
        authority.grant_scheduler("a", bytes(forged), 3600)
