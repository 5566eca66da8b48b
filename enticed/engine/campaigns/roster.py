"""The roster: which hosts there are, by id, by name and by label.

Every host announces itself in the DHT under its id and its labels. That is hearsay, and a sample where there are many;
so hosts are looked for shard by shard, and believed once their certificate says so (`Campaigning` looks at it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from enticed.core.vocabulary import Contact
from enticed.identity.host import HostIdentity
from enticed.limits import ROSTER_LOOKUPS_MAX_COUNT, ROSTER_LOOKUPS_PER_SHARD_MAX_COUNT
from enticed.overlay.port import Overlay, ProviderOffer
from protocol.errors import MalformedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.labels import HOST, HostLabel, check_label, shard_of, shards_of
from protocol.providers import ProviderState


@dataclass(frozen=True, slots=True)
class Roll:
    """Hosts that were found. is_complete: whether that are all of them, as far as those know who were asked."""

    hosts: dict[NodeId, Contact]
    is_complete: bool


class Roster:
    def __init__(self, overlay: Overlay, identity: HostIdentity, me: Contact) -> None:
        self._overlay = overlay
        self._credential = identity.credential
        self._me = me
        self._room = asyncio.Semaphore(ROSTER_LOOKUPS_MAX_COUNT)
        labels = self._credential.every_label
        self._own = {DiscoveryKey.of_host(me.node), *(_key(label, shard_of(label, me.node)) for label in labels)}
        """Keys under which this host announces itself."""

    def start(self) -> None:
        """Say where this host is, and what it is labelled."""
        for key in self._own:
            self._overlay.announce(ProviderOffer(key, ProviderState.WHOLE))

    async def labelled(self, labels: Iterable[HostLabel]) -> Roll:
        """Hosts that say they have all of these labels, this one among them if it has."""
        rolls = await asyncio.gather(*(self._labelled(label) for label in labels))
        found = dict(rolls[0].hosts)
        for roll in rolls[1:]:
            found = {node: contact for node, contact in found.items() if node in roll.hosts}
        return Roll(found, all(roll.is_complete for roll in rolls))

    async def host(self, text: str) -> tuple[Contact, ...]:
        """Hosts of this id or name: there may be several that say they are called so, and there may be none."""
        try:
            node = NodeId.from_hex(text)
        except MalformedError:
            label = HostLabel(HOST, text)
            try:
                check_label(label)
            except MalformedError:
                return ()
            return tuple((await self._twice(label)).hosts.values())
        if node == self._me.node:
            return (self._me,)
        found = await self._find(DiscoveryKey.of_host(node))
        return tuple(contact for contact in found.hosts.values() if contact.node == node)

    async def _twice(self, label: HostLabel) -> Roll:
        """A lookup gives up on who does not answer within a quarter of a second: one that finds nothing is no proof."""
        roll = await self._labelled(label)
        return roll if roll.hosts else await self._labelled(label)

    async def _labelled(self, label: HostLabel) -> Roll:
        shards = await asyncio.gather(*(self._find(_key(label, shard)) for shard in range(shards_of(label))))
        found = {node: contact for shard in shards for node, contact in shard.hosts.items()}
        if label in self._credential.every_label:
            found[self._me.node] = self._me
        return Roll(found, all(shard.is_complete for shard in shards))

    async def _find(self, key: DiscoveryKey) -> Roll:
        """All that is kept under a key: asked for again where there was more than an answer holds."""
        found: dict[NodeId, Contact] = {}
        async with self._room:
            await self._overlay.ready()
            for _ in range(ROSTER_LOOKUPS_PER_SHARD_MAX_COUNT):
                known = len(found)
                answer = await self._overlay.find(key)
                found |= {one.node: Contact(one.node, one.addresses) for one in answer.providers}
                # This host counts among the population of its own keys, and is never among what it finds.
                missing = answer.population - len(found) - (key in self._own)
                if missing <= 0 or len(found) == known:
                    return Roll(found, missing <= 0)
        return Roll(found, is_complete=False)


def _key(label: HostLabel, shard: int) -> DiscoveryKey:
    return DiscoveryKey.of_label(label.key, label.value, shard)
