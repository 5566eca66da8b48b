"""Discovery: what the core wants known through the DHT, and whom it wants to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.vocabulary import Contact
from enticed.engine.driver import Driver
from enticed.engine.trust.groups import Groups
from enticed.limits import (
    ANNOUNCED_TIMEOUT_S,
    GROUP_CLAIM_MAX_AGE_S,
    GROUP_CLAIMS_MAX_COUNT,
    GROUP_PROOF_TIMEOUT_S,
)
from enticed.overlay.port import Overlay, ProviderOffer
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError
from protocol.group import GroupId
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.providers import ProviderState

log = logging.getLogger(__name__)


async def told_others(overlay: Overlay, key: DiscoveryKey) -> None:
    """Wait until what is announced under the key can be found, but no longer than it is worth to a person."""
    try:
        async with asyncio.timeout(ANNOUNCED_TIMEOUT_S):
            await overlay.ready()
            await overlay.announced(key)
    except TimeoutError:
        pass


class Discovery:
    def __init__(self, driver: Driver, overlay: Overlay, groups: Groups, zone: str, rack: str) -> None:
        self._groups = groups
        self._driver = driver
        self._overlay = overlay
        self._rack_key = DiscoveryKey.of_rack(zone, rack) if rack else None
        self._zone, self._rack = zone, rack
        self._unproven_since: dict[ImageId, float] = {}
        """Since when hosts say that a group has an image, and none has proven to be in it; latest asked last."""
        self._tasks = Tasks()
        driver.carry(ef.FindProviders, lambda effect: self._start(self._find(effect), "find"))
        driver.carry(ef.Announce, self._announce)
        driver.carry(ef.Withdraw, lambda effect: self._start(self._withdraw(effect), "withdraw"))

    def start(self) -> None:
        """Say that this host is in its rack."""
        if self._rack_key is not None:
            self._overlay.announce(ProviderOffer(self._rack_key, ProviderState.WHOLE))

    async def announced(self, image: ImageId, group: GroupId | None) -> None:
        """Wait, not for ever, until others can find that this host has the image."""
        await told_others(self._overlay, self._groups.key_of(image, group))

    async def close(self) -> None:
        await self._tasks.close()

    async def providers(self, image: ImageId) -> ev.ProvidersFound:
        """Hosts that say they have the image, and hosts of this rack, who may pull it too. Raises as `find` does."""
        await self._overlay.ready()
        group, providers = await self._find_image(image)
        mates: tuple[Contact, ...] = ()
        if self._rack_key is not None:
            there = (await self._overlay.find(self._rack_key)).providers
            mates = tuple(Contact(one.node, one.addresses, self._zone, self._rack) for one in there)
        return ev.ProvidersFound(image, providers, mates, group)

    async def _find_image(self, image: ImageId) -> tuple[GroupId | None, tuple[Contact, ...]]:
        """Among the members of the groups that this host is in; if none of them has it, among everybody.

        Whoever is asked for a group's key can answer that it is a provider: if nobody found there proves within a while
        to be a member, the image is looked for among everybody too.
        """
        claims: dict[GroupId, tuple[Contact, ...]] = {}
        for group in self._groups.ids:
            if found := await self._find_under(image, group):
                claims[group] = found
                if self._is_proven(group, found):
                    self._unproven_since.pop(image, None)
                    return group, found
        claimed = {one.node: one for found in claims.values() for one in found}
        is_private = self._driver.host.books.privacy.get(image) is not None
        if claimed and (is_private or self._may_prove_yet(image)):
            return next(iter(claims)), tuple(claimed.values())
        everybody = {one.node: one for one in await self._find_under(image, None)}
        return None if everybody else next(iter(claims), None), tuple((claimed | everybody).values())

    async def _find_under(self, image: ImageId, group: GroupId | None) -> tuple[Contact, ...]:
        found = await self._overlay.find(self._groups.key_of(image, group))
        return tuple(Contact(one.node, one.addresses) for one in found.providers)

    def _is_proven(self, group: GroupId, found: tuple[Contact, ...]) -> bool:
        """Whether one of them has shown, on a session that there is, that it is in the group."""
        peers = (self._driver.host.books.peers.get(one.node) for one in found)
        return any(peer is not None and group in peer.groups for peer in peers)

    def _may_prove_yet(self, image: ImageId) -> bool:
        """Whether those who say that they are members, and have the image, were found a short while ago only."""
        now = self._driver.clock()
        since = self._unproven_since.pop(image, now)
        if now - since > GROUP_CLAIM_MAX_AGE_S:  # of another search
            since = now
        self._unproven_since[image] = since
        if len(self._unproven_since) > GROUP_CLAIMS_MAX_COUNT:
            del self._unproven_since[next(iter(self._unproven_since))]
        return now - since < GROUP_PROOF_TIMEOUT_S

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.spawn(coroutine, name)

    async def _find(self, effect: ef.FindProviders) -> None:
        try:
            found = await self.providers(effect.image)
        except EnticedError as error:
            log.warning("nobody can be found: %s", error)
            found = ev.ProvidersFound(effect.image, ())  # an answer there must be, or nobody is looked for again
        except Exception:
            log.exception("nobody can be found")
            found = ev.ProvidersFound(effect.image, ())
        self._driver.tell(found)

    def _announce(self, effect: ef.Announce) -> None:
        state = ProviderState.WHOLE if effect.whole else ProviderState.PARTIAL
        self._overlay.announce(ProviderOffer(self._groups.key_of(effect.image, effect.group), state))

    async def _withdraw(self, effect: ef.Withdraw) -> None:
        await self._overlay.withdraw(self._groups.key_of(effect.image, effect.group))
