"""The identity on disk: whole or not there, and its parts belong together."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, found_cluster, is_founder, load_identity
from enticed.identity.pem import key_pem
from enticed.identity.publisher import load_publisher
from enticed.limits import CERTIFICATE_LIFETIME_S
from protocol.errors import AbsentError, CorruptError, DeniedError, LocalError
from protocol.identifiers import NodeId
from protocol.limits import CLOCK_SKEW_MAX_S
from tests.clusters import enrol, make_cluster, state_dir

COMMON = {"node.key", "sealing.key", "node.crt", "ca.crt", "trust", "bootstrap"}
FOUNDERS = {"ca.key", "publisher.key", "certified"}


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_founded_cluster_loads_again(tmp_path: Path) -> None:
    founder = found_cluster(tmp_path / "state", "z1", "r1", time.time())
    assert (founder.credential.zone, founder.credential.rack) == ("z1", "r1")
    assert founder.trust.serial == 1
    assert founder.trust.registrars == (founder.node,)
    assert founder.trust.authorities == (founder.authority_der,)
    again = load_identity(tmp_path / "state")
    assert (again.credential, again.trust, again.bootstrap) == (founder.credential, founder.trust, ())
    assert is_founder(tmp_path / "state")
    assert names(founder.directory) == COMMON | FOUNDERS


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    founder = found_cluster(tmp_path / "state", "", "", time.time())
    assert stat.S_IMODE(founder.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in founder.directory.iterdir()} == {0o600}


def test_members_of_one_cluster(tmp_path: Path) -> None:
    founder, first, second = make_cluster(tmp_path, 3, zones=["a", "b", "b"], racks=["1", "2", "3"])
    assert len({founder.node, first.node, second.node}) == 3
    assert first.trust == second.trust == founder.trust
    assert (second.credential.zone, second.credential.rack) == ("b", "3")
    assert names(first.directory) == COMMON
    assert not is_founder(state_dir(tmp_path, 1))


def test_keys_do_their_work_and_stay_out_of_sight(tmp_path: Path) -> None:
    (host,) = make_cluster(tmp_path, 1)
    Ed25519PublicKey.from_public_bytes(host.credential.node_key).verify(host.sign(b"data"), b"data")
    assert host.sealing_private.public_key().public_bytes_raw() == host.credential.sealing_key
    assert host.node == NodeId.of(host.credential.node_key, host.credential.sealing_key, host.credential.nonce)
    assert "private" not in repr(host)


def test_a_second_init_says_so_and_changes_nothing(tmp_path: Path) -> None:
    founder = found_cluster(tmp_path / "state", "", "", time.time())
    with pytest.raises(LocalError, match=r"founded a cluster already.*holds its CA.*keep it.*trust renew") as refused:
        found_cluster(tmp_path / "state", "", "", time.time())
    assert "join anew" not in str(refused.value)
    assert load_identity(tmp_path / "state").credential == founder.credential


def test_a_member_cannot_found(tmp_path: Path) -> None:
    make_cluster(tmp_path, 2)
    with pytest.raises(LocalError, match=r"joined a cluster already: to let it join anew, .* move .*identity away"):
        found_cluster(state_dir(tmp_path, 1), "", "", time.time())


@pytest.mark.parametrize("labels", [("../etc", ""), ("", "r 1"), ("z" * 65, "")])
def test_an_odd_zone_or_rack_leaves_nothing(tmp_path: Path, labels: tuple[str, str]) -> None:
    with pytest.raises(LocalError):
        found_cluster(tmp_path / "state", *labels, time.time())
    assert names(tmp_path) == set()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="cannot write"):
        found_cluster(tmp_path / "file" / "state", "", "", time.time())
    assert names(tmp_path) == {"file"}


def test_half_an_identity_is_none(tmp_path: Path) -> None:
    """What a killed `entice init` leaves is swept up by the next; what another one is at work on is not."""
    state = tmp_path / "state"
    left_over = state / ".identity-killed"
    left_over.mkdir(parents=True)
    (left_over / "node.key").write_bytes(b"half")
    with pytest.raises(AbsentError, match="not enrolled"):
        load_identity(state)
    found_cluster(state, "", "", time.time())
    assert names(state) == {"identity"}


def test_a_host_that_is_not_enrolled(tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match="entice init"):
        load_identity(tmp_path)
    assert not is_founder(tmp_path)


@pytest.mark.parametrize("name", sorted(COMMON - {"bootstrap"}))
@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "cut"])
def test_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    (host,) = make_cluster(tmp_path, 1)
    path = host.directory / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "garbage": b"\xff\0garbage" * 9, "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(CorruptError, match="damaged"):
        load_identity(state_dir(tmp_path, 0))


@pytest.mark.parametrize("content", [b"\xff\0", b"db01.lan:7440\n", b"10.0.0.1:7440\n10.0.0.2\n"])
def test_odd_addresses_are_found(tmp_path: Path, content: bytes) -> None:
    (host,) = make_cluster(tmp_path, 1)
    (host.directory / "bootstrap").write_bytes(b"10.0.0.1:7440\n[fd00::1]:7440\n")
    assert load_identity(state_dir(tmp_path, 0)).bootstrap == ("10.0.0.1:7440", "[fd00::1]:7440")
    (host.directory / "bootstrap").write_bytes(content)
    with pytest.raises(CorruptError, match="damaged"):
        load_identity(state_dir(tmp_path, 0))


@pytest.mark.parametrize(
    "ask",
    [
        load_identity,
        load_publisher,
        is_founder,
        Authority.load,
        lambda state: found_cluster(state, "", "", time.time()),
    ],
)
def test_a_state_that_cannot_even_be_looked_at(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    with pytest.raises(LocalError, match="cannot read"):
        ask(tmp_path / ("x" * 300))


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    (host,) = make_cluster(tmp_path, 1)
    with (host.directory / "node.key").open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(LocalError, match="larger than"):
        load_identity(state_dir(tmp_path, 0))


@pytest.mark.parametrize("name", ["node.key", "sealing.key"])
def test_keys_of_another_host(tmp_path: Path, name: str) -> None:
    first, second = make_cluster(tmp_path, 2)
    (first.directory / name).write_bytes((second.directory / name).read_bytes())
    with pytest.raises(CorruptError, match="keys are not those"):
        load_identity(state_dir(tmp_path, 0))


@pytest.mark.parametrize(
    ("name", "key"), [("node.key", X25519PrivateKey.generate()), ("sealing.key", Ed25519PrivateKey.generate())]
)
def test_keys_of_another_kind(tmp_path: Path, name: str, key: X25519PrivateKey | Ed25519PrivateKey) -> None:
    (host,) = make_cluster(tmp_path, 1)
    (host.directory / name).write_bytes(key_pem(key))
    with pytest.raises(CorruptError, match="is not an"):
        load_identity(state_dir(tmp_path, 0))


@pytest.mark.parametrize("name", ["node.crt", "ca.crt", "trust"])
def test_files_of_another_cluster(tmp_path: Path, name: str) -> None:
    (ours,) = make_cluster(tmp_path / "ours", 1)
    (other,) = make_cluster(tmp_path / "other", 1)
    (ours.directory / name).write_bytes((other.directory / name).read_bytes())
    with pytest.raises(CorruptError):
        load_identity(state_dir(tmp_path / "ours", 0))


def test_a_certificate_is_valid_in_its_time(tmp_path: Path) -> None:
    now = time.time()
    host: HostIdentity = found_cluster(tmp_path / "state", "", "", now)
    host.require_valid(now - CLOCK_SKEW_MAX_S)
    host.require_valid(now + CERTIFICATE_LIFETIME_S - 1)
    with pytest.raises(DeniedError, match="has expired"):
        host.require_valid(now + CERTIFICATE_LIFETIME_S + 1)
    with pytest.raises(DeniedError, match="not valid yet"):
        host.require_valid(now - CLOCK_SKEW_MAX_S - 60)


def test_an_expired_host_still_loads(tmp_path: Path) -> None:
    """So that it can say so, and so that its store can be read."""
    host = found_cluster(tmp_path / "state", "", "", time.time() - 2 * CERTIFICATE_LIFETIME_S)
    with pytest.raises(DeniedError, match="has expired"):
        host.require_valid(time.time())


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_owner_of_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 1234, 1235)
    host = found_cluster(state, "", "", time.time())
    authority = Authority.load(state)
    authority.issue_token("127.0.0.1:1")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (host.directory, *host.directory.iterdir())}
    assert owners == {(1234, 1235)}
    assert enrol(authority, tmp_path / "other").trust == host.trust
