"""What the founding host's CA decides, what hosts keep of it, and the CA in a backup."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from enticed.identity.authority import Authority
from enticed.identity.backup import restore_backup, write_backup
from enticed.identity.bundles import (
    with_publisher,
    with_revoked,
    with_scheduler,
    without_publisher,
    without_scheduler,
)
from enticed.identity.certified import CertifiedBook
from enticed.identity.host import HostIdentity, load_identity
from enticed.identity.limits import CERTIFIED_LINES_SPARE_COUNT
from enticed.identity.publisher import load_publisher, make_publisher
from protocol.credentials import Role, read_certificate, verify_certificate
from protocol.errors import AbsentError, CorruptError, DeniedError, ExhaustedError, LocalError, MalformedError
from protocol.identifiers import NodeId, PublisherKey
from protocol.labels import HostLabel
from protocol.limits import TRUST_MAX_PUBLISHERS, TRUST_MAX_REVOKED, TRUST_MAX_SCHEDULERS
from protocol.trust import Revocation, TrustedPublisher, TrustedScheduler
from tests.clusters import enrol, make_cluster, state_dir

NOW = time.time()
DAY_S = 86400
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def founder(tmp_path: Path) -> HostIdentity:
    return make_cluster(tmp_path, 1)[0]


@pytest.fixture
def authority(tmp_path: Path, founder: HostIdentity) -> Authority:
    return Authority.load(state_dir(tmp_path, 0), identity=founder)


def revoke(founder: HostIdentity, authority: Authority, who: str) -> None:
    revocations = authority.revocations(who)
    founder.take_trust(authority.seal(lambda bundle: with_revoked(bundle, revocations, time.time())))


# --- bundles ---


def test_what_is_taken_is_kept_over_a_restart_and_never_goes_back(
    tmp_path: Path, founder: HostIdentity, authority: Authority
) -> None:
    old = authority.trust
    revoke(founder, authority, "11" * 20)
    founder.save_trust()
    again = load_identity(state_dir(tmp_path, 0))
    assert again.trust == founder.trust
    assert again.trust.serial > 1
    assert not again.take_trust(old)
    assert again.trust == founder.trust


def test_serials_rise_and_never_fall_behind_the_clock(founder: HostIdentity, authority: Authority) -> None:
    seen = [founder.trust.serial]
    for _ in range(3):
        founder.take_trust(authority.seal(lambda bundle: bundle))
        seen.append(founder.trust.serial)
    assert seen == sorted(set(seen))
    assert seen[1] >= int(NOW)


def test_a_disk_that_fails_is_told(founder: HostIdentity, authority: Authority) -> None:
    founder.take_trust(authority.seal(lambda bundle: bundle))
    founder.directory = founder.directory / "gone"
    with pytest.raises(LocalError, match="cannot write"):
        founder.save_trust()


def test_those_who_watch_are_told_of_each_change(founder: HostIdentity, authority: Authority) -> None:
    told: list[int] = []
    founder.watch(lambda: told.append(founder.trust.serial))
    sealed = authority.seal(lambda bundle: bundle)
    assert founder.take_trust(sealed)
    assert not founder.take_trust(sealed)
    assert told == [founder.trust.serial]


def test_one_who_cannot_follow_a_change_keeps_no_other_from_it(
    founder: HostIdentity, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[int] = []

    def fail() -> None:
        raise OSError(24, "Too many open files")

    founder.watch(fail)
    founder.watch(lambda: told.append(founder.trust.serial))
    assert founder.take_trust(authority.seal(lambda bundle: bundle))
    assert told == [founder.trust.serial]
    assert "Too many open files" in caplog.text


def test_lists_are_bounded(founder: HostIdentity) -> None:
    bundle = founder.trust
    for number in range(TRUST_MAX_PUBLISHERS - 1):
        bundle = with_publisher(bundle, TrustedPublisher(PublisherKey(bytes([number]) * 32), f"p{number}", ("a:*",)))
    with pytest.raises(LocalError):
        with_publisher(bundle, TrustedPublisher(PublisherKey(b"\xff" * 32), "more", ("a:*",)))
    many = tuple(Revocation(NodeId(number.to_bytes(20, "big")), int(NOW) + 9) for number in range(TRUST_MAX_REVOKED))
    full = with_revoked(bundle, many, NOW)
    with pytest.raises(LocalError):
        with_revoked(full, (Revocation(NodeId(b"\xff" * 20), int(NOW) + 9),), NOW)
    later = with_revoked(full, (Revocation(NodeId(b"\xff" * 20), int(NOW) + 99),), NOW + 10)
    assert len(later.revoked) == 1, "those whose certificates have ended need not be listed"
    for number in range(TRUST_MAX_SCHEDULERS):
        bundle = with_scheduler(bundle, TrustedScheduler(f"s{number}", 1, None, int(NOW) + 9), NOW)
    with pytest.raises(LocalError):
        with_scheduler(bundle, TrustedScheduler("more", 1, None, int(NOW) + 9), NOW)
    assert (
        with_scheduler(bundle, TrustedScheduler("more", 1, None, int(NOW) + 99), NOW + 10).schedulers[0].name == "more"
    )
    assert "s0" not in [one.name for one in without_scheduler(bundle, "s0").schedulers]


def test_a_publisher_with_a_second_key_has_one_set_of_names(founder: HostIdentity) -> None:
    first, second = PublisherKey(b"\1" * 32), PublisherKey(b"\2" * 32)
    bundle = with_publisher(founder.trust, TrustedPublisher(first, "team", ("team:*",)))
    bundle = with_publisher(bundle, TrustedPublisher(second, "team", ("team/*",)))
    assert (first, "team") not in bundle.quorum_of("team:1").holders
    assert bundle.quorum_of("team/a:1").holders >= {(first, "team"), (second, "team")}
    assert {one.key for one in without_publisher(bundle, "team", keep=second).publishers} >= {second}
    assert first not in without_publisher(bundle, "team", keep=second).trusted_publishers
    with pytest.raises(AbsentError):
        without_publisher(bundle, "nobody")
    with pytest.raises(LocalError, match="another publisher"):
        with_publisher(bundle, TrustedPublisher(first, "other", ("x:*",)))
    for names in ((), ("Bad Pattern",), ("a:*",) * 9):
        with pytest.raises(LocalError):
            with_publisher(bundle, TrustedPublisher(first, "team", names))


# --- whom a revocation means ---


def test_by_id_by_its_beginning_and_by_name(tmp_path: Path, founder: HostIdentity, authority: Authority) -> None:
    one = enrol(authority, tmp_path / "one", labels=[HostLabel("host", "h1")])
    two = enrol(authority, tmp_path / "two", labels=[HostLabel("host", "h2")])
    twin = enrol(authority, tmp_path / "twin", labels=[HostLabel("host", "h2")])
    for text in (one.node.hex(), one.node.hex()[:10], one.node.hex().upper(), "h1"):
        assert [revocation.node for revocation in authority.revocations(text)] == [one.node]
    with pytest.raises(LocalError, match=f"^2 hosts are meant by h2: .*: {two.node.short}, {twin.node.short}$"):
        authority.revocations("h2")
    with pytest.raises(AbsentError, match="3c is too short for a host's id"):
        authority.revocations("3c")
    assert [revocation.node for revocation in authority.revocations(twin.node.hex())] == [twin.node]
    assert two.node != twin.node
    for text in ("nobody", "zz" * 20, one.node.hex()[:6]):
        with pytest.raises(AbsentError):
            authority.revocations(text)
    with pytest.raises(LocalError, match="founding host"):
        authority.revocations(founder.node.hex())
    unknown = authority.revocations("ab" * 20)
    assert unknown[0].until > NOW + 365 * DAY_S, "who is in no book may have any certificate"


def test_of_many_with_one_name_a_few_ids_are_told(tmp_path: Path, authority: Authority) -> None:
    many = [enrol(authority, tmp_path / f"{n}", labels=[HostLabel("host", "vm")]) for n in range(12)]
    with pytest.raises(
        LocalError, match=r"^12 hosts are meant by vm: .* and 4 more \(entice trust hosts\)$"
    ) as refused:
        authority.revocations("vm")
    assert [one.node.short in str(refused.value) for one in many] == [True] * 8 + [False] * 4


def test_a_revoked_host_is_believed_by_nobody_who_knows(
    tmp_path: Path, founder: HostIdentity, authority: Authority
) -> None:
    member, gone = enrol(authority, tmp_path / "member"), enrol(authority, tmp_path / "gone")
    revoke(founder, authority, gone.node.hex())
    assert member.verify_peer(gone.certificate_der, NOW).node == gone.node
    assert member.take_trust(authority.trust)
    for one in (founder, member):
        with pytest.raises(DeniedError, match="revoked"):
            one.verify_peer(gone.certificate_der, NOW)
    with pytest.raises(DeniedError, match="revoked"):
        authority.renew(gone.credential)


# --- renewal ---


def test_a_renewed_certificate_is_of_the_same_host_and_by_no_name_of_its_own(
    tmp_path: Path, authority: Authority
) -> None:
    labels = [HostLabel("gpu", "a100")]
    member = enrol(authority, tmp_path / "member", "z1", "r1", labels, may_dispatch=True)
    new = authority.renew(member.credential)
    said = read_certificate(new)
    assert replace(said, not_before=0, not_after=0) == replace(member.credential, not_before=0, not_after=0)
    assert said.not_after >= NOW + 29 * DAY_S
    assert new != member.certificate_der
    with pytest.raises(ExhaustedError):
        authority.renew(member.credential)
    member.save_certificate(new)
    member.take_certificate(new, NOW)
    assert load_identity(tmp_path / "member").certificate_der == new


def test_only_nodes_are_renewed(authority: Authority, founder: HostIdentity) -> None:
    for role in Role:
        if role is not Role.NODE:
            with pytest.raises(DeniedError):
                authority.renew(replace(founder.credential, role=role))


def test_a_certificate_that_is_not_this_hosts_is_not_taken(tmp_path: Path, authority: Authority) -> None:
    member, other = enrol(authority, tmp_path / "member"), enrol(authority, tmp_path / "other")
    stranger = make_cluster(tmp_path / "strangers", 1)[0]
    richer = replace(member.credential, labels=(HostLabel("gpu", "a100"),))
    for certificate in (
        other.certificate_der,
        stranger.certificate_der,
        authority.renew(replace(member.credential, rack="r9")),
        authority.renew(replace(richer, node=NodeId(b"\1" * 20))),  # as another, so that it is not too early
    ):
        before = member.certificate_der
        with pytest.raises((DeniedError, MalformedError)):
            member.take_certificate(certificate, NOW)
        assert member.certificate_der == before


# --- rotation ---


def test_a_ca_is_rotated_and_nobody_is_left_behind(tmp_path: Path, founder: HostIdentity, authority: Authority) -> None:
    member, sleeper = enrol(authority, tmp_path / "member"), enrol(authority, tmp_path / "sleeper")
    with pytest.raises(LocalError, match="not being rotated"):
        authority.finish_rotation()
    both = authority.begin_rotation()
    for one in (founder, member):
        assert one.take_trust(both)
    founder.save_trust()
    with pytest.raises(LocalError, match="already"):
        authority.begin_rotation()

    assert {one.node_id for one in authority.behind()} == {member.node, sleeper.node}
    renewed = authority.renew(member.credential)
    assert founder.verify_peer(renewed, NOW).node == member.node
    with pytest.raises(DeniedError):
        sleeper.verify_peer(renewed, NOW)
    assert sleeper.verify_peer(authority.renew_own(), NOW).node == founder.node, "it is still told at the founding host"
    assert {one.node_id for one in authority.behind()} == {sleeper.node}

    again = Authority.load(state_dir(tmp_path, 0), identity=load_identity(state_dir(tmp_path, 0)))
    assert len(again.behind()) == 1, "a rotation goes on after a restart"

    own = authority.renew_own(by=-1)
    founder.save_certificate(own)
    founder.take_certificate(own, NOW)
    one_ca = authority.finish_rotation()
    assert founder.take_trust(one_ca)
    founder.save_trust()
    authority.forget_old_keys()
    assert not (founder.directory / "ca.next.key").exists()
    assert member.take_trust(one_ca)
    assert sleeper.take_trust(one_ca), "whoever missed the first bundle believes the second, since both CAs signed it"
    with pytest.raises(DeniedError):
        member.verify_peer(sleeper.certificate_der, NOW)
    assert load_identity(state_dir(tmp_path, 0)).authority_der == founder.trust.authorities[0]
    newcomer = enrol(Authority.load(state_dir(tmp_path, 0)), tmp_path / "newcomer")
    assert verify_certificate(newcomer.certificate_der, founder.trust.authorities, NOW).node == newcomer.node


def test_a_crash_between_retiring_a_ca_and_forgetting_its_key_loses_no_key(
    tmp_path: Path, founder: HostIdentity, authority: Authority
) -> None:
    state = state_dir(tmp_path, 0)
    founder.take_trust(authority.begin_rotation())
    own = authority.renew_own(by=-1)
    founder.save_certificate(own)
    founder.take_certificate(own, NOW)
    founder.take_trust(authority.finish_rotation())
    founder.save_trust()
    # Here it crashes; and then the CA is rotated again.
    again = load_identity(state)
    restarted = Authority.load(state, identity=again)
    again.take_trust(restarted.begin_rotation())
    again.save_trust()
    assert Authority.load(state).renew_own() != own


def test_a_key_that_is_missing_is_told(tmp_path: Path, founder: HostIdentity, authority: Authority) -> None:
    founder.take_trust(authority.begin_rotation())
    founder.save_trust()
    (founder.directory / "ca.next.key").unlink()
    with pytest.raises(CorruptError, match="key of a CA"):
        Authority.load(state_dir(tmp_path, 0))


# --- the book of certificates ---


def test_a_line_that_a_crash_has_cut_short_is_dropped(
    tmp_path: Path, authority: Authority, founder: HostIdentity
) -> None:
    enrol(authority, tmp_path / "member")
    path = founder.directory / "certified"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"node": "ab')
    assert len(CertifiedBook(path).all(NOW)) == 2
    assert path.read_bytes() == whole
    assert CertifiedBook(path).all(NOW + 365 * DAY_S) == ()


def test_the_book_does_not_grow_with_every_renewal(tmp_path: Path, founder: HostIdentity) -> None:
    path = tmp_path / "certified"
    book, record = CertifiedBook(path), CertifiedBook(founder.directory / "certified").all(NOW)[0]
    for number in range(CERTIFIED_LINES_SPARE_COUNT + 10):
        book.add(replace(record, expires_at=record.expires_at + number), NOW)
    assert path.read_bytes().count(b"\n") < 20
    assert CertifiedBook(path).all(NOW) == book.all(NOW)


@pytest.mark.parametrize("line", [b"x\n", b"[]\n", b'{"node": 1}\n', b"null\n"])
def test_a_damaged_book_is_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "certified").write_bytes(line)
    with pytest.raises(CorruptError, match="damaged"):
        CertifiedBook(tmp_path / "certified")


# --- publishers elsewhere ---


def test_a_publishers_key_is_made_once_and_stays_where_it_is(tmp_path: Path, authority: Authority) -> None:
    enrol(authority, tmp_path / "member")
    publisher, is_new = make_publisher(tmp_path / "member")
    assert is_new
    assert make_publisher(tmp_path / "member")[0].key == publisher.key
    loaded = load_publisher(tmp_path / "member")
    assert loaded is not None
    assert (tmp_path / "member" / "identity" / "publisher.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(AbsentError):
        make_publisher(tmp_path / "nobody")


def test_names_outside_a_publishers_patterns_are_refused(
    tmp_path: Path, founder: HostIdentity, authority: Authority
) -> None:
    enrol(authority, tmp_path / "member")
    publisher, _ = make_publisher(tmp_path / "member")
    with pytest.raises(DeniedError, match="does not trust"):
        publisher.require_trusted(founder.trust, ("team:1",))
    founder.take_trust(
        authority.seal(lambda bundle: with_publisher(bundle, TrustedPublisher(publisher.key, "team", ("team:*",))))
    )
    publisher.require_trusted(founder.trust, ("team:1",))
    with pytest.raises(DeniedError, match="may not sign"):
        publisher.require_trusted(founder.trust, ("ubuntu:24.04",))


# --- backup ---


def test_a_backup_makes_the_same_founding_host_again(tmp_path: Path, founder: HostIdentity) -> None:
    write_backup(state_dir(tmp_path, 0), tmp_path / "backup", PASSPHRASE)
    data = (tmp_path / "backup").read_bytes()
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE KEY" not in data
    assert (founder.directory / "ca.key").read_bytes() not in data
    restored = restore_backup(tmp_path / "backup", tmp_path / "restored", PASSPHRASE)
    assert (restored.node, restored.trust) == (founder.node, founder.trust)
    assert Authority.load(tmp_path / "restored").certificate == founder.authority_der


def test_what_makes_no_backup_and_restores_none(tmp_path: Path, founder: HostIdentity, authority: Authority) -> None:
    state, file = state_dir(tmp_path, 0), tmp_path / "backup"
    enrol(authority, tmp_path / "member")
    with pytest.raises(DeniedError, match="founding host"):
        write_backup(tmp_path / "member", file, PASSPHRASE)
    with pytest.raises(LocalError, match="characters"):
        write_backup(state, file, "short")
    write_backup(state, file, PASSPHRASE)
    with pytest.raises(LocalError, match="cannot write"):
        write_backup(state, file, PASSPHRASE)
    with pytest.raises(DeniedError, match="passphrase"):
        restore_backup(file, tmp_path / "new", "another passphrase")
    with pytest.raises(LocalError, match="already"):
        restore_backup(file, state, PASSPHRASE)
    data = bytearray(file.read_bytes())
    for at in (20, 40, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(DeniedError):
            restore_backup(tmp_path / "damaged", tmp_path / "new", PASSPHRASE)
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(MalformedError):
        restore_backup(tmp_path / "other", tmp_path / "new", PASSPHRASE)
    assert not (tmp_path / "new").exists()
