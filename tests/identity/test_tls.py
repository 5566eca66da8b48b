"""TLS between members, as blocking sockets, asyncio and uvloop do it; and everyone else is turned away."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.identity.certificates import serial_number
from enticed.identity.host import HostIdentity
from enticed.identity.pem import certificate_pem, key_pem, load_signing_key
from enticed.identity.tls import client_context, peer_credential, server_context
from enticed.limits import CERTIFICATE_LIFETIME_S
from protocol.credentials import NodeCredential, Role
from protocol.enrolment import node_credential, sign_authority, sign_certificate
from protocol.errors import DeniedError, LocalError
from protocol.identifiers import NodeKey, Nonce
from tests.clusters import make_cluster

ALPN = "enticed-test/1"
TIMEOUT_S = 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> list[HostIdentity]:
    return make_cluster(tmp_path_factory.mktemp("cluster"), 2, racks=["left", "right"])


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Both ends of a connection over which a byte has gone each way; raises what the server's end raises, if any."""
    left, right = socket.socketpair()
    left.settimeout(TIMEOUT_S)
    right.settimeout(TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(_exchange, left, lambda: server.wrap_socket(left, server_side=True), server_side=True)
        try:
            dialled = _exchange(right, lambda: client.wrap_socket(right), server_side=False)
        except OSError as error:
            reason = serving.exception() or error
            if serving.exception() is None:
                serving.result().close()
            raise reason from None
        try:
            return serving.result(), dialled
        except OSError:
            dialled.close()
            raise


def _exchange(plain: socket.socket, wrap: Callable[[], ssl.SSLSocket], *, server_side: bool) -> ssl.SSLSocket:
    tls: ssl.SSLSocket | None = None
    try:
        tls = wrap()
        if not server_side:
            tls.sendall(b"x")
        if tls.recv(1) != b"x":
            raise ConnectionResetError("closed")
        if server_side:
            tls.sendall(b"x")
    except OSError:
        (tls or plain).close()
        raise
    return tls


def forge(cluster: list[HostIdentity], directory: Path, **changes: Any) -> HostIdentity:
    """The second host with another certificate, signed by the real CA, in `directory`."""
    host, founder = cluster[1], cluster[0]
    ca = load_signing_key(founder.directory / "ca.key")
    return install(host, directory, replace(host.credential, **changes), ca, founder.authority_der)


def install(
    host: HostIdentity, directory: Path, credential: NodeCredential, ca: Ed25519PrivateKey, authority: bytes
) -> HostIdentity:
    certificate = sign_certificate(ca, authority, credential, serial_number())
    (directory / "node.crt").write_bytes(certificate_pem(certificate))
    (directory / "node.key").write_bytes(key_pem(host.node_private))
    return replace(host, directory=directory, credential=credential, certificate_der=certificate)


def test_members_know_each_other(cluster: list[HostIdentity]) -> None:
    left, right = cluster
    served, dialled = shake_hands(server_context(left, [ALPN]), client_context(right, [ALPN, "other"]))
    with served, dialled:
        assert peer_credential(served, left, time.time()) == right.credential
        assert peer_credential(dialled, right, time.time()) == left.credential
        assert dialled.version() == "TLSv1.3"
        assert dialled.selected_alpn_protocol() == ALPN


def test_no_session_is_resumed(cluster: list[HostIdentity]) -> None:
    served, dialled = shake_hands(server_context(cluster[0], [ALPN]), client_context(cluster[1], [ALPN]))
    with served, dialled:
        assert dialled.session is None or not dialled.session.has_ticket, "it would outlive its certificate"


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_event_loops_use_the_same_contexts(
    cluster: list[HostIdentity], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    left, right = cluster
    met: list[NodeCredential] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(peer_credential(writer.get_extra_info("ssl_object"), left, time.time()))
        writer.write(await reader.readexactly(1))
        writer.close()

    async def meet() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(left, [ALPN]))
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(right, [ALPN]))
            met.append(peer_credential(writer.get_extra_info("ssl_object"), right, time.time()))
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(meet(), loop_factory)
    assert {credential.node for credential in met} == {left.node, right.node}


def run(work: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)


def test_a_blocking_client_and_an_event_loop(cluster: list[HostIdentity]) -> None:
    left, right = cluster

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        writer.close()

    def dial(port: int) -> NodeCredential:
        plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        with plain, client_context(right, [ALPN]).wrap_socket(plain) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            return peer_credential(tls, right, time.time())

    async def meet() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(left, [ALPN]))
        async with server:
            met = await asyncio.to_thread(dial, server.sockets[0].getsockname()[1])
        assert met == left.credential

    run(meet(), uvloop.new_event_loop)


def test_no_certificate_no_entry(cluster: list[HostIdentity]) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server_context(cluster[0], [ALPN]), bare)


