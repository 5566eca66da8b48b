"""Those who were revoked, who make trust bundles up or bring old ones back, who ask for more than is theirs."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from enticed.cli.hosts import _status_lines
from enticed.control.answers import json_of
from enticed.core.dht.events import ProviderOffer
from enticed.engine.trust import standing
from enticed.identity.authority import Authority
from enticed.identity.bundles import with_publisher, with_revoked, with_scheduler, without_scheduler
from enticed.identity.host import HostIdentity, found_cluster, load_identity
from enticed.identity.limits import TRUST_USELESS_MAX_COUNT
from enticed.identity.pem import load_signing_key
from enticed.identity.publisher import make_publisher
from enticed.limits import TRUST_CLAIMS_MAX_COUNT
from enticed.overlay.notary import HostNotary
from enticed.transfer import sessions
from enticed.transfer.errors import DisownedError
from enticed.transfer.ports import DialFailed, Heard, PeerDown
from protocol.codec import pack_record, unpack_record
from protocol.credentials import authority_key, read_certificate, verify_certificate
from protocol.dht import read_endpoint
from protocol.dsse import Envelope
from protocol.enrolment import sign_certificate
from protocol.errors import AbsentError, DeniedError, LocalError
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.messages import (
    ALPN_BULK,
    ALPN_CONTROL,
    BULK,
    CONTROL,
    TRUST,
    BulkHello,
    Goodbye,
    Hello,
    Part,
    PartRequest,
    Refused,
    Renewal,
    RenewalRequest,
    Trust,
)
from protocol.names import NameRecord
from protocol.providers import ProviderState
from protocol.trust import Revocation, SealedTrust, TrustedPublisher, TrustedScheduler, seal_trust
from tests.attacks.members import Member, member
from tests.clusters import make_cluster, state_dir
from tests.engine.swarm import swarm as engines
from tests.gateway.clients import Client, serving
from tests.transfer.hosts import run
from tests.transfer.rogue import Frames, connect, until_closed

KEY = DiscoveryKey.of_image(ImageId(bytes(32)))
DAY_S = 86400


@pytest.fixture
def identities(tmp_path: Path) -> list[HostIdentity]:
    """Of a cluster of this test's own: what is revoked in one is revoked."""
    return make_cluster(tmp_path, 4)


def swarm(identities: list[HostIdentity], tmp_path: Path, work: Callable[..., Awaitable[None]]) -> None:
    """The founding host and others, all of whom know it."""

    async def scenario() -> None:
        async with (
            member(identities[0], state=state_dir(tmp_path, 0)) as founder,
            member(identities[1], founder) as one,
            member(identities[2], founder, one) as two,
        ):
            await work(founder, one, two)

    run(scenario())


def knows(host: Member, gone: Member) -> bool:
    """That the other was revoked."""
    return gone.node in host.identity.trust.revoked_nodes


def is_level(host: Member, other: Member) -> bool:
    return host.identity.trust.serial == other.identity.trust.serial


# --- revoked ---


def test_a_revoked_host_has_no_session_no_record_and_no_renewal(identities: list[HostIdentity], tmp_path: Path) -> None:
    async def work(founder: Member, honest: Member, gone: Member) -> None:
        await founder.meet(gone)
        await honest.meet(gone)
        gone.overlay.announce(ProviderOffer(KEY, ProviderState.WHOLE))
        await gone.overlay.announced(KEY)
        assert [one.node for one in (await honest.overlay.find(KEY)).providers] == [gone.node]
        await honest.meet(founder)

        await founder.desk.revoke(gone.node.hex())
        for one in (founder, honest):
            await one.until(partial(knows, one, gone))
            await one.told.wait(PeerDown, gone.node)

        assert (await honest.overlay.find(KEY)).providers == ()
        gone.network.dial(honest.node, honest.network.listening)
        assert isinstance((await gone.told.wait(DialFailed, honest.node)).why, Exception)
        with pytest.raises(DeniedError, match="revoked"):
            HostNotary(honest.identity, ["127.0.0.1:1"], time.time).check_provider(
                HostNotary(gone.identity, ["127.0.0.1:1"], time.time).sign(KEY, ProviderState.WHOLE)
            )
        assert gone.node not in [peer.node for peer in founder.network.peers()]

    swarm(identities, tmp_path, work)


