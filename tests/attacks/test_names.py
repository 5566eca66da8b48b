"""Names under attack, as TUF tells them: whoever answers for the DHT sends what suits them, in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from enticed.core.host import Host
from enticed.core.vocabulary import Contact
from enticed.engine.driver import Driver
from enticed.engine.names.asking import AloneError
from enticed.engine.names.naming import Naming
from enticed.engine.supply.origin_supply import OriginSupply
from enticed.engine.threads import StoreThreads
from enticed.identity.publisher import Publisher, next_name_record
from enticed.overlay.notary import HostNotary
from enticed.overlay.port import Found, NameOffer, Offer
from enticed.store.store import Store
from protocol.dsse import Quorum, countersign, keys_named
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError, NoSpaceError
from protocol.identifiers import DiscoveryKey, ImageId, NodeId, PublisherKey
from protocol.limits import CLOCK_SKEW_MAX_S, NAME_VERSION_MAX_LEAD
from protocol.names import NameRecord, open_past_name, seal_name
from protocol.trust import ALL_NAMES, TrustBundle, TrustedPublisher
from tests.clusters import make_cluster
from tests.wire.cas import DAY_S, NOW, signing_key

NAME = "debian:12"
OLD, NEW, EVIL = ImageId.of(b"old"), ImageId.of(b"new"), ImageId.of(b"evil")
PUBLISHER, SECOND, THIEF = signing_key("publisher"), signing_key("second"), signing_key("thief")
ME = NodeId(bytes(20))


def key_of(label: str) -> PublisherKey:
    return PublisherKey(signing_key(label).public_key().public_bytes_raw())


TRUSTED = frozenset({key_of("publisher")})


@dataclass
class Replicas:
    """The DHT, all of it the attacker's: it says what it is told to say."""

    say: tuple[bytes, ...] = ()
    answering: int = 8
    asked: list[DiscoveryKey] = field(default_factory=list)
    announced_offers: list[Offer] = field(default_factory=list)
    heard_more: asyncio.Event = field(default_factory=asyncio.Event)

    async def ready(self) -> None: ...

    async def find(self, key: DiscoveryKey) -> Found:
        self.asked.append(key)
        return Found((), self.say, 0, 8, self.answering)

    def announce(self, offer: Offer) -> None:
        self.announced_offers.append(offer)
        self.heard_more.set()

    async def announced(self, key: DiscoveryKey) -> None: ...

    async def withdraw(self, key: DiscoveryKey) -> None: ...

    def spread(self, key: DiscoveryKey, record: bytes) -> None: ...

    def on_spread(self, told: Callable[[bytes], None]) -> None: ...


@dataclass
class Victim:
    """A host that resolves names, whose state outlives it."""

    state_dir: Path
    now: float = float(NOW)
    trusted: frozenset[PublisherKey] = TRUSTED
    threshold: int = 1
    replicas: Replicas = field(default_factory=Replicas)
    node: NodeId = ME
    disowned: str = ""

    @asynccontextmanager
    async def naming(self, publisher: Publisher | None = None) -> AsyncIterator[Naming]:
        """Start it; leaving stops it."""
        clock = lambda: self.now  # noqa: E731
        with Store.open(self.state_dir, None, 0, clock) as store, self._driver() as driver:
            threads, origin = StoreThreads(), OriginSupply(None)
            naming = Naming(driver, store, threads, self.replicas, origin, self, self, None, publisher, clock)
            try:
                yield naming
            finally:
                await naming.close()
                await origin.close()
                await threads.close()

    @property
    def trust(self) -> TrustBundle:
        publishers = tuple(TrustedPublisher(key, key.short, (ALL_NAMES,)) for key in self.trusted)
        return TrustBundle(1, NOW, (), publishers, self.threshold, (), (), ())

    @contextmanager
    def _driver(self) -> Iterator[Driver]:
        driver = Driver(Host(Contact(ME, ()), np.random.default_rng(1)), lambda: self.now)
        try:
            yield driver
        finally:
            driver.close()

    async def resolves(self, *envelopes: bytes, name: str = NAME) -> ImageId:
        """What a name means to it, started anew, when the DHT says this."""
        self.replicas.say = envelopes
        async with self.naming() as naming:
            return await naming.resolve(name)


def signed(version: int, image: ImageId, *, name: str = NAME, since: int = NOW, life_s: int = 30 * DAY_S) -> bytes:
    return seal_name(NameRecord(name, version, image, since, since + life_s), PUBLISHER)


