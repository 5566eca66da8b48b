"""A publisher's key is replaced: what the old one has signed is signed by the new one, before the old is retired."""

from __future__ import annotations

from enticed.engine.names.naming import Naming
from enticed.engine.retention.floor_keeping import FloorKeeping
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.recalls import Recalls
from enticed.identity.publisher import Publisher
from enticed.store.images import StoredImage
from enticed.store.store import Store
from protocol.dsse import Quorum, signers
from protocol.identifiers import PublisherKey


class SigningAnew:
    """Of the images, names, recalls and floors of this host; nothing where none publishes."""

    def __init__(
        self,
        publisher: Publisher | None,
        store: Store,
        stockroom: Stockroom,
        threads: StoreThreads,
        naming: Naming,
        recalls: Recalls,
        floors: FloorKeeping,
    ) -> None:
        self._recalls = recalls
        self._floors = floors
        self._publisher = publisher
        self._stockroom = stockroom
        self._store = store
        self._threads = threads
        self._naming = naming

    async def __call__(self, old: PublisherKey) -> None:
        """Sign again what this key has signed; what is done already is passed over. Raises what the store does."""
        if self._publisher is None:
            return
        for stored in self._store.images():
            await self._threads.run(self._sign_image, self._publisher, stored, old)
        await self._naming.sign_anew(self._publisher, old)
        await self._recalls.sign_anew(self._publisher, old)
        await self._floors.sign_anew(self._publisher, old)

    def _sign_image(self, publisher: Publisher, stored: StoredImage, old: PublisherKey) -> None:
        """The same words, and what others have signed besides. The old envelopes go: an image has room for a few, and
        hosts that have them keep them."""
        quorum = Quorum.any_of((old,))
        for envelope in stored.statements:
            if signers(envelope, quorum):
                anew = publisher.countersign(envelope, instead_of=old)
                self._stockroom.replace_statement(stored.image, envelope, anew)
