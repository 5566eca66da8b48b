"""A publisher's key is replaced: what the old one has signed is signed by the new one, before the old is retired."""

from __future__ import annotations

from contextlib import suppress

from enticed.engine.naming import Naming
from enticed.engine.threads import StoreThreads
from enticed.identity.publisher import Publisher
from enticed.store.images import StoredImage
from enticed.store.store import Store
from protocol.errors import DeniedError, MalformedError
from protocol.group import open_privacy
from protocol.identifiers import PublisherKey
from protocol.profile import open_profile
from protocol.statement import open_statement


class SigningAnew:
    """Of the images and names of this host."""

    def __init__(self, publisher: Publisher, store: Store, threads: StoreThreads, naming: Naming) -> None:
        self._publisher = publisher
        self._store = store
        self._threads = threads
        self._naming = naming

    async def __call__(self, old: PublisherKey) -> None:
        """Sign again what this key has signed; what is done already is passed over. Raises what the store does."""
        for stored in self._store.images():
            await self._threads.run(self._sign_image, stored, old)
        await self._naming.sign_anew(self._publisher, old)

    def _sign_image(self, stored: StoredImage, old: PublisherKey) -> None:
        """The old statements go: an image has room for a few, and hosts that have them keep them."""
        for envelope in stored.statements:
            anew = self._signed(envelope, old)
            if anew is not None:
                self._store.drop_statement(stored.image, envelope)
                self._store.add_statement(stored.image, anew)

    def _signed(self, envelope: bytes, old: PublisherKey) -> bytes | None:
        signers = frozenset({old})
        with suppress(DeniedError, MalformedError):
            return self._publisher.sign_statement(open_statement(envelope, signers))
        with suppress(DeniedError, MalformedError):
            return self._publisher.sign_profile(open_profile(envelope, signers))
        with suppress(DeniedError, MalformedError):
            return self._publisher.sign_privacy(open_privacy(envelope, signers))
        return None