def test_rollback(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path)
        assert await victim.resolves(signed(1, OLD), signed(2, NEW)) == NEW
        # The version is remembered, not the process: each of these is a start of its own.
        assert await victim.resolves(signed(1, OLD)) == NEW
        assert await victim.resolves(signed(1, EVIL, life_s=365 * DAY_S)) == NEW
        assert await victim.resolves() == NEW

    asyncio.run(scenario())


def test_two_meanings_of_one_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path)
        assert await victim.resolves(signed(2, NEW)) == NEW
        assert await victim.resolves(signed(2, EVIL)) == NEW

    asyncio.run(scenario())


def test_freeze(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path)
        frozen = signed(2, OLD, life_s=10 * DAY_S)
        assert await victim.resolves(frozen) == OLD
        victim.now = NOW + 10 * DAY_S
        with pytest.raises(AbsentError, match="expired, and nobody has a newer one"):
            await victim.resolves(frozen)
        # Nor does an older one help that would hold for longer.
        with pytest.raises(AbsentError, match="expired"):
            await victim.resolves(frozen, signed(1, EVIL, life_s=365 * DAY_S))
        assert await victim.resolves(signed(3, NEW, since=NOW + 10 * DAY_S)) == NEW

    asyncio.run(scenario())


def test_mix_and_match(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path)
        other = signed(9, EVIL, name="debian:11")
        with pytest.raises(AbsentError):
            await victim.resolves(other)
        assert await victim.resolves(other, signed(2, NEW)) == NEW
        # It has not been remembered either: not for the name that was asked for, nor for its own.
        async with victim.naming() as naming:
            with pytest.raises(AbsentError):
                naming.known("debian:11")

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [NOW + NAME_VERSION_MAX_LEAD + 1, 2**64 - 1])
def test_fast_forward_far_ahead_cannot_be_signed(version: int) -> None:
    with pytest.raises(LocalError, match="ahead of its time"):
        signed(version, EVIL)


def test_fast_forward_with_a_stolen_key_ends_with_the_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path, trusted=frozenset({key_of("publisher"), key_of("thief")}))
        assert await victim.resolves(signed(5, OLD)) == OLD
        stolen = seal_name(NameRecord(NAME, NOW + NAME_VERSION_MAX_LEAD, EVIL, NOW, NOW + DAY_S), THIEF)
        assert await victim.resolves(stolen) == EVIL  # the key is a publisher's, so far
        victim.trusted = TRUSTED  # a new trust bundle, without it
        assert await victim.resolves(stolen, signed(6, NEW)) == NEW
        assert await victim.resolves(stolen) == NEW
        assert await victim.resolves(signed(5, OLD)) == NEW

    asyncio.run(scenario())


def test_a_publisher_signs_beyond_a_version_that_a_revoked_key_has_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path, trusted=TRUSTED | {key_of("thief")})
        await victim.resolves(seal_name(NameRecord(NAME, NOW + NAME_VERSION_MAX_LEAD, EVIL, NOW, NOW + DAY_S), THIEF))
        victim.trusted = TRUSTED
        publisher = Publisher(key_of("publisher"), PUBLISHER)
        async with victim.naming(publisher) as naming:
            assert await naming.publish(publisher, NAME, NEW) == NOW
        assert await victim.resolves() == NEW

    asyncio.run(scenario())


def test_a_publisher_goes_on_from_the_version_of_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path, trusted=TRUSTED | {key_of("second")})
        assert await victim.resolves(signed(NOW + 7, OLD)) == OLD
        second = Publisher(key_of("second"), SECOND)
        async with victim.naming(second) as naming:
            assert await naming.publish(second, NAME, NEW) == NOW + 8
        assert await victim.resolves(signed(NOW + 7, OLD)) == NEW

    asyncio.run(scenario())


def test_publishing_at_once_gives_each_its_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        publisher = Publisher(key_of("publisher"), PUBLISHER)
        async with Victim(tmp_path).naming(publisher) as naming:
            images = [ImageId.of(bytes([n])) for n in range(8)]
            versions = await asyncio.gather(*(naming.publish(publisher, NAME, image) for image in images))
            assert sorted(versions) == list(range(NOW, NOW + 8))

    asyncio.run(scenario())