def test_a_member_shows_itself_only_to_whom_it_can_verify(cluster: list[HostIdentity]) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    host = cluster[0]
    bare.load_cert_chain(host.directory / "node.crt", host.directory / "node.key")
    served, dialled = shake_hands(bare, client_context(cluster[1], [ALPN]))
    with served, dialled, pytest.raises(DeniedError, match="no certificate"):
        peer_credential(served, host, time.time())


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_3_only(cluster: list[HostIdentity], most: ssl.TLSVersion) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata=cluster[0].authority_der)
    client.load_cert_chain(cluster[1].directory / "node.crt", cluster[1].directory / "node.key")
    client.maximum_version = most
    if most is ssl.TLSVersion.TLSv1_2:
        with pytest.raises(ssl.SSLError):
            shake_hands(server_context(cluster[0], [ALPN]), client)
    else:
        served, dialled = shake_hands(server_context(cluster[0], [ALPN]), client)
        with served, dialled:
            assert dialled.version() == "TLSv1.3"


def test_a_foreign_cluster(cluster: list[HostIdentity], tmp_path: Path) -> None:
    stranger = make_cluster(tmp_path, 1)[0]
    for server, client in ((cluster[0], stranger), (stranger, cluster[0])):
        with pytest.raises(ssl.SSLError):
            shake_hands(server_context(server, [ALPN]), client_context(client, [ALPN]))


def test_a_foreign_ca_of_the_same_name(cluster: list[HostIdentity], tmp_path: Path) -> None:
    """Issuer, subject and extension are all right; the signature is not."""
    fake = Ed25519PrivateKey.generate()
    posing = install(cluster[1], tmp_path, cluster[1].credential, fake, cluster[0].authority_der)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(server_context(cluster[0], [ALPN]), client_context(posing, [ALPN]))


def test_self_signed(cluster: list[HostIdentity], tmp_path: Path) -> None:
    host = cluster[1]
    now = int(time.time())
    own = sign_authority(host.node_private, 5, now - 60, now + 3600)
    posing = install(host, tmp_path, host.credential, host.node_private, own)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(server_context(cluster[0], [ALPN]), client_context(posing, [ALPN]))


@pytest.mark.parametrize("shift_s", [-2 * CERTIFICATE_LIFETIME_S, 3600], ids=["expired", "not valid yet"])
def test_at_another_time(cluster: list[HostIdentity], tmp_path: Path, shift_s: int) -> None:
    credential = cluster[1].credential
    not_before, not_after = credential.not_before + shift_s, credential.not_after + shift_s
    if shift_s < 0:
        not_before = credential.not_before - 60
        not_after = not_before + 1
    late = forge(cluster, tmp_path, not_before=not_before, not_after=not_after)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(server_context(cluster[0], [ALPN]), client_context(late, [ALPN]))


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.NODE])
def test_another_role_is_no_peer(cluster: list[HostIdentity], tmp_path: Path, role: Role) -> None:
    other = forge(cluster, tmp_path, role=role)
    served, dialled = shake_hands(server_context(cluster[0], [ALPN]), client_context(other, [ALPN]))
    with served, dialled, pytest.raises(DeniedError, match="not a node"):
        peer_credential(served, cluster[0], time.time())


def test_a_certificate_that_expires_under_a_session(cluster: list[HostIdentity]) -> None:
    served, dialled = shake_hands(server_context(cluster[0], [ALPN]), client_context(cluster[1], [ALPN]))
    with served, dialled, pytest.raises(DeniedError, match="expired"):
        peer_credential(served, cluster[0], time.time() + CERTIFICATE_LIFETIME_S + 1)


def test_a_stolen_certificate_without_its_key(cluster: list[HostIdentity], tmp_path: Path) -> None:
    thief = Ed25519PrivateKey.generate()
    (tmp_path / "node.crt").write_bytes((cluster[1].directory / "node.crt").read_bytes())
    (tmp_path / "node.key").write_bytes(key_pem(thief))
    with pytest.raises(LocalError, match="KEY_VALUES_MISMATCH"):
        client_context(replace(cluster[1], directory=tmp_path), [ALPN])


def test_a_member_cannot_certify_others(cluster: list[HostIdentity], tmp_path: Path) -> None:
    """A member signs a certificate for a friend, and sends its own along as the chain."""
    member, friend = cluster[1], Ed25519PrivateKey.generate()
    now = int(time.time())
    own_ca = sign_authority(member.node_private, 5, now - 60, now + 3600)
    node_key = NodeKey(friend.public_key().public_bytes_raw())
    credential = node_credential(
        node_key,
        member.credential.sealing_key,
        Nonce(bytes(16)),
        zone="",
        rack="",
        not_before=now - 60,
        not_after=now + 60,
    )
    leaf = sign_certificate(member.node_private, own_ca, credential, 6)
    (tmp_path / "node.crt").write_bytes(certificate_pem(leaf) + certificate_pem(member.certificate_der))
    (tmp_path / "node.key").write_bytes(key_pem(friend))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(server_context(cluster[0], [ALPN]), client_context(replace(member, directory=tmp_path), [ALPN]))
