"""The CA at work: tokens that are good so often and so long, and certificates for keys alone."""

import json
import threading
import time
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enticed.identity.authority import Authority
from enticed.identity.host import HostKeys, found_cluster
from enticed.identity.publisher import load_publisher, next_name_record
from enticed.identity.tokens import TokenBook
from enticed.limits import NAME_LIFETIME_S, TOKEN_MAX_LIFETIME_S, TOKEN_MAX_USES, TOKENS_MAX_COUNT
from protocol.credentials import Role, verify_certificate
from protocol.enrolment import request_certificate
from protocol.errors import CorruptError, DeniedError, ExhaustedError, LocalError, MalformedError
from protocol.identifiers import ImageId, SealingKey
from protocol.labels import HostLabel
from protocol.names import open_name
from protocol.statement import Statement, open_statement
from protocol.token import JoinToken, authority_hash, parse_token
from tests.clusters import make_cluster, state_dir

ADDRESS = "127.0.0.1:7443"
KEYS = HostKeys.generate()
REQUEST = request_certificate(KEYS.node, KEYS.sealing_key)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> Path:
    found_cluster(tmp_path / "state", "", "", clock.now)
    return tmp_path / "state"


@pytest.fixture
def authority(state: Path, clock: Clock) -> Authority:
    return Authority.load(state, clock)


def use(authority: Authority, token: JoinToken, request: bytes = REQUEST) -> bytes:
    return authority.enrol(token.token, token.secret, request, "z", "r").certificate


def test_a_token_buys_a_certificate_for_the_keys(authority: Authority, clock: Clock) -> None:
    token = parse_token(authority.issue_token(ADDRESS))
    assert token.address == ADDRESS
    assert token.authority_hash == authority_hash(authority.certificate)
    credential = verify_certificate(use(authority, token), (authority.certificate,), clock.now)
    assert (credential.node_key, credential.sealing_key) == (KEYS.node_key, KEYS.sealing_key)
    assert (credential.role, credential.zone, credential.rack) == (Role.NODE, "z", "r")


def test_the_ca_chooses_the_position(authority: Authority, clock: Clock) -> None:
    token = parse_token(authority.issue_token(ADDRESS, uses=2))
    first, second = (verify_certificate(use(authority, token), (authority.certificate,), clock.now) for _ in "ab")
    assert first.node_key == second.node_key
    assert first.node != second.node


def test_a_token_is_used_up(authority: Authority) -> None:
    token = parse_token(authority.issue_token(ADDRESS, uses=2))
    use(authority, token)
    use(authority, token)
    with pytest.raises(DeniedError, match="used already"):
        use(authority, token)


def test_a_token_expires(authority: Authority, clock: Clock) -> None:
    token = parse_token(authority.issue_token(ADDRESS, ttl_s=60))
    clock.now += 61
    with pytest.raises(DeniedError, match="has expired"):
        use(authority, token)


def test_a_wrong_secret_learns_nothing(authority: Authority, clock: Clock) -> None:
    token = parse_token(authority.issue_token(ADDRESS, ttl_s=60))
    wrong = JoinToken(token.address, token.authority_hash, token.token, bytes(24))
    unknown = JoinToken(token.address, token.authority_hash, bytes(8), token.secret)
    for attempt in (wrong, unknown):
        with pytest.raises(DeniedError, match=r"^the join token is wrong$"):
            use(authority, attempt)
    clock.now += 61
    with pytest.raises(DeniedError, match=r"^the join token is wrong$"):
        use(authority, wrong)


def test_uses_are_counted_across_a_restart(authority: Authority, state: Path, clock: Clock) -> None:
    token = parse_token(authority.issue_token(ADDRESS))
    use(authority, token)
    with pytest.raises(DeniedError, match="used already"):
        use(Authority.load(state, clock), token)


