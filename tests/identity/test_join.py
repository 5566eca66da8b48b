"""`entice join` against a real founding host, and against everyone who poses as one."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from enticed.gateway.server import ApiServer
from enticed.identity.authority import Authority
from enticed.identity.enrol import join_cluster
from enticed.identity.host import HostIdentity, found_cluster, load_identity
from enticed.identity.pem import load_signing_key
from enticed.limits import CERTIFICATE_LIFETIME_S, JOIN_ANSWER_MAX_SIZE_BYTES
from protocol.codec import pack_record, unpack_record
from protocol.enrolment import JoinAnswer
from protocol.errors import (
    AbsentError,
    DeniedError,
    EnticedError,
    ExhaustedError,
    LocalError,
    MalformedError,
    RemoteError,
)
from protocol.labels import HostLabel
from protocol.token import JoinToken, format_token, parse_token
from protocol.trust import seal_trust
from tests.clusters import enrol, make_cluster, state_dir
from tests.identity.fake_servers import Reply, by_path, http, recording_server, server_tls

BOOTSTRAP = ("10.0.0.1:7440", "[fd00::1]:7440")


@dataclass(frozen=True)
class Founder:
    """A founding host whose HTTPS API runs in a thread of its own, as a daemon does beside the command."""

    identity: HostIdentity
    authority: Authority
    state: Path
    address: str

    def token(self, uses: int = 1, ttl_s: int = 60) -> str:
        return self.authority.issue_token(self.address, uses, ttl_s)


@contextmanager
def running_founder(state: Path, host: str = "127.0.0.1", founded_at: float | None = None) -> Iterator[Founder]:
    identity = found_cluster(state, "", "", time.time() if founded_at is None else founded_at)
    authority = Authority.load(state)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ApiServer(identity, host, 0, authority, BOOTSTRAP)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        address = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
        yield Founder(identity, authority, state, address)
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Founder]:
    with running_founder(tmp_path_factory.mktemp("founder") / "state") as running:
        yield running


def refused(error: type[EnticedError], match: str, state: Path, token: str, timeout_s: float = 10) -> None:
    """Joining fails so, in one line without the secret, and leaves nothing."""
    with pytest.raises(error, match=match) as caught:
        join_cluster(state, token, "", "", timeout_s)
    assert "\n" not in str(caught.value)
    assert token.rpartition(".")[2] not in str(caught.value)
    assert not state.exists()


def test_a_host_joins(founder: Founder, tmp_path: Path) -> None:
    labels = (HostLabel("host", "h1"),)
    joined = join_cluster(tmp_path / "a" / "state", founder.token(), "z1", "r7", labels=labels)
    assert (joined.credential.labels, joined.credential.may_dispatch) == (labels, False)
    assert joined.trust == founder.identity.trust
    assert joined.bootstrap == BOOTSTRAP
    assert (joined.credential.zone, joined.credential.rack) == ("z1", "r7")
    assert joined.node != founder.identity.node
    assert load_identity(tmp_path / "a" / "state").credential == joined.credential
    joined.require_valid(time.time())


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_over_ipv6(tmp_path: Path) -> None:
    with running_founder(tmp_path / "founder", "::1") as founder:
        assert founder.address.startswith("[::1]:")
        assert join_cluster(tmp_path / "state", founder.token(), "", "").trust == founder.identity.trust


def test_a_used_token(founder: Founder, tmp_path: Path) -> None:
    token = founder.token()
    join_cluster(tmp_path / "first", token, "", "")
    refused(DeniedError, "used already", tmp_path / "second", token)


def test_a_token_for_many(founder: Founder, tmp_path: Path) -> None:
    token = founder.token(uses=3)
    nodes = {join_cluster(tmp_path / str(n), token, "", "").node for n in range(3)}
    assert len(nodes) == 3
    refused(DeniedError, "used already", tmp_path / "fourth", token)


def test_an_expired_token(tmp_path: Path) -> None:
    with running_founder(tmp_path / "founder") as founder:
        early = Authority.load(founder.state, clock=lambda: time.time() - 3600)
        token = early.issue_token(founder.address, ttl_s=60)
        # The running host reads its book when it starts: start it again over the same state.
        identity, authority = founder.identity, Authority.load(founder.state)

        async def serve_and_join() -> None:
            async with ApiServer(identity, "127.0.0.1", 0, authority) as server:
                here = format_token(replace(parse_token(token), address=f"127.0.0.1:{server.port}"))
                await asyncio.to_thread(refused, DeniedError, "has expired", tmp_path / "state", here)

        asyncio.run(serve_and_join())


def test_a_wrong_secret(founder: Founder, tmp_path: Path) -> None:
    wrong = format_token(replace(parse_token(founder.token()), secret=bytes(24)))
    refused(DeniedError, "the join token is wrong", tmp_path / "state", wrong)


@pytest.mark.parametrize("text", ["", "ENT1.x", "hello\nworld"])
def test_what_is_no_token(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedError, match="join token"):
        join_cluster(tmp_path / "state", text, "", "")


def test_an_odd_rack_is_refused_here(founder: Founder, tmp_path: Path) -> None:
    token = founder.token()
    with pytest.raises(LocalError, match="rack"):
        join_cluster(tmp_path / "state", token, "", "rack 7")
    join_cluster(tmp_path / "state", token, "", "rack-7")


def test_a_host_that_belongs_somewhere_keeps_its_token(founder: Founder, tmp_path: Path) -> None:
    token = founder.token()
    with pytest.raises(LocalError, match="founded a cluster already"):
        join_cluster(founder.state, token, "", "")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="cannot write"):
        join_cluster(tmp_path / "file" / "state", token, "", "")
    join_cluster(tmp_path / "state", token, "", "")


def test_nobody_listens(founder: Founder, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    token = format_token(replace(parse_token(founder.token()), address=f"127.0.0.1:{port}"))
    refused(AbsentError, "nobody answers at 127.0.0.1.*refused", tmp_path / "state", token)


def test_a_host_that_is_silent(founder: Founder, tmp_path: Path) -> None:
    with recording_server(lambda _: None, lambda _: b"") as silent:
        token = format_token(replace(parse_token(founder.token()), address=silent.address))
        refused(ExhaustedError, "no answer", tmp_path / "state", token, timeout_s=0.2)


def test_a_host_that_answers_a_byte_at_a_time(founder: Founder, tmp_path: Path) -> None:
    """Each byte comes in time; the answer does not."""
    stop = threading.Event()
    tls = server_tls(founder.identity.directory)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        plain, _ = listener.accept()
        with plain, tls.wrap_socket(plain, server_side=True) as sock:
            try:
                while not stop.wait(0.02):
                    sock.sendall(b"H")
            except OSError:
                pass

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        token = format_token(replace(parse_token(founder.token()), address=address))
        refused(ExhaustedError, "no answer", tmp_path / "state", token, timeout_s=0.3)
    finally:
        stop.set()
        thread.join()
        listener.close()


def test_a_host_of_another_cluster_hears_no_secret(founder: Founder, tmp_path: Path) -> None:
    """The wrong CA hash: everything else is as it should be."""
    (stranger,) = make_cluster(tmp_path / "stranger", 1)
    tls = server_tls(stranger.directory)
    with recording_server(lambda _: tls, by_path({"/v1/ca": http(stranger.authority_der)})) as fake:
        token = replace(parse_token(founder.token()), address=fake.address)
        refused(DeniedError, "of another cluster", tmp_path / "state", format_token(token))
    hears_nothing(bytes(fake.heard), token)
    assert fake.heard.count(b"HTTP/1.1") == 1


def test_who_shows_the_right_ca_without_being_of_it_hears_no_secret(founder: Founder, tmp_path: Path) -> None:
    """The CA's certificate is no secret: anyone can serve it."""
    (stranger,) = make_cluster(tmp_path / "stranger", 1)
    tls = server_tls(stranger.directory)
    with recording_server(lambda _: tls, genuine(founder)) as fake:
        token = replace(parse_token(founder.token()), address=fake.address)
        refused(DeniedError, "no certificate of the cluster's CA", tmp_path / "state", format_token(token))
    hears_nothing(bytes(fake.heard), token)


