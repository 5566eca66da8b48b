"""Naming: from what a person types to an ImageId, and a publisher's names kept alive.

The highest version of a name ever seen here is remembered, so that nobody can bring an older one back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.dht.events import NameOffer
from enticed.core.orders import Failure
from enticed.engine.discovery import told_others
from enticed.engine.driver import Driver
from enticed.engine.origin_supply import OriginSupply
from enticed.engine.threads import StoreThreads
from enticed.identity.publisher import Publisher, next_name_record
from enticed.limits import NAMES_RENEWAL_CHECK_S
from enticed.overlay.port import Overlay
from enticed.store.names import SavedName
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, ImageId, PublisherKey
from protocol.names import NameRecord, is_image_id, open_name, open_past_name, parse_name, renewal_due
from protocol.trust import TrustBundle

log = logging.getLogger(__name__)


class Naming:
    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        overlay: Overlay,
        origin: OriginSupply,
        trust: Callable[[], TrustBundle],
        publisher: Publisher | None,
        clock: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._overlay = overlay
        self._origin = origin
        self._trust = trust
        self._publisher = publisher
        self._clock = clock
        self._tasks = Tasks()
        self._signing = asyncio.Lock()
        """A version is given once, whoever publishes or renews at the same time."""
        driver.carry(ef.ResolveTarget, self._start_resolve)

    def start(self) -> None:
        """On the publishing host, announce its names and sign them anew from half of their life."""
        if self._publisher is not None:
            self._tasks.spawn(self._keep_alive(self._publisher), "names")

    async def close(self) -> None:
        await self._tasks.close()

    # --- from targets to images ---

    async def resolve(self, target: str, *, origin: bool = True) -> ImageId:
        """The image that a name (or an id) means now: the newest record that a trusted publisher has signed.

        origin: whether the origin may be asked where no host knows the name. `LocalError` for what can be no name,
        `AbsentError` where nobody knows it.
        """
        if is_image_id(target):
            return ImageId.from_hex(target)
        name = self.checked(target)
        await self._overlay.ready()  # an order placed right after the start is not refused for want of acquaintances
        found = await self._overlay.find(DiscoveryKey.of_name(name))
        newest, trouble = self._newest(name, self._standing(name), found.names), ""
        if origin and self._origin.is_there and not found.names:
            try:
                newest = self._newest(name, newest, (await self._origin.name(name),))
            except EnticedError as error:
                trouble = f"; {error}"
        if newest is None:
            raise AbsentError(f"no name {name!r} is known in this cluster{trouble}")
        if newest.expires_at <= self._clock():
            raise AbsentError(f"the last record of name {name!r} has expired, and nobody has a newer one{trouble}")
        await self._save(newest)
        return newest.image

    def _newest(self, name: str, newest: SavedName | None, envelopes: tuple[bytes, ...]) -> SavedName | None:
        """`newest`, or what of these is newer and signed by a trusted publisher."""
        trust = self._trust()
        for envelope in envelopes:
            try:
                record = open_name(envelope, trust.publishers_of(name), self._clock(), trust.threshold)
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
            raise AbsentError(f"no name {target!r} is known on this host")
        return saved.image

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
        """Whether somebody trusted by now has signed it, expired or not. If not, its version counts for nothing: who
        had signed it may have used a stolen key, and chosen a version that no honest one could follow."""
        return self._record(self._trust().publishers_of(saved.name), saved) is not None

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
            self._driver.tell(ev.TargetUnresolved(effect.key, Failure.NOT_FOUND, str(error)))
        else:
            self._driver.tell(ev.TargetResolved(effect.key, image))

    # --- a publisher's names ---

    def require_publisher(self, publisher: Publisher, name: str) -> None:
        """`DeniedError` where nobody would believe the name, signed by this publisher."""
        publisher.require_trusted(self._trust(), (name,))

    def may_publish(self, publisher: Publisher, name: str) -> bool:
        return publisher.key in self._trust().publishers_of(name)

    async def publish(self, publisher: Publisher, name: str, image: ImageId) -> int:
        """Sign that `name` means `image` from now on, remember it and tell others; the record's version."""
        saved = await self._sign(publisher, name, image)
        await told_others(self._overlay, DiscoveryKey.of_name(name))
        return saved.version

    async def sign_anew(self, publisher: Publisher, old: PublisherKey) -> None:
        """Sign again what another key has signed, for the publisher's own."""
        for saved in self._store.names():
            if self._record(frozenset({old}), saved) is not None:
                await self._sign(publisher, saved.name, saved.image)

    async def _sign(self, publisher: Publisher, name: str, image: ImageId) -> SavedName:
        async with self._signing:
            last = self._record(self._trust().publishers_of(name), self._standing(name))
            record = next_name_record(name, image, last, self._clock())
            saved = SavedName(name, record.version, image, record.expires_at, publisher.sign_name(record))
            await self._save(saved)
        self._announce(saved)
        return saved

    @staticmethod
    def _record(signers: frozenset[PublisherKey], saved: SavedName | None) -> NameRecord | None:
        if saved is None:
            return None
        try:
            return open_past_name(saved.envelope, signers)
        except (DeniedError, MalformedError):
            return None

    async def _keep_alive(self, publisher: Publisher) -> None:
        for saved in self._store.names():
            if self._record(frozenset({publisher.key}), saved) is not None:
                self._announce(saved)
        while True:
            for saved in self._store.names():
                record = self._record(frozenset({publisher.key}), saved)
                if record is None or not self.may_publish(publisher, saved.name):
                    continue
                if renewal_due(record, self._clock()):
                    log.info("signing name %s anew", saved.name)
                    try:
                        await self.publish(publisher, saved.name, saved.image)
                    except EnticedError as error:  # a full disk, say: there is half a lifetime to try again in
                        log.warning("name %s cannot be signed anew: %s", saved.name, error)
            await asyncio.sleep(NAMES_RENEWAL_CHECK_S)

    def _announce(self, saved: SavedName) -> None:
        self._overlay.announce(NameOffer(DiscoveryKey.of_name(saved.name), saved.envelope, saved.version))
