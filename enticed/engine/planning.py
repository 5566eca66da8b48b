"""Planning: what a pull would do, without doing it. Zero, on hand, then peers by distance, then what nobody has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from enticed.core.bitmaps import unpack_bitmap
from enticed.core.vocabulary import ORIGIN, Contact, Mask, name_of
from enticed.engine.driver import Driver
from enticed.engine.port import BytesFrom, PlanView
from enticed.engine.retention.port import RoomView
from enticed.engine.supply.discovery import Discovery
from enticed.engine.supply.origin_supply import OriginSupply
from enticed.engine.supply.purchasing import Manifest, Purchasing
from enticed.engine.threads import StoreThreads
from enticed.limits import PLAN_PROVIDERS_MAX_COUNT, PLAN_TIMEOUT_S, PLANS_MAX_COUNT
from enticed.store.store import Store
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import DialFailed, Event, Heard, PeerDown, PeerUp
from protocol.credentials import NodeCredential
from protocol.errors import AbsentError, EnticedError, ExhaustedError, MalformedError
from protocol.identifiers import ImageId, NodeId
from protocol.manifest import Fragments, Root
from protocol.messages import HaveMap, NotHeld, Subscribe, Unsubscribe

_BytesByPiece = NDArray[np.int64]
RoomFor = Callable[[Root], Awaitable[RoomView]]
"""Whether this host has room for an image."""


@dataclass
class _Survey:
    """Peers that are being asked what they have of an image."""

    image: ImageId
    waiting: set[NodeId]
    dialled_again: set[NodeId] = field(default_factory=set)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    maps: dict[NodeId, Mask] = field(default_factory=dict)
    contacts: dict[NodeId, Contact] = field(default_factory=dict)

    def answer(self, node: NodeId) -> None:
        self.waiting.discard(node)
        if not self.waiting:
            self.answered.set()


class Planning:
    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        purchasing: Purchasing,
        discovery: Discovery,
        network: PeerNetwork,
        origin: OriginSupply,
        me: NodeCredential,
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._purchasing = purchasing
        self._discovery = discovery
        self._network = network
        self._origin = origin
        self._me = me
        self._surveys: list[_Survey] = []
        self._planning = 0

    def network_event(self, event: Event) -> None:
        """Surveys listen to what the core is told."""
        for survey in self._surveys:
            match event:
                case PeerUp(node, credential, addresses) if node in survey.waiting:
                    survey.contacts[node] = Contact(node, addresses, credential.zone, credential.rack)
                    self._network.send(node, Subscribe(survey.image))
                case DialFailed(node) if node in survey.waiting:
                    survey.answer(node)
                case PeerDown(node) if node in survey.waiting:
                    self._dial_again(survey, node)
                case Heard(node, HaveMap(image, pieces, bitmap)) if image == survey.image and node in survey.waiting:
                    with suppress(MalformedError):  # the core hangs up on it
                        survey.maps[node] = unpack_bitmap(bitmap, pieces)
                    survey.answer(node)
                case Heard(node, NotHeld(image)) if image == survey.image:
                    survey.answer(node)

    def _dial_again(self, survey: _Survey, node: NodeId) -> None:
        """Once: who has many sessions hangs up on who comes, and not on who comes again."""
        contact = survey.contacts.get(node)
        if contact is None or node in survey.dialled_again:
            survey.answer(node)
        else:
            survey.dialled_again.add(node)
            self._network.dial(node, contact.addresses)

    async def plan(self, target: str, image: ImageId, room_for: RoomFor) -> PlanView:
        """`AbsentError` where the image is neither here nor with anybody who could be reached; `ExhaustedError` beyond
        PLANS_MAX_COUNT plans at once."""
        if self._planning >= PLANS_MAX_COUNT:
            raise ExhaustedError("too many plans are being made: try again in a while")
        self._planning += 1
        try:
            return await self._plan(target, image, room_for)
        finally:
            self._planning -= 1

    async def _plan(self, target: str, image: ImageId, room_for: RoomFor) -> PlanView:
        survey = await self._survey(image)
        root, fragments = await self._manifest(image, survey)
        on_hand_bytes = await self._threads.run(self._on_hand_bytes, image, root, fragments)
        try:
            here = self._store.image(image).durable
        except AbsentError:
            here = np.zeros(root.pieces, np.bool_)
        data_bytes = root.data_bytes.astype(np.int64)
        relatives = np.where(here, 0, on_hand_bytes)
        wanted = np.where(here, 0, data_bytes - relatives)
        peers = self._by_distance(survey, wanted)
        missing = wanted.copy()
        for held in survey.maps.values():
            if len(held) == root.pieces:
                missing[held] = 0
        from_peers, from_origin = int(wanted.sum() - missing.sum()), 0
        if missing.any() and await self._origin_has(image):
            from_origin, missing = int(missing.sum()), np.zeros_like(missing)
        supply = BytesFrom(
            zero=root.virtual_size_bytes - root.total_data_bytes,
            on_hand=int(data_bytes[here].sum()),
            relatives=int(relatives.sum()),
            peers=from_peers,
            origin=from_origin,
        )
        return PlanView(
            target,
            image,
            root.virtual_size_bytes,
            root.total_data_bytes,
            supply,
            peers,
            int(missing.sum()),
            int(np.count_nonzero(missing)),
            None if from_origin else self._estimate(survey, supply.peers),
            len(survey.maps),
            await room_for(root),
        )

    def _on_hand_bytes(self, image: ImageId, root: Root, fragments: Fragments) -> _BytesByPiece:
        """What other images have of each piece. Waits for the disk."""
        others = [stored.image for stored in self._store.images() if stored.image != image]
        return self._store.find_on_hand(fragments, others).bytes_by_piece(root, fragments)

    async def _survey(self, image: ImageId) -> _Survey:
        """Ask some providers what they have; whoever does not answer in time has nothing."""
        found = await self._discovery.providers(image)
        # Who is in groups asks no others about an image that may be theirs.
        is_public = found.group is None and (found.providers or not self._driver.host.books.groups)
        mates = found.mates if is_public else ()
        contacts = {contact.node: contact for contact in (*found.providers, *mates)}
        chosen = [contact for node, contact in contacts.items() if node != self._me.node][:PLAN_PROVIDERS_MAX_COUNT]
        survey = _Survey(image, {contact.node for contact in chosen})
        if not chosen:
            return survey
        self._surveys.append(survey)
        try:
            for contact in chosen:
                known = self._driver.host.peers().get(contact.node)
                if known is not None:
                    survey.contacts[contact.node] = known.contact
                    self._network.send(contact.node, Subscribe(image))
                else:
                    self._network.dial(contact.node, contact.addresses)
            async with asyncio.timeout(PLAN_TIMEOUT_S):
                await survey.answered.wait()
        except TimeoutError:
            pass
        finally:
            self._surveys.remove(survey)
            if not self._driver.host.books.ledgers(image):  # else the core wants to hear of it itself
                for node in survey.maps:
                    self._network.send(node, Unsubscribe(image))
        return survey

    async def _manifest(self, image: ImageId, survey: _Survey) -> tuple[Root, Fragments]:
        try:
            stored = self._store.image(image)
            return stored.root, await self._threads.run(stored.all_fragments)
        except AbsentError:
            pass
        manifest = await self._manifest_from(image, survey)
        return manifest.root, manifest.fragments

    async def data_bytes(self, image: ImageId) -> int:
        """How much data an image has: by its root, if it is here, or a trusted statement, from wherever one can be had.

        `AbsentError` where none can be.
        """
        with suppress(AbsentError):
            return self._store.image(image).root.total_data_bytes
        survey = await self._survey(image)
        for node in (*survey.maps, *([ORIGIN] if self._origin.is_there else [])):
            with suppress(EnticedError, TimeoutError):
                async with asyncio.timeout(PLAN_TIMEOUT_S):
                    return (await self._purchasing.fetch_statement(image, node)).data_bytes
        raise AbsentError(f"nobody who could be reached says how large image {image.short} is, and it is to be counted")

    async def fetch_manifest(self, image: ImageId) -> Manifest:
        """The manifest of an image, verified. `AbsentError` where nobody has it who can be reached."""
        return await self._manifest_from(image, await self._survey(image))

    async def _manifest_from(self, image: ImageId, survey: _Survey) -> Manifest:
        reason = "nobody that could be reached has it"
        for node in (*survey.maps, *([ORIGIN] if self._origin.is_there else [])):
            try:
                async with asyncio.timeout(PLAN_TIMEOUT_S):
                    return await self._purchasing.fetch_manifest(image, node)
            except TimeoutError:
                reason = f"{name_of(node)} does not send it"
            except EnticedError as error:
                reason = str(error)
        raise AbsentError(f"no manifest of image {image.short}: {reason}")

    async def _origin_has(self, image: ImageId) -> bool:
        if not self._origin.is_there:
            return False
        with suppress(EnticedError, TimeoutError):
            async with asyncio.timeout(PLAN_TIMEOUT_S):
                await self._purchasing.fetch_root(image, ORIGIN)
                return True
        return False

    def _by_distance(self, survey: _Survey, wanted: _BytesByPiece) -> dict[str, int]:
        """Bytes wanted from peers, each counted at the nearest of its holders."""
        left = wanted.copy()
        by_distance = {"rack": 0, "zone": 0, "far": 0}
        for distance in by_distance:
            for node, held in survey.maps.items():
                if self._distance(survey.contacts[node]) == distance and len(held) == len(left):
                    by_distance[distance] += int(left[held].sum())
                    left[held] = 0
        return by_distance

    def _distance(self, contact: Contact) -> str:
        if contact.zone != self._me.zone:
            return "far"
        return "rack" if contact.rack == self._me.rack else "zone"

    def _estimate(self, survey: _Survey, peer_bytes: int) -> float | None:
        """Seconds at the rates that these peers have shown, None where none has shown any."""
        if peer_bytes == 0:
            return 0.0
        peers = self._driver.host.peers().known(survey.maps)
        rate = sum(peer.bytes_per_s for peer in peers)
        return peer_bytes / rate if rate else None
