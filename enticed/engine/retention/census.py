"""The census: how many other hosts hold an image, as far as the DHT can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from enticed.core.holders import Count, count_of
from enticed.core.image_book import Offer
from enticed.core.vocabulary import Contact
from enticed.engine.driver import Driver
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.trust.groups import Groups
from enticed.overlay.port import Overlay
from enticed.store.limits import HOLDERS_ASKED_AT_ONCE_COUNT, HOLDERS_KNOWN_S
from protocol.errors import EnticedError
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.providers import ProviderState


@dataclass(frozen=True, slots=True)
class Claims:
    """How many others say that they hold an image; and those that say so of all of it, as far as they are known."""

    count: Count
    holders: tuple[Contact, ...]


class Census:
    """Belongs to the event loop."""

    def __init__(self, driver: Driver, overlay: Overlay, groups: Groups, stockroom: Stockroom) -> None:
        self._driver = driver
        self._overlay = overlay
        self._groups = groups
        self._stockroom = stockroom
        self._known: dict[ImageId, tuple[float, Count | None]] = {}
        self._asking = asyncio.Lock()
        """However many ask, the DHT is asked once."""
        self._places = asyncio.Semaphore(HOLDERS_ASKED_AT_ONCE_COUNT)

    def key(self, image: ImageId) -> DiscoveryKey:
        """Where hosts with the image are found."""
        return self._groups.key_of(image, self._stockroom.group_if_here(image))

    async def of_all(self, images: Iterable[ImageId]) -> dict[ImageId, Count | None]:
        """As `of`, of many; answers that are not old count."""
        images = tuple(images)
        async with self._asking:
            now = self._driver.clock()
            self._known = {image: known for image, known in self._known.items() if now < known[0] + HOLDERS_KNOWN_S}
            unknown = [image for image in images if image not in self._known]
            for image, count in zip(unknown, await asyncio.gather(*map(self.of, unknown)), strict=True):
                self._known[image] = (now, count)
            return {image: self._known[image][1] for image in images}

    async def of(self, image: ImageId) -> Count | None:
        """Asked now; None where nobody could be asked."""
        claims = await self.claims(image)
        return None if claims is None else claims.count

    async def claims(self, image: ImageId) -> Claims | None:
        """As `of`, with who they are."""
        async with self._places:
            try:
                found = await self._overlay.find(self.key(image))
            except EnticedError:
                return None
        if not found.asked:
            return None
        book = self._driver.host.image(image)
        is_own_counted = book is not None and book.offer is not Offer.NONE
        whole = (one for one in found.providers if one.state is ProviderState.WHOLE)
        return Claims(
            count_of(found.providers, found.population, is_own_counted=is_own_counted),
            tuple(Contact(one.node, one.addresses) for one in whole),
        )