def test_a_member_that_poses_as_the_founder_hears_no_secret(founder: Founder, tmp_path: Path) -> None:
    """It has a certificate of the right CA, and everything that is public; it is no registrar."""
    member = enrol(founder.authority, tmp_path / "member")
    tls = server_tls(member.directory)
    with recording_server(lambda _: tls, genuine(founder)) as fake:
        token = replace(parse_token(founder.token()), address=fake.address)
        refused(DeniedError, "must not enrol others", tmp_path / "state", format_token(token))
    hears_nothing(bytes(fake.heard), token)


def test_who_turns_up_in_the_middle_hears_no_secret(founder: Founder, tmp_path: Path) -> None:
    """The first two answers are the founder's own; then another takes over the address."""
    (stranger,) = make_cluster(tmp_path / "stranger", 1)
    contexts = [server_tls(host.directory) for host in (founder.identity, founder.identity, stranger)]
    with recording_server(lambda n: contexts[min(n, 2)], genuine(founder)) as fake:
        token = replace(parse_token(founder.token()), address=fake.address)
        refused(DeniedError, "no certificate of the cluster's CA", tmp_path / "state", format_token(token))
    hears_nothing(bytes(fake.heard), token)


def test_a_trust_bundle_of_another_ca_opens_nothing(founder: Founder, tmp_path: Path) -> None:
    (stranger,) = make_cluster(tmp_path / "stranger", 1)
    forged = genuine(founder, trust=(stranger.directory / "trust").read_bytes())
    tls = server_tls(founder.identity.directory)
    with recording_server(lambda _: tls, forged) as fake:
        token = replace(parse_token(founder.token()), address=fake.address)
        refused(DeniedError, "trusted signatures", tmp_path / "state", format_token(token))
    hears_nothing(bytes(fake.heard), token)