def test_a_record_of_a_time_to_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(AbsentError):
            await Victim(tmp_path).resolves(signed(2, EVIL, since=NOW + CLOCK_SKEW_MAX_S + 1))

    asyncio.run(scenario())


def test_what_no_publisher_has_signed(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim, record = Victim(tmp_path), next_name_record(NAME, EVIL, 0, NOW)
        for envelope in (seal_name(record, THIEF), b"", b"\xc1", bytes(1000)):
            with pytest.raises(AbsentError):
                await victim.resolves(envelope)

    asyncio.run(scenario())


def test_every_byte_of_a_record_flipped(tmp_path: Path) -> None:
    async def scenario() -> None:
        good, victim = signed(2, NEW), Victim(tmp_path)
        flipped = tuple(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good)))
        with pytest.raises(AbsentError):
            await victim.resolves(*flipped)
        assert await victim.resolves(*flipped, good) == NEW

    asyncio.run(scenario())


def test_an_image_id_needs_nobodys_word(tmp_path: Path) -> None:
    async def scenario() -> None:
        victim = Victim(tmp_path, now=NOW + 50 * 365 * DAY_S, trusted=frozenset())
        assert await victim.resolves(signed(1, EVIL), name=str(NEW)) == NEW
        assert await victim.resolves(signed(1, EVIL), name=str(NEW).upper()) == NEW
        assert victim.replicas.asked == []

    asyncio.run(scenario())


def test_a_name_that_is_an_image_id_cannot_be_signed() -> None:
    with pytest.raises(EnticedError):
        signed(1, EVIL, name=str(NEW))


# --- where it takes two ---

BOTH = TRUSTED | {key_of("second")}


def test_a_draft_is_no_name(tmp_path: Path) -> None:
    """Whoever says it, and under whichever key: one signature of two is none, for resolvers and replicas."""
    once, twice = signed(2, EVIL), countersign(signed(1, NEW), SECOND)

    async def scenario() -> None:
        victim = Victim(tmp_path, trusted=BOTH, threshold=2)
        for envelope in (once, countersign(once, PUBLISHER), countersign(once, THIEF)):
            with pytest.raises(AbsentError):
                await victim.resolves(envelope)
        assert await victim.resolves(once, twice) == NEW

    asyncio.run(scenario())

    (identity,) = make_cluster(tmp_path / "replica", 1)
    publishers = tuple(TrustedPublisher(key, key.short, (ALL_NAMES,)) for key in BOTH)
    bundle = replace(identity.trust, publishers=publishers, threshold=2)
    identity.sealed_trust = replace(identity.sealed_trust, bundle=bundle)
    notary = HostNotary(identity, ["127.0.0.1:1"], lambda: NOW)
    with pytest.raises(DeniedError, match="1 trusted signatures where 2"):
        notary.check_name(DiscoveryKey.of_name(NAME), once)
    assert notary.check_name(DiscoveryKey.of_name(NAME), twice).version == 1
    draft = notary.check_name(DiscoveryKey.of_draft(NAME), once)
    assert notary.check_name(DiscoveryKey.of_draft(NAME), countersign(once, SECOND)).version > draft.version
    for key, envelope in ((DiscoveryKey.of_draft("debian:11"), once), (DiscoveryKey.of_draft(NAME), b"x")):
        with pytest.raises(EnticedError):
            notary.check_name(key, envelope)
    with pytest.raises(DeniedError):
        notary.check_name(DiscoveryKey.of_draft(NAME), seal_name(NameRecord(NAME, 3, EVIL, NOW, NOW + 9), THIEF))


def test_a_cosigner_signs_again_only_what_it_has_signed(tmp_path: Path) -> None:
    """Whoever has the first publisher's key renews the name for the same image, and gets no other one signed."""

    async def scenario() -> None:
        victim = Victim(tmp_path, trusted=BOTH, threshold=2)
        assert await victim.resolves(countersign(signed(5, NEW), SECOND)) == NEW
        replicas = victim.replicas
        replicas.say = (signed(7, EVIL), signed(6, NEW), signed(8, EVIL, name="debian:11"))
        replicas.announced_offers.clear()
        async with victim.naming(Publisher(key_of("second"), SECOND)) as naming:
            naming.start()
            renewed = DiscoveryKey.of_name(NAME), countersign(signed(6, NEW), SECOND)
            while renewed not in [(one.key, one.record) for one in offers(replicas)]:
                replicas.heard_more.clear()
                await replicas.heard_more.wait()
        signatures = [one.record for one in offers(replicas) if key_of("second") in keys_named(one.record)]
        images = {open_past_name(record, Quorum.any_of(BOTH)).image for record in signatures}
        assert images == {NEW}
        assert await victim.resolves(*signatures, signed(7, EVIL)) == NEW

    asyncio.run(scenario())