def test_a_revoked_host_that_was_idle_hears_so_from_whom_it_dials(
    identities: list[HostIdentity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(founder: Member, honest: Member, gone: Member) -> None:
        await founder.meet(honest)
        await founder.desk.revoke(gone.node.hex())
        await honest.until(partial(knows, honest, gone))
        gone.network.dial(honest.node, honest.network.listening)
        assert isinstance((await gone.told.wait(DialFailed, honest.node)).why, DisownedError)
        assert list(gone.network.disowned_by) == [honest.node]
        await gone.network.greet(founder.network.listening[0])
        assert list(gone.network.disowned_by) == [honest.node, founder.node], "and whoever else it asks"
        assert gone.node not in gone.identity.trust.revoked_nodes, "it is no proof"
        with monkeypatch.context() as patched:
            patched.setattr(sessions, "OUTCASTS_TOLD_MAX_COUNT", 0)
            await gone.network.greet(founder.network.listening[0])
            refused = await gone.told.wait(DialFailed, founder.node, count=2)
        assert not isinstance(refused.why, DisownedError), "one too many"
        assert {peer.node for peer in founder.network.peers()} == {honest.node}

    swarm(identities, tmp_path, work)


def test_a_revoked_host_that_nobody_answers_asks_why_by_itself(
    identities: list[HostIdentity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(founder: Member, honest: Member, gone: Member) -> None:
        monkeypatch.setattr(standing, "STANDING_ASKED_FIRST_S", 0.05)
        asks = standing.Standing(gone.network, gone.overlay)
        asks.start()
        try:
            await founder.meet(honest)
            await founder.desk.revoke(gone.node.hex())
            await honest.until(partial(knows, honest, gone))
            while gone.overlay.contacts:
                assert not asks.disowned, "others are known: it takes them for well"
                await gone.overlay.find(KEY)
            await gone.until(lambda: len(gone.network.disowned_by) == 2)
            assert "(and 1 more) says that this host was revoked" in asks.disowned
        finally:
            await asks.close()

    swarm(identities, tmp_path, work)


def test_a_revoked_host_that_knows_says_so_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engines(tmp_path, 2) as (founder, gone):
            assert not gone.status().revoked
            authority = Authority.load(state_dir(tmp_path, 0))
            revoked = (Revocation(gone.status().node, int(time.time()) + DAY_S),)
            assert gone.parts.identity.take_trust(authority.seal(lambda one: with_revoked(one, revoked, time.time())))
            first = next(iter(_status_lines(json_of(gone.status()) | {"may_change": True})))
            assert first.startswith("REVOKED")
            assert next(iter(_status_lines(json_of(founder.status()) | {"may_change": True}))).startswith("enticed")

    run(scenario())


def test_it_is_not_believed_in_datagrams(identities: list[HostIdentity], tmp_path: Path) -> None:
    async def work(founder: Member, honest: Member, gone: Member) -> None:
        await gone.overlay.find(KEY)
        contacts = founder.overlay.contacts
        await founder.desk.revoke(gone.node.hex())
        assert founder.overlay.contacts == contacts - 1
        await founder.meet(honest)
        await honest.until(lambda: gone.node in honest.identity.trust.revoked_nodes)
        gone.overlay.say_trust_serial(8)  # is met anew, if anybody would
        await gone.overlay.find(KEY)  # asks all, and gives up on each
        assert founder.overlay.contacts == contacts - 1

    swarm(identities, tmp_path, work)


def test_what_it_said_of_the_trust_bundle_is_told_with_its_name_and_forgotten(
    identities: list[HostIdentity], tmp_path: Path
) -> None:
    async def work(founder: Member, honest: Member, liar: Member) -> None:
        def says(node: NodeId, serial: int) -> None:
            founder.overlay._trust_serial_of(node, read_endpoint("127.0.0.1:1"), serial)

        newer = founder.identity.trust.serial + DAY_S
        says(liar.node, 2**63)
        says(honest.node, newer)
        assert list(founder.overlay.newer_trust) == [(newer, honest.node), (2**63, liar.node)], (
            "neither hides the other"
        )
        for number in range(2 * TRUST_CLAIMS_MAX_COUNT):
            says(NodeId(bytes([number]) * NodeId.size_bytes), 2**63 + number)
        assert len(founder.overlay.newer_trust) == TRUST_CLAIMS_MAX_COUNT
        assert founder.overlay.newer_trust[0] == (newer, honest.node), "nor do many"
        await founder.desk.revoke(liar.node.hex())
        assert liar.node not in [node for _, node in founder.overlay.newer_trust]
        says(honest.node, founder.identity.trust.serial)
        assert honest.node not in [node for _, node in founder.overlay.newer_trust], "it is level by now"

    swarm(identities, tmp_path, work)


# --- bundles ---


def talk(identity: HostIdentity, address: str, *messages: object, answers: int = 0) -> list[object]:
    """As a member, on a session of its own: say these, and hear so many answers; or be hung up on."""
    with connect(identity, address, ALPN_CONTROL) as sock:
        frames = Frames(sock, CONTROL)
        frames.send(Hello(1, 1, (TRUST,), identity.trust.serial, ()))
        assert isinstance(frames.receive(), Hello)
        for message in messages:
            frames.send(message)
        heard = [frames.receive() for _ in range(answers)]
        if not answers:
            until_closed(sock)
        return heard


def test_a_member_that_makes_up_a_bundle_is_hung_up_on(identities: list[HostIdentity], tmp_path: Path) -> None:
    rogue, victim = identities[3], identities[1]
    before = victim.trust
    forged = replace(before, serial=before.serial + 1, registrars=(rogue.node,))

    async def scenario() -> None:
        async with member(victim) as host:
            for sealed in (seal_trust(forged, rogue.node_private), b"x", b"\0" * 60_000):
                await asyncio.to_thread(talk, rogue, host.network.listening[0], Trust(sealed))
            assert host.identity.trust == before

    run(scenario())


def test_a_rolled_back_bundle_is_not_taken(identities: list[HostIdentity], tmp_path: Path) -> None:
    """Nor is it by a host that was restarted since: the newest is on its disk."""
    founder, victim, rogue = identities[0], identities[1], identities[3]
    authority = Authority.load(state_dir(tmp_path, 0), identity=founder)
    old = authority.trust
    gone = (Revocation(rogue.node, int(time.time()) + DAY_S),)
    new = authority.seal(lambda bundle: with_revoked(bundle, gone, time.time()))

    async def scenario() -> None:
        async with member(victim) as host:
            address = host.network.listening[0]
            await asyncio.to_thread(talk, identities[2], address, Trust(new), Trust(old), RenewalRequest(), answers=1)
            assert rogue.node in victim.trust.revoked_nodes

    run(scenario())
    again = load_identity(state_dir(tmp_path, 1))
    assert rogue.node in again.trust.revoked_nodes
    assert not again.take_trust(old)


def test_a_bundle_without_the_signature_of_a_ca_that_it_names_is_not_taken(
    identities: list[HostIdentity], tmp_path: Path
) -> None:
    """It could not be read at the next start, and the whole one, of the same serial, would be no news."""
    founder, victim, rogue = identities[:3]
    authority = Authority.load(state_dir(tmp_path, 0), identity=founder)
    both = authority.begin_rotation()
    for one in (founder, victim, rogue):
        one.take_trust(both)
        one.save_trust()
    for one in (victim, rogue):
        renewed = authority.renew(one.credential)
        one.save_certificate(renewed)
        one.take_certificate(renewed, time.time())
    whole, (retired, _) = authority.finish_rotation(), victim.trust.authorities
    envelope = unpack_record(Envelope, whole)
    left = tuple(one for one in envelope.signatures if one.key == authority_key(retired))
    stripped = pack_record(replace(envelope, signatures=left))

    async def scenario() -> None:
        async with member(victim) as host:
            await asyncio.to_thread(talk, rogue, host.network.listening[0], Trust(stripped))
            assert victim.trust.authorities != founder.trust.authorities[-1:]
            await asyncio.to_thread(talk, rogue, host.network.listening[0], Trust(whole), RenewalRequest(), answers=1)
            assert victim.trust.authorities == founder.trust.authorities[-1:]

    run(scenario())
    assert load_identity(state_dir(tmp_path, 1)).trust.authorities == founder.trust.authorities[-1:]


def test_bundles_that_are_no_news_are_not_looked_at_for_ever(
    identities: list[HostIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when who says them comes back."""
    victim, rogue = identities[1], identities[3]
    looked_at, look = list[bytes](), HostIdentity.newer_trust

    def look_and_count(identity: HostIdentity, sealed: bytes) -> SealedTrust | None:
        looked_at.append(sealed)
        return look(identity, sealed)

    monkeypatch.setattr(HostIdentity, "newer_trust", look_and_count)
    known = Trust(victim.sealed_trust.sealed)

    async def scenario() -> None:
        async with member(victim) as host:
            for messages in ([known] * 40, [known]):
                await asyncio.to_thread(talk, rogue, host.network.listening[0], *messages)
                assert len(looked_at) == TRUST_USELESS_MAX_COUNT

    run(scenario())


def test_a_newer_bundle_comes_to_hosts_without_a_session(identities: list[HostIdentity], tmp_path: Path) -> None:
    async def work(founder: Member, one: Member, two: Member) -> None:
        for host in (founder, one, two):
            await host.overlay.find(KEY)  # they have met, in datagrams
        await founder.desk.grant_token("nova", None, 5, 7, DAY_S)
        for host in (one, two):
            await host.until(partial(is_level, host, founder))
            said = host.identity.trust.scheduler("nova")
            assert said is not None
            assert (said.orders, said.max_bytes) == (5, 7)

    swarm(identities, tmp_path, work)


# --- renewal ---


def test_a_renewal_is_of_the_host_that_asks_and_no_other(identities: list[HostIdentity], tmp_path: Path) -> None:
    rogue = identities[3]

    async def scenario() -> None:
        async with member(identities[0], state=state_dir(tmp_path, 0)) as founder:
            (answer,) = await asyncio.to_thread(talk, rogue, founder.network.listening[0], RenewalRequest(), answers=1)
            assert isinstance(answer, Renewal)
            assert answer.certificate is not None
            said = read_certificate(answer.certificate)
            own = rogue.credential
            assert said == replace(own, not_before=said.not_before, not_after=said.not_after)
            (again,) = await asyncio.to_thread(talk, rogue, founder.network.listening[0], RenewalRequest(), answers=1)
            assert isinstance(again, Renewal)
            assert again.certificate is None

    run(scenario())


def test_a_member_that_is_no_registrar_certifies_nobody(
    identities: list[HostIdentity], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    victim, rogue = identities[1], identities[3]

    async def scenario() -> None:
        async with member(victim) as host:
            before = host.identity.certificate_der
            address = host.network.listening[0]
            unasked = Renewal(rogue.certificate_der, "")
            (answer,) = await asyncio.to_thread(talk, rogue, address, unasked, RenewalRequest(), answers=1)
            assert answer == Renewal(None, "this host is no registrar")
            assert host.identity.certificate_der == before
            assert host.told.of(Heard, rogue.node)
            for _ in range(3):
                await asyncio.to_thread(talk, rogue, address, RenewalRequest(), answers=1)
            assert caplog.text.count("its certificate is not renewed") == 1, "it does not fill the log"

    run(scenario())


def test_a_certificate_past_half_of_its_life_is_renewed_by_itself(tmp_path: Path) -> None:
    """Twenty days after it was made, a host is started: it asks the founding host, and has another thirty."""
    identities = make_cluster(tmp_path, 2, clock=lambda: time.time() - 20 * DAY_S)

    async def scenario() -> None:
        async with member(identities[0], state=state_dir(tmp_path, 0)) as founder:
            before = identities[1].credential
            async with member(identities[1], founder) as host:
                await host.until(lambda: host.identity.credential.not_after > before.not_after + 19 * DAY_S)
                assert host.node == before.node
            await founder.until(lambda: founder.identity.credential.not_after > before.not_after + 19 * DAY_S)

    run(scenario())


def test_the_ca_is_down_and_nothing_is_lost_by_it(tmp_path: Path) -> None:
    identities = make_cluster(tmp_path, 2, clock=lambda: time.time() - 29 * DAY_S)

    async def scenario() -> None:
        async with member(identities[1]) as host:
            with pytest.raises(AbsentError):
                await host.desk.renewing.renew()
            async with member(identities[0]) as other:
                await host.meet(other)

    run(scenario())


def has_certificate_by(host: Member, authority: bytes) -> bool:
    try:
        verify_certificate(host.identity.certificate_der, (authority,), time.time())
    except DeniedError:
        return False
    return True


def test_a_ca_is_rotated_to_its_end_while_hosts_run(identities: list[HostIdentity], tmp_path: Path) -> None:
    """Whoever has the old CA's key has nothing any more, once it is retired."""

    async def work(founder: Member, one: Member, two: Member) -> None:
        old, lost = founder.identity.trust.authorities[0], load_signing_key(founder.identity.directory / "ca.key")
        await founder.desk.rotate_authority(finish=False, force=False)
        newest = founder.identity.trust.authorities[-1]
        with pytest.raises(LocalError, match="cut off"):
            await founder.desk.rotate_authority(finish=True, force=False)
        for host in (one, two):
            await host.until(partial(has_certificate_by, host, newest))
        await founder.desk.revoke(identities[3].node.hex())  # it is down, and has no new certificate
        await founder.desk.rotate_authority(finish=True, force=False)
        assert has_certificate_by(founder, newest)
        for host in (one, two):
            await host.until(partial(is_level, host, founder))
            assert host.identity.trust.authorities == (newest,)
        await two.until(lambda: one.node not in [peer.node for peer in two.network.peers()])
        two.network.dial(one.node, one.network.listening)
        await two.until(lambda: one.node in [peer.node for peer in two.network.peers()])

        forged = sign_certificate(lost, old, identities[3].credential, 7)
        with pytest.raises(DeniedError):
            one.identity.verify_peer(forged, time.time())
        with pytest.raises(DeniedError):
            one.identity.take_trust(seal_trust(replace(one.identity.trust, serial=2**63), lost))

    swarm(identities, tmp_path, work)


def test_who_was_certified_by_a_retired_ca_keeps_no_connection(identities: list[HostIdentity], tmp_path: Path) -> None:
    """Nor without a session: connections for bytes alone, and one on which no hello was said yet."""
    founder, victim, rogue = identities[:3]
    authority = Authority.load(state_dir(tmp_path, 0), identity=founder)
    both = authority.begin_rotation()
    for one in (founder, victim, rogue):
        one.take_trust(both)
    renewed = authority.renew(victim.credential)
    victim.save_certificate(renewed)
    victim.take_certificate(renewed, time.time())

    def read_on(frames: Frames) -> None:
        """As busy as can be, so that it is not for want of requests that the connection ends, if it does."""
        until_s = time.monotonic() + 3
        while time.monotonic() < until_s:
            frames.send(PartRequest(ImageId(bytes(32)), Part.ROOT, 0, 1))
            assert isinstance(frames.receive(), Refused)
            reading.set()

    async def scenario() -> None:
        async with member(victim) as host:
            address = host.network.listening[0]
            with (
                await asyncio.to_thread(connect, rogue, address, ALPN_BULK) as bulk,
                await asyncio.to_thread(connect, rogue, address, ALPN_CONTROL) as control,
            ):
                quiet, busy = Frames(control, CONTROL), Frames(bulk, BULK)
                assert isinstance(await asyncio.to_thread(quiet.receive), Hello)
                busy.send(BulkHello(1, ()))
                read = asyncio.create_task(asyncio.to_thread(read_on, busy))
                await asyncio.to_thread(reading.wait)
                victim.take_trust(authority.finish_rotation())
                with pytest.raises(OSError):
                    await read
                assert await asyncio.to_thread(quiet.receive) == Goodbye("a CA was retired: meet again")

    reading = threading.Event()
    run(scenario())


# --- publishers and schedulers ---


def test_a_name_outside_a_publishers_patterns_is_kept_by_nobody(identities: list[HostIdentity], tmp_path: Path) -> None:
    founder, other = identities[0], identities[1]
    authority = Authority.load(state_dir(tmp_path, 0), identity=founder)
    publisher, _ = make_publisher(state_dir(tmp_path, 1))
    team = TrustedPublisher(publisher.key, "team", ("team:*",))
    other.take_trust(authority.seal(lambda bundle: with_publisher(bundle, team)))
    notary, now = HostNotary(other, ["127.0.0.1:1"], time.time), int(time.time())

    def signed(name: str) -> bytes:
        return publisher.sign_name(NameRecord(name, 1, ImageId(bytes(32)), now, now + 100))

    assert notary.check_name(DiscoveryKey.of_name("team:1"), signed("team:1")).version == 1
    for name in ("ubuntu:24.04", "team", "sha256:" + "0" * 64):
        with pytest.raises(DeniedError):
            notary.check_name(DiscoveryKey.of_name(name), signed(name))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def schedulers(tmp_path: Path, work: Callable[..., Awaitable[None]]) -> None:
    founder = found_cluster(tmp_path / "founder", "", "", time.time(), serves_at=ip_address("127.0.0.1"))
    authority = Authority.load(tmp_path / "founder", identity=founder)

    async def scenario() -> None:
        async with serving(founder, tmp_path, stranger=None) as clients:
            await work(founder, authority, clients["stranger"])

    run(scenario())


TOKEN = "ENS1." + "a" * 43


def test_a_schedulers_token_and_what_is_none(tmp_path: Path) -> None:
    async def work(founder: HostIdentity, authority: Authority, client: Client) -> None:
        hashed, now = hashlib.sha256(TOKEN.encode()).digest(), time.time()
        nova = TrustedScheduler("nova", 5, hashed, int(now) + 60)
        late = TrustedScheduler("late", 5, hashlib.sha256(b"late").digest(), int(now) - 1)
        quota = TrustedScheduler("quota", 5, None, int(now) + 60)
        for one in (nova, late, quota):
            founder.take_trust(authority.seal(partial(with_scheduler, scheduler=one, now=now - 10)))
        assert (await client.ask("GET", "/v1/orders", headers=bearer(TOKEN)))[0] == 200
        for wrong in ("", "late", TOKEN[:-1], TOKEN + "a", hashed.hex()):
            status, _ = await client.ask("GET", "/v1/orders", headers=bearer(wrong))
            assert status == 403, wrong
        for header in (f"Basic {TOKEN}", TOKEN, f"bearer{TOKEN}"):
            status, _ = await client.ask("GET", "/v1/orders", headers={"Authorization": header})
            assert status == 403
        assert TOKEN.encode() not in founder.sealed_trust.sealed

    schedulers(tmp_path, work)


def test_a_token_that_was_taken_back(tmp_path: Path) -> None:
    async def work(founder: HostIdentity, authority: Authority, client: Client) -> None:
        hashed, now = hashlib.sha256(TOKEN.encode()).digest(), time.time()
        nova = TrustedScheduler("nova", 5, hashed, int(now) + 60)
        founder.take_trust(authority.seal(lambda bundle: with_scheduler(bundle, nova, now)))
        assert (await client.ask("GET", "/v1/orders", headers=bearer(TOKEN)))[0] == 200
        founder.take_trust(authority.seal(lambda bundle: without_scheduler(bundle, "nova")))
        assert (await client.ask("GET", "/v1/orders", headers=bearer(TOKEN)))[0] == 403

    schedulers(tmp_path, work)
