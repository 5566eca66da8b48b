"""Drafts: name records that wait for more signatures, where it takes those of several publishers.

A draft lies in the DHT under a key of its own, so that the name goes on meaning what it meant. Who signs it last makes
a name of it. Whoever drew it up renews it, as a draft again: a publisher who has signed that a name means an image then
signs by itself that it goes on meaning this image, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enticed.engine.threads import StoreThreads
from enticed.identity.publisher import Publisher
from enticed.overlay.port import NameOffer, Overlay
from enticed.store.names import SavedName
from enticed.store.store import Store
from protocol.dsse import keys_named, signers, with_counting_only
from protocol.errors import AbsentError, DeniedError, MalformedError
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.names import NameRecord, draft_rank, open_name
from protocol.trust import TrustBundle


class Drafts:
    """Those that this host has drawn up or signed are kept, and announced until they are names."""

    def __init__(
        self,
        store: Store,
        threads: StoreThreads,
        overlay: Overlay,
        trust: Callable[[], TrustBundle],
        clock: Callable[[], float],
    ) -> None:
        self._book = store.draft_book
        self._store = store
        self._threads = threads
        self._overlay = overlay
        self._trust = trust
        self._clock = clock

    def pending(self) -> tuple[SavedName, ...]:
        """Of this host: those that no name has followed, and that could still become one."""
        return tuple(one for one in self._book.all() if one.expires_at > self._clock() and not self._is_outdone(one))

    def of(self, name: str) -> SavedName | None:
        return next((one for one in self.pending() if one.name == name), None)

    def last_version(self, name: str) -> int:
        """The highest that was given to a draft of the name here, 0 without one."""
        try:
            return self._book.get(name).version
        except AbsentError:
            return 0

    async def keep(self, saved: SavedName) -> None:
        """Durable when it returns; announced from then on."""
        await self._threads.run(self._book.save, saved)
        self.announce(saved)

    def announce(self, saved: SavedName) -> None:
        rank = draft_rank(saved.version, len(keys_named(saved.envelope)))
        self._overlay.announce(NameOffer(DiscoveryKey.of_draft(saved.name), saved.envelope, rank))

    async def find(self, name: str, image: ImageId | None = None) -> SavedName | None:
        """The newest draft of a name that a publisher trusted for it has signed, here or in the DHT; of those that mean
        this image, if one is given."""
        found = await self._overlay.find(DiscoveryKey.of_draft(name))
        own = self.of(name)
        return self._newest(name, image, (*found.names, *(() if own is None else (own.envelope,))))

    def _newest(self, name: str, image: ImageId | None, envelopes: Iterable[bytes]) -> SavedName | None:
        best: tuple[int, SavedName] | None = None
        for envelope in envelopes:
            record = self._opened(name, envelope)
            if record is None or record.name != name or image not in (None, record.image):
                continue
            rank = draft_rank(record.version, len(self.signed_by(name, envelope)))
            if best is None or rank > best[0]:
                counting = with_counting_only(envelope, self._trust().one_of(name))
                best = rank, SavedName(name, record.version, record.image, record.expires_at, counting)
        return None if best is None else best[1]

    def signed_by(self, name: str, envelope: bytes) -> frozenset[str]:
        """The publishers trusted for a name who have signed its draft."""
        return signers(envelope, self._trust().one_of(name))

    @staticmethod
    def signed(saved: SavedName, publisher: Publisher) -> SavedName:
        """The same with this publisher's signature. `LocalError` where there is no room for one."""
        envelope = publisher.countersign(saved.envelope)
        return SavedName(saved.name, saved.version, saved.image, saved.expires_at, envelope)

    def _opened(self, name: str, envelope: bytes) -> NameRecord | None:
        try:
            return open_name(envelope, self._trust().one_of(name), self._clock())
        except (DeniedError, MalformedError):
            return None

    def _is_outdone(self, draft: SavedName) -> bool:
        try:
            return self._store.name(draft.name).version >= draft.version
        except AbsentError:
            return False
