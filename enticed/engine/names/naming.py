"""Naming: from what a person types to an ImageId, and a publisher's names kept alive.

The highest version of a name ever seen here is remembered, so that nobody can bring an older one back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.dht.events import NameOffer
from enticed.engine.driver import Driver
from enticed.engine.names.asking import AloneError, Asking, Member, Repute, failure_to_resolve
from enticed.engine.names.drafts import Drafts
from enticed.engine.supply.discovery import told_others
from enticed.engine.supply.origin_supply import OriginSupply
from enticed.engine.threads import StoreThreads
from enticed.identity.authority import Authority
from enticed.identity.publisher import Publisher, next_name_record, renewed_name_record
from enticed.limits import NAME_FRESH_S, NAME_LOOKUP_TIMEOUT_S, NAMES_RENEWAL_CHECK_S
from enticed.overlay.port import Overlay
from enticed.store.files import DiskError
from enticed.store.images import StoredImage
from enticed.store.names import SavedName, TooManyNamesError
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.dsse import Quorum, keys_named
from protocol.errors import AbsentError, DeniedError, EnticedError, ExhaustedError, LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, ImageId, PublisherKey
from protocol.names import NameRecord, is_image_id, open_name, open_past_name, parse_name, renewal_due
from protocol.trust import TrustBundle

log = logging.getLogger(__name__)


class Naming:
    """authority: the CA, on the founding host."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        overlay: Overlay,
        origin: OriginSupply,
        member: Member,
        repute: Repute,
        authority: Authority | None,
        publisher: Publisher | None,
        clock: Callable[[], float],
    ) -> None:
        self._member = member
        self.drafts = Drafts(store, threads, overlay, self._trust, clock)
        self._driver = driver
        self._store = store
        self._threads = threads
        self._overlay = overlay
        self._origin = origin
        self._asking = Asking(overlay, member, repute, is_founder=authority is not None)
        self._publisher = publisher
        self._clock = clock
        self._tasks = Tasks()
        self._signing = asyncio.Lock()
        """A version is given once, whoever publishes or renews at the same time."""
        self._hurry = asyncio.Event()
        self._looked_up_at: dict[str, float] = {}
        """When others were last asked for names that are known here."""
        driver.carry(ef.ResolveTarget, self._start_resolve)

    def _trust(self) -> TrustBundle:
        return self._member.trust

    def start(self) -> None:
        """On the publishing host, announce its names and sign them anew from half of their life."""
        if self._publisher is not None:
            self._tasks.spawn(self._keep_alive(self._publisher), "names")

    async def close(self) -> None:
        await self._tasks.close()

    def trust_changed(self) -> None:
        """More may have to sign by now, or fewer: look at this publisher's names."""
        self._hurry.set()

    # --- from targets to images ---

    async def resolve(self, target: str, *, origin: bool = True) -> ImageId:
        """The image that a name (or an id) means now: the newest record that a trusted publisher has signed.

        origin: whether the origin may be asked where no host knows the name. `LocalError` for what can be no name,
        `AbsentError` where nobody knows it, `AloneError` or `DeniedError` where that cannot be known, `ExhaustedError`
        and `DiskError` where it cannot be remembered.
        """
        if is_image_id(target):
            return ImageId.from_hex(target)
        newest = await self._look_up(self.checked(target), origin=origin)
        await self._save(newest)
        self._looked_up_at[newest.name] = self._clock()
        return newest.image

    async def _look_up(self, name: str, *, origin: bool) -> SavedName:
        found = await self._asking.ask(name)
        newest, trouble = self._newest(name, self._standing(name), found.names), ""
        if origin and self._origin.is_there and not found.names:
            try:
                newest = self._newest(name, newest, (await self._origin.name(name),))
            except EnticedError as error:
                trouble = f"; {error}"
        if newest is None or newest.expires_at <= self._clock():
            self._asking.check(name, found, trouble)
        if newest is None:
            raise AbsentError(f"no name {name!r} is known in this cluster{trouble}{_id_hint(name)}")
        if newest.expires_at <= self._clock():
            raise AbsentError(f"the last record of name {name!r} has expired, and nobody has a newer one{trouble}")
        return newest

    async def resolve_lately(self, target: str) -> ImageId:
        """As `resolve`, for who asks again and again: a name that is known here is looked up every few seconds only,
        and where no answer comes soon, or it cannot be remembered, what is known counts."""
        if is_image_id(target):
            return ImageId.from_hex(target)
        name, now = self.checked(target), self._clock()
        known = self._standing(name)
        if known is None or known.expires_at <= now:
            return await self.resolve(name)
        if now >= self._looked_up_at.get(name, 0.0) + NAME_FRESH_S:
            try:
                async with asyncio.timeout(NAME_LOOKUP_TIMEOUT_S):
                    return await self.resolve(name)
            except (TimeoutError, DiskError, ExhaustedError):
                self._looked_up_at[name] = self._clock()
        return known.image

    def _newest(self, name: str, newest: SavedName | None, envelopes: tuple[bytes, ...]) -> SavedName | None:
        """`newest`, or what of these is newer and signed by a trusted publisher."""
        trust = self._trust()
        for envelope in envelopes:
            try:
                record = open_name(envelope, trust.quorum_of(name), self._clock())
            except (DeniedError, MalformedError):
                continue
            if record.name == name and (newest is None or record.version > newest.version):
                newest = SavedName(name, record.version, record.image, record.expires_at, envelope)
        return newest

    def known(self, target: str) -> ImageId:
        """As `resolve`, from what this host knows already."""
        if is_image_id(target):
            return ImageId.from_hex(target)
        saved = self._seen(self.checked(target))
        if saved is None:
            raise AbsentError(f"no name {target!r} is known on this host{_id_hint(target)}")
        return saved.image

    async def stored(self, target: str) -> StoredImage:
        """The image in this host's store that a target means, `AbsentError` where there is none."""
        image = await self.meant_here(target, self._is_stored)
        if not self._is_stored(image):
            raise AbsentError(f"image {target} is not in this host's store")
        return self._store.image(image)

    async def meant_here(self, target: str, is_here: Callable[[ImageId], bool]) -> ImageId:
        """What a target means on this host: what its name means now, if that is here, else what this host knows it to
        mean. `AbsentError` where nobody knows it.

        What other hosts order comes by its id alone, so its name may be news to this one.
        """
        if is_image_id(target):
            return ImageId.from_hex(target)
        name = self.checked(target)
        try:
            async with asyncio.timeout(NAME_LOOKUP_TIMEOUT_S):
                newest = await self._look_up(name, origin=False)
        except (AbsentError, AloneError, DeniedError, TimeoutError):
            return self.known(target)
        if self._is_stored(newest.image):
            with suppress(EnticedError):  # only so that it is shown by its name from now on
                await self._save(newest)
        elif self._seen(name) is not None and not is_here(newest.image):
            return self.known(target)
        return newest.image

    def _is_stored(self, image: ImageId) -> bool:
        return any(stored.image == image for stored in self._store.images())

    def records_of(self, image: ImageId) -> tuple[SavedName, ...]:
        """What has been signed for the image, and still holds."""
        now = self._clock()
        return tuple(saved for saved in self._store.names() if saved.image == image and saved.expires_at > now)

    def names_of(self, image: ImageId) -> tuple[str, ...]:
        return tuple(sorted(saved.name for saved in self._store.names() if saved.image == image))

    def checked_target(self, target: str) -> None:
        """`LocalError` for what is neither an image id nor a name."""
        if not is_image_id(target):
            self.checked(target)

    @staticmethod
    def checked(name: str) -> str:
        """The name, if it is one; `LocalError` otherwise."""
        try:
            return parse_name(name)
        except MalformedError as error:
            raise LocalError(f"{name!r} is no name: {error}") from error

    async def _save(self, saved: SavedName) -> None:
        seen = self._seen(saved.name)
        void = seen if seen is not None and not self._stands(seen) else None
        what = (saved.name, saved.version, saved.image, saved.expires_at, saved.envelope)
        await self._threads.run(self._store.save_name, *what, void)

    def _seen(self, name: str) -> SavedName | None:
        try:
            return self._store.name(name)
        except AbsentError:
            return None

    def _stands(self, saved: SavedName) -> bool:
        """Whether as many as must have signed it, and are trusted by now, expired or not. If not, its version counts
        for nothing: who had signed it may have used a stolen key, and chosen one that no honest one could follow."""
        return self._record(self._trust().quorum_of(saved.name), saved) is not None

    def _standing(self, name: str) -> SavedName | None:
        """The highest version of a name ever seen here, of those that stand."""
        seen = self._seen(name)
        return seen if seen is not None and self._stands(seen) else None

    def _start_resolve(self, effect: ef.ResolveTarget) -> None:
        self._tasks.spawn(self._resolve_for_order(effect), f"resolve {effect.target}")

    async def _resolve_for_order(self, effect: ef.ResolveTarget) -> None:
        try:
            image = await self.resolve(effect.target, origin=effect.origin)
        except EnticedError as error:
            for_good = isinstance(error, TooManyNamesError)
            failure = failure_to_resolve(error)
            self._driver.tell(ev.TargetUnresolved(effect.key, effect.target, failure, str(error), for_good))
        else:
            self._driver.tell(ev.TargetResolved(effect.key, effect.target, image))

    # --- a publisher's names ---

    @property
    def signatures_needed(self) -> int:
        return self._trust().threshold

    def require_publisher(self, publisher: Publisher, name: str) -> None:
        """`DeniedError` where nobody would believe the name, signed by this publisher."""
        publisher.require_trusted(self._trust(), (name,))

    def may_publish(self, publisher: Publisher, name: str) -> bool:
        return publisher.key in dict(self._trust().quorum_of(name).holders)

    async def publish(self, publisher: Publisher, name: str, image: ImageId) -> int:
        """Sign that `name` means `image` from now on, remember it and tell others; the record's version.

        Where several have to sign, it is a draft until they have.
        """
        if len(self._trust().quorum_of(name).holders) > 1:  # another's clock, and so its version, may be ahead of ours
            await self._look_for(name)
        saved = await self._sign(publisher, name, image)
        await self._tell_others(name)
        return saved.version

    async def _tell_others(self, name: str) -> None:
        is_draft = self.signatures_needed > 1
        await told_others(self._overlay, DiscoveryKey.of_draft(name) if is_draft else DiscoveryKey.of_name(name))

    async def cosign(self, publisher: Publisher, draft: SavedName) -> SavedName:
        """Sign somebody's draft too, and tell others: with the last signature that it takes it is a name.

        `DeniedError` for a version that an honest one was ahead of, `LocalError` where there is no room for another.
        """
        signed = self.drafts.signed(draft, publisher)
        if await self.take(signed.envelope):
            await told_others(self._overlay, DiscoveryKey.of_name(draft.name))
        else:
            await self.drafts.keep(signed)
            await told_others(self._overlay, DiscoveryKey.of_draft(draft.name))
        return signed

    async def take_drawn_up(self, envelope: bytes) -> bool:
        """As `take`, of a name that waits here for signatures: nobody else's is remembered and announced for them."""
        waits = self.drafts.of(open_past_name(envelope, self._trust().one_of()).name) is not None
        return waits and await self.take(envelope)

    async def take(self, envelope: bytes) -> bool:
        """Remember and announce a name that came from others; False where too few have signed it, or it is no news."""
        name = open_past_name(envelope, self._trust().one_of()).name
        newest = self._newest(name, standing := self._standing(name), (envelope,))
        if newest is None or newest == standing:
            return False
        await self._save(newest)
        self._announce(newest)
        return True

    async def sign_anew(self, publisher: Publisher, old: PublisherKey) -> None:
        """Sign again what another key has signed, for the publisher's own."""
        for saved in self._store.names():
            if self._record(Quorum.any_of((old,)), saved) is None:
                continue
            if keys_named(saved.envelope)[0] == old:
                await self._sign(publisher, saved.name, saved.image, renews=saved)
            else:  # drawn up by another publisher: the same words, with the new signature
                anew = replace(saved, envelope=publisher.countersign(saved.envelope, instead_of=old))
                await self._save(anew)
                self._announce(anew)

    async def _sign(
        self, publisher: Publisher, name: str, image: ImageId, *, renews: SavedName | None = None
    ) -> SavedName:
        """renews: what is signed again, and means no more than before; else it takes the place of all before it."""
        async with self._signing:
            before = [saved.version for saved in (self._standing(name), renews) if saved is not None]
            last = max(self.drafts.last_version(name), *before, 0)
            next_record = next_name_record if renews is None else renewed_name_record
            record = next_record(name, image, last, self._clock())
            saved = SavedName(name, record.version, image, record.expires_at, publisher.sign_name(record))
            if self.signatures_needed > 1:
                await self.drafts.keep(saved)
                return saved
            await self._save(saved)
        self._announce(saved)
        return saved

    @staticmethod
    def _record(quorum: Quorum, saved: SavedName | None) -> NameRecord | None:
        if saved is None:
            return None
        try:
            return open_past_name(saved.envelope, quorum)
        except (DeniedError, MalformedError):
            return None

    async def _keep_alive(self, publisher: Publisher) -> None:
        for saved in self._store.names():
            if self._record(Quorum.any_of((publisher.key,)), saved) is not None:
                self._announce(saved)
        for draft in self.drafts.pending():
            self.drafts.announce(draft)
        while True:
            self._hurry.clear()
            for draft in self.drafts.pending():
                if keys_named(draft.envelope)[0] == publisher.key:
                    await self._look_for(draft.name)
            for saved in self._store.names():
                record = self._record(Quorum.any_of((publisher.key,)), saved)
                if record is None or not self.may_publish(publisher, saved.name):
                    continue
                try:
                    await self._keep_name(publisher, saved, record)
                except EnticedError as error:  # a full disk, say: there is half a lifetime to try again in
                    log.warning("name %s cannot be signed anew: %s", saved.name, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(NAMES_RENEWAL_CHECK_S):
                    await self._hurry.wait()

    async def _keep_name(self, publisher: Publisher, saved: SavedName, record: NameRecord) -> None:
        """Renew what this publisher has drawn up; sign again what it has cosigned, once that is renewed."""
        if keys_named(saved.envelope)[0] != publisher.key:
            draft = await self.drafts.find(saved.name, saved.image)
            if draft is not None and draft.version > saved.version and publisher.key not in keys_named(draft.envelope):
                log.info("signing name %s again", saved.name)
                await self.cosign(publisher, draft)
            return
        drawn_up = self.drafts.of(saved.name)
        if drawn_up is not None and drawn_up.image == saved.image:
            return
        if renewal_due(record, self._clock()) or not self._stands(saved):
            await self._renew(publisher, saved)

    async def _renew(self, publisher: Publisher, saved: SavedName) -> None:
        """For another lifetime, unless the name means something else by now."""
        await self._overlay.ready()
        await self._look_for(saved.name)
        if self._seen(saved.name) == saved:
            log.info("signing name %s anew", saved.name)
            await self._sign(publisher, saved.name, saved.image, renews=saved)
            await self._tell_others(saved.name)

    async def _look_for(self, name: str) -> None:
        """Others may have signed a draft of this host while it was away, or given the name another meaning."""
        with suppress(EnticedError):
            for envelope in (await self._overlay.find(DiscoveryKey.of_name(name))).names:
                await self.take(envelope)

    def _announce(self, saved: SavedName) -> None:
        self._overlay.announce(NameOffer(DiscoveryKey.of_name(saved.name), saved.envelope, saved.version))


def _id_hint(name: str) -> str:
    """For who gave the beginning of an id, as people are shown it."""
    is_hex = len(name) >= 8 and set(name) <= set("0123456789abcdef")
    return "; an image's id has 64 digits: entice images --json" if is_hex else ""