def test_a_use_counts_before_it_is_used(authority: Authority, state: Path, clock: Clock) -> None:
    """A founding host that dies between the two has spent the token, never doubled it."""
    token = parse_token(authority.issue_token(ADDRESS))
    TokenBook(state / "identity" / "tokens").redeem(token.token, token.secret, clock.now)
    with pytest.raises(DeniedError, match="used already"):
        use(Authority.load(state, clock), token)


def test_many_at_once_get_no_more_than_the_uses(authority: Authority) -> None:
    token = parse_token(authority.issue_token(ADDRESS, uses=3))
    outcomes: list[str] = []

    def attempt() -> None:
        try:
            use(authority, token)
            outcomes.append("in")
        except DeniedError:
            outcomes.append("out")

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in"] * 3 + ["out"] * 5


def test_a_bad_request_costs_no_use(authority: Authority) -> None:
    token = parse_token(authority.issue_token(ADDRESS))
    forged = REQUEST.replace(KEYS.node_key, HostKeys.generate().node_key)
    for request, zone in ((b"", ""), (forged, ""), (REQUEST, "no zone")):
        with pytest.raises((MalformedError, DeniedError)):
            authority.enrol(token.token, token.secret, request, zone, "")
    use(authority, token)


def test_a_sealing_key_of_another_kind_costs_no_use(authority: Authority) -> None:
    token = parse_token(authority.issue_token(ADDRESS))
    with pytest.raises(MalformedError):
        use(authority, token, request_certificate(KEYS.node, SealingKey(bytes(32))))
    use(authority, token)


def test_no_secret_on_disk(authority: Authority, state: Path) -> None:
    text = authority.issue_token(ADDRESS)
    token = parse_token(text)
    for path in (state / "identity").iterdir():
        content = path.read_bytes()
        for form in (token.secret, token.secret.hex().encode(), text.rpartition(".")[2].encode()):
            assert form not in content


@pytest.mark.parametrize(
    ("uses", "ttl_s"), [(0, 60), (-1, 60), (TOKEN_MAX_USES + 1, 60), (1, 0), (1, -5), (1, TOKEN_MAX_LIFETIME_S + 1)]
)
def test_uses_and_lifetime_are_bounded(authority: Authority, uses: int, ttl_s: int) -> None:
    with pytest.raises(LocalError):
        authority.issue_token(ADDRESS, uses, ttl_s)


def test_no_token_for_an_address_that_none_can_reach(authority: Authority) -> None:
    with pytest.raises(LocalError, match="no token for the address"):
        authority.issue_token("founder.example:7443")


def test_only_the_founding_host_enrols_and_publishes(tmp_path: Path) -> None:
    make_cluster(tmp_path, 2)
    with pytest.raises(DeniedError, match="founding host"):
        Authority.load(state_dir(tmp_path, 1))
    assert load_publisher(state_dir(tmp_path, 1)) is None


def test_a_damaged_ca_key(state: Path) -> None:
    (state / "identity" / "ca.key").write_bytes(b"")
    with pytest.raises(CorruptError):
        Authority.load(state)


def entry(number: int, expires_at: int) -> dict[str, object]:
    return {"token": f"{number:016x}", "secret_sha256": "0" * 64, "uses": 1, "used": 0, "expires_at": expires_at}