def hears_nothing(heard: bytes, token: JoinToken) -> None:
    assert heard
    assert token.secret not in heard
    assert token.token not in heard
    assert b"/v1/join" not in heard


def date(shift_s: float = 0) -> str:
    return time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(time.time() + shift_s))


def genuine(founder: Founder, trust: bytes | None = None, join: bytes = b"") -> Reply:
    """All that a founder says to strangers; `join`: its answer to who joins."""
    trust = founder.authority.trust if trust is None else trust
    ca = http(founder.authority.certificate)
    return by_path({"/v1/ca": ca, "/v1/trust": http(trust, headers=date()), "/v1/join": join})


def test_a_clock_that_is_off_costs_no_token(founder: Founder, tmp_path: Path) -> None:
    token = founder.token()
    for shift_s, which in ((3600, "ahead of"), (-3600, "behind")):
        with pytest.raises(LocalError, match=rf"clock is 3\d\d\d s {which}"):
            join_cluster(tmp_path / "state", token, "", "", clock=lambda shift_s=shift_s: time.time() + shift_s)  # type: ignore[misc]
    join_cluster(tmp_path / "state", token, "", "")


@pytest.mark.parametrize(
    ("shift_s", "match"), [(86400, "not valid yet.*clock behind"), (-2 * CERTIFICATE_LIFETIME_S, "has expired")]
)
def test_a_founder_of_another_time(tmp_path: Path, shift_s: float, match: str) -> None:
    with running_founder(tmp_path / "founder", founded_at=time.time() + shift_s) as founder:
        refused(LocalError, match, tmp_path / "state", founder.token())


@pytest.mark.parametrize(
    ("reply", "error", "match"),
    [
        (lambda _: b"", MalformedError, "not an HTTP answer"),
        (lambda _: b"SSH-2.0-OpenSSH\r\n", MalformedError, "not an HTTP answer"),
        (lambda _: b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", MalformedError, "not an HTTP answer"),
        (lambda _: http(b"x" * 100)[:-1], MalformedError, "cut off"),
        (lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", MalformedError, "cut off"),
        (lambda _: http(bytes(JOIN_ANSWER_MAX_SIZE_BYTES)), MalformedError, "more than"),
        (lambda _: http(b"", "404 Not Found"), AbsentError, "does not enrol"),
        (lambda _: http(b"", "302 Found", "Location: https://127.0.0.1:1/\r\n"), AbsentError, "does not enrol"),
    ],
    ids=["nothing", "ssh", "headers", "cut", "chunked", "endless", "no founder", "redirect"],
)
def test_a_host_that_makes_no_sense(
    founder: Founder, tmp_path: Path, reply: Reply, error: type[EnticedError], match: str
) -> None:
    tls = server_tls(founder.identity.directory)
    with recording_server(lambda _: tls, reply) as fake:
        token = format_token(replace(parse_token(founder.token()), address=fake.address))
        refused(error, match, tmp_path / "state", token)


def test_a_host_without_tls(founder: Founder, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            plain, _ = listener.accept()
            with plain:
                plain.sendall(b"220 mail.example.net ESMTP\r\n")
                plain.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        refused(
            RemoteError,
            "no TLS 1.3",
            tmp_path / "state",
            format_token(replace(parse_token(founder.token()), address=address)),
        )
        thread.join()


def answer_of(founder: Founder, change: Callable[[bytes], bytes]) -> Reply:
    """The founder's own answers, that to a join changed on the way (as a founder gone wrong might)."""
    quick = genuine(founder)

    def reply(request: bytes) -> bytes:
        if not request.startswith(b"POST"):
            return quick(request)
        return http(change(_relay(founder, request)))

    return reply


def _relay(founder: Founder, request: bytes) -> bytes:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(parse_token(founder.token()).endpoint, 10) as plain,
        bare.wrap_socket(plain) as tls,
    ):
        tls.sendall(request)
        answer = b""
        while part := tls.recv(65536):
            answer += part
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda answer: b"", MalformedError),
        (lambda answer: answer[:-1], MalformedError),
        (lambda answer: answer.replace(b"r7", b"r8"), EnticedError),
        (lambda answer: answer.replace(b"10.0.0.1:7440", b"db01.lan:7440"), MalformedError),
    ],
    ids=["empty", "cut", "certificate changed", "odd address"],
)
def test_an_answer_that_is_not_what_was_asked_for(
    founder: Founder, tmp_path: Path, change: Callable[[bytes], bytes], error: type[EnticedError]
) -> None:
    tls = server_tls(founder.identity.directory)
    with recording_server(lambda _: tls, answer_of(founder, change)) as fake:
        token = format_token(replace(parse_token(founder.token()), address=fake.address))
        with pytest.raises(error):
            join_cluster(tmp_path / "state", token, "", "r7")
    assert not (tmp_path / "state").exists()