@pytest.mark.parametrize("is_heard_of", [True, False])
def test_who_renews_a_name_does_not_undo_what_another_has_signed_since(tmp_path: Path, is_heard_of: bool) -> None:
    """Also where it cannot be asked for in the moment in which the old meaning is signed anew."""

    async def scenario() -> None:
        victim = Victim(tmp_path / "first", trusted=BOTH)
        replicas, publisher = victim.replicas, Publisher(key_of("publisher"), PUBLISHER)
        async with victim.naming(publisher) as naming:
            await naming.publish(publisher, NAME, OLD)
        newer = seal_name(NameRecord(NAME, NOW + DAY_S, NEW, NOW + DAY_S, NOW + 31 * DAY_S), SECOND)
        replicas.say = (newer,) if is_heard_of else ()
        victim.now = NOW + 16 * DAY_S
        first = len(offers(replicas))
        async with victim.naming(publisher) as naming:
            naming.start()
            while len(offers(replicas)) < first + 2:  # what it has, and what it makes of that
                replicas.heard_more.clear()
                await replicas.heard_more.wait()
        renewed = offers(replicas)[-1].record
        assert (renewed == newer) == is_heard_of
        assert open_past_name(renewed, Quorum.any_of(BOTH)).expires_at > NOW + 30 * DAY_S
        other = Victim(tmp_path / "other", now=victim.now, trusted=BOTH)
        assert await other.resolves(renewed, newer) == NEW

    asyncio.run(scenario())


def test_what_is_published_is_newer_than_all_that_is_known(tmp_path: Path) -> None:
    """The clock of who published before may be ahead of this host's."""

    async def scenario() -> None:
        victim, publisher = Victim(tmp_path, trusted=BOTH), Publisher(key_of("publisher"), PUBLISHER)
        ahead = seal_name(NameRecord(NAME, NOW + 200, OLD, NOW + 200, NOW + 30 * DAY_S), SECOND)
        victim.replicas.say = (ahead,)
        async with victim.naming(publisher) as naming:
            assert await naming.publish(publisher, NAME, NEW) == NOW + 201

    asyncio.run(scenario())


def offers(replicas: Replicas) -> list[NameOffer]:
    return [one for one in replicas.announced_offers if isinstance(one, NameOffer)]


@dataclass
class LateReplicas(Replicas):
    """They answer too late the first time, as those do who have to be met anew."""

    async def find(self, key: DiscoveryKey) -> Found:
        found = await super().find(key)
        return found if len(self.asked) > 1 else Found((), (), 0, 8, 0)


def test_one_silence_is_no_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        assert await Victim(tmp_path, replicas=LateReplicas()).resolves(signed(1, NEW)) == NEW

    asyncio.run(scenario())


def test_who_is_answered_by_none_of_those_it_asks_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(AbsentError, match="is known in this cluster"):
            await Victim(tmp_path).resolves()
        victim = Victim(tmp_path, replicas=Replicas(answering=0))
        with pytest.raises(AloneError, match="reaches no other host"):
            await victim.resolves()
        await Victim(tmp_path).resolves(signed(1, NEW))
        assert await victim.resolves() == NEW, "what it knows it says"
        victim.now += 31 * DAY_S
        with pytest.raises(AloneError, match="reaches no other host"):
            await victim.resolves()

    asyncio.run(scenario())


def test_a_full_disk_keeps_no_reader_from_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name was signed anew for the same image, and that cannot be noted."""

    def full(*_: object) -> None:
        raise NoSpaceError("no space left")

    async def scenario() -> None:
        victim = Victim(tmp_path)
        assert await victim.resolves(signed(2, NEW)) == NEW
        victim.replicas.say = (signed(3, NEW),)
        monkeypatch.setattr(Store, "save_name", full)
        async with victim.naming() as naming:
            assert await naming.resolve_lately(NAME) == NEW
            with pytest.raises(NoSpaceError):
                await naming.resolve(NAME)

    asyncio.run(scenario())