def test_a_full_book_forgets_the_spent_and_keeps_the_good(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    spent, good = [entry(0, 10), entry(1, 5)], [entry(n, 1000) for n in range(2, TOKENS_MAX_COUNT)]
    path.write_text(json.dumps({"version": 1, "tokens": spent + good}))
    book = TokenBook(path)
    book.add(b"\xff" * 8, bytes(24), 1, 1000, now=100)
    kept = {record["token"] for record in json.loads(path.read_bytes())["tokens"]}
    assert len(kept) == TOKENS_MAX_COUNT
    assert f"{1:016x}" not in kept
    book.add(b"\xfe" * 8, bytes(24), 1, 1000, now=100)
    with pytest.raises(ExhaustedError):
        book.add(b"\xfd" * 8, bytes(24), 1, 1000, now=100)
    TokenBook(path).redeem(b"\xfe" * 8, bytes(24), now=100)


def test_a_book_that_cannot_be_written_counts_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    directory.mkdir()
    book = TokenBook(directory / "tokens")
    book.add(bytes(8), bytes(24), 1, 1000, now=0)
    (directory / "tokens").unlink()
    directory.rmdir()
    with pytest.raises(LocalError, match="cannot write"):
        book.redeem(bytes(8), bytes(24), now=0)
    directory.mkdir()
    book.redeem(bytes(8), bytes(24), now=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"version": 2, "tokens": []}',
        b'{"version": 1, "tokens": [1]}',
        b'{"version": 1, "tokens": [{"token": 1}]}',
        json.dumps({"version": 1, "tokens": [entry(0, 10) | {"used": "0"}]}).encode(),
        json.dumps({"version": 1, "tokens": [entry(0, 10) | {"used": True}]}).encode(),
        json.dumps({"version": 1, "tokens": [entry(0, 10) | {"token": 5}]}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_damaged_book_opens_no_door(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(CorruptError):
        TokenBook(tmp_path / "tokens")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=3)))
def test_any_book_opens_or_is_damaged(tmp_path: Path, tokens: object) -> None:
    (tmp_path / "tokens").write_text(json.dumps({"version": 1, "tokens": tokens}))
    try:
        TokenBook(tmp_path / "tokens")
    except CorruptError:
        pass


def test_the_publisher_signs_what_its_cluster_trusts(tmp_path: Path) -> None:
    _, member = make_cluster(tmp_path, 2)
    publisher, trusted = load_publisher(state_dir(tmp_path, 0)), member.trust.trusted_publishers
    assert publisher is not None
    assert publisher.key in trusted
    assert "private" not in repr(publisher)
    statement = Statement(ImageId(bytes(32)), 4096, 0, "raw", False, None, (), 1)
    assert open_statement(publisher.sign_statement(statement), member.trust.quorum) == statement
    record = next_name_record("web:1", statement.image, 0, time.time())
    assert open_name(publisher.sign_name(record), member.trust.quorum_of("web:1"), time.time()) == record


def test_a_damaged_publisher_key(state: Path) -> None:
    (state / "identity" / "publisher.key").write_bytes(b"")
    with pytest.raises(CorruptError):
        load_publisher(state)


def test_versions_of_a_name_rise() -> None:
    image, now = ImageId(bytes(32)), 1_800_000_000.5
    first = next_name_record("web:1", image, 0, now)
    assert (first.issued_at, first.expires_at) == (int(now), int(now) + NAME_LIFETIME_S)
    second = next_name_record("web:1", image, first.version, now)
    assert second.version == first.version + 1
    ahead = first.version + 10**9
    assert next_name_record("web:1", image, ahead, now).version == ahead + 1
    assert next_name_record("web:1", image, 0, now + 1).version > first.version


def test_whether_a_host_may_order_on_others_is_the_tokens_to_say(authority: Authority) -> None:
    for may_dispatch in (True, False):
        token = parse_token(authority.issue_token(ADDRESS, may_dispatch=may_dispatch))
        labels = (HostLabel("host", "h7"),)
        given = authority.enrol(token.token, token.secret, REQUEST, "z", "r", labels, ip_address("10.0.0.7"))
        credential = verify_certificate(given.certificate, (authority.certificate,), time.time())
        assert (credential.may_dispatch, credential.labels) == (may_dispatch, labels)
        names = x509.load_der_x509_certificate(given.certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert names.value.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.7")]
        assert names.value.get_values_for_type(x509.DNSName) == [credential.node.hex()]


def test_tokens_of_before_there_was_dispatching(tmp_path: Path) -> None:
    secret_sha256 = sha256(bytes(24)).hexdigest()
    old = {"token": "00" * 8, "secret_sha256": secret_sha256, "uses": 1, "used": 0, "expires_at": 2}
    (tmp_path / "tokens").write_text(json.dumps({"version": 1, "tokens": [old]}))
    assert not TokenBook(tmp_path / "tokens").redeem(bytes(8), bytes(24), now=1).may_dispatch