def test_a_certificate_for_other_keys(founder: Founder, tmp_path: Path) -> None:
    """The founder's own earlier answer to another host, replayed."""
    earlier: list[bytes] = []
    tls = server_tls(founder.identity.directory)

    def first(answer: bytes) -> bytes:
        earlier.append(answer)
        return earlier[0]

    with recording_server(lambda _: tls, answer_of(founder, first)) as fake:
        token = format_token(replace(parse_token(founder.token(uses=2)), address=fake.address))
        join_cluster(tmp_path / "first", token, "", "")
        with pytest.raises(RemoteError, match="something else"):
            join_cluster(tmp_path / "second", token, "", "")


def test_a_trust_bundle_that_leaves_its_own_ca_out(founder: Founder, tmp_path: Path) -> None:
    (stranger,) = make_cluster(tmp_path / "stranger", 1)
    bundle = replace(founder.identity.trust, authorities=(stranger.authority_der,))
    odd = seal_trust(bundle, load_signing_key(founder.identity.directory / "ca.key"))

    def change(answer: bytes) -> bytes:
        return pack_record(replace(unpack_record(JoinAnswer, answer), trust=odd))

    tls = server_tls(founder.identity.directory)
    with recording_server(lambda _: tls, answer_of(founder, change)) as fake:
        token = format_token(replace(parse_token(founder.token()), address=fake.address))
        refused(RemoteError, "does not name its own CA", tmp_path / "state", token)


def test_no_time_at_all(founder: Founder, tmp_path: Path) -> None:
    refused(ExhaustedError, "no answer", tmp_path / "state", founder.token(), timeout_s=0)


@pytest.mark.parametrize(
    ("status", "body", "error", "match"),
    [
        ("403 Forbidden", b'{"detail": "no\\u001b[2J\\nway"}', DeniedError, r"^no\?\[2J\?way$"),
        ("429 Too Many Requests", b'{"detail": "slowly"}', ExhaustedError, "slowly"),
        ("503 Service Unavailable", b"[", ExhaustedError, "no reason given"),
        ("500 Internal Server Error", b'{"detail": 5}', RemoteError, "500: no reason given"),
    ],
)
def test_what_the_founder_says_is_passed_on_safely(
    founder: Founder, tmp_path: Path, status: str, body: bytes, error: type[EnticedError], match: str
) -> None:
    tls = server_tls(founder.identity.directory)
    with recording_server(lambda _: tls, genuine(founder, join=http(body, status))) as fake:
        token = format_token(replace(parse_token(founder.token()), address=fake.address))
        refused(error, match, tmp_path / "state", token)


def test_a_founder_that_does_not_know_the_time(founder: Founder, tmp_path: Path) -> None:
    ca = http(founder.authority.certificate)
    tls = server_tls(founder.identity.directory)
    timeless = by_path({"/v1/ca": ca, "/v1/trust": http(founder.authority.trust)})
    with recording_server(lambda _: tls, timeless) as fake:
        token = format_token(replace(parse_token(founder.token()), address=fake.address))
        refused(MalformedError, "what time it is", tmp_path / "state", token)


def test_the_founder_itself_cannot_join(tmp_path: Path) -> None:
    make_cluster(tmp_path, 1)
    with running_founder(tmp_path / "founder") as founder, pytest.raises(LocalError, match="already"):
        join_cluster(state_dir(tmp_path, 0), founder.token(), "", "")
