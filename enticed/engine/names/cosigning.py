"""Cosigning: where it takes several publishers, each adds its signature to the very bytes that the first has signed.

A publisher who cosigns need not have the image, and cannot have it before it is signed: what it looks at are the words
of the first. Its signature goes back to the hosts that have the image, is kept there among the statements, and handed
on by them over the sessions that they have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

from enticed.core.vocabulary import Contact
from enticed.engine.driver import Driver
from enticed.engine.names.naming import Naming
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.discovery import Discovery
from enticed.engine.supply.purchasing import Purchasing
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.port import NameSigning, Signing
from enticed.engine.trust.recalls import Recalls
from enticed.identity.host import HostIdentity
from enticed.identity.limits import (
    COSIGN_HOLDERS_MAX_COUNT,
    COSIGN_TIMEOUT_S,
    COSIGNED_KNOWN_MAX_COUNT,
    COSIGNED_USELESS_MAX_COUNT,
)
from enticed.identity.publisher import NO_KEY, Publisher
from enticed.patience import Patience
from enticed.store.names import SavedName
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp
from enticed.transfer.tasks import Tasks
from protocol.dsse import keys_named, sealed_type, signers, with_counting_only, with_signatures_of
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError, MalformedError
from protocol.identifiers import ImageId, NodeId
from protocol.messages import COSIGNING, Cosigned
from protocol.names import NAME_TYPE, is_image_id
from protocol.statement import STATEMENT_TYPE, Statement, open_statement

log = logging.getLogger(__name__)
Reach = Callable[[NodeId, tuple[str, ...]], Awaitable[PeerUp]]


@dataclass(frozen=True, slots=True)
class _Found:
    """A statement, by at least one trusted publisher, and which other hosts have any of the image."""

    statement: Statement
    envelope: bytes
    holders: tuple[NodeId, ...]


class Cosigning:
    """Belongs to the event loop."""

    def __init__(
        self,
        driver: Driver,
        identity: HostIdentity,
        publisher: Publisher | None,
        naming: Naming,
        stockroom: Stockroom,
        threads: StoreThreads,
        discovery: Discovery,
        purchasing: Purchasing,
        network: PeerNetwork,
        recalls: Recalls,
        reach: Reach,
    ) -> None:
        self._driver = driver
        self._identity = identity
        self._publisher = publisher
        self._naming = naming
        self._stockroom = stockroom
        self._threads = threads
        self._discovery = discovery
        self._purchasing = purchasing
        self._network = network
        self._recalls = recalls
        self._reach = reach
        self._takers: set[NodeId] = set()
        """Hosts with a session that take signatures."""
        self._patience = Patience(COSIGNED_USELESS_MAX_COUNT)
        """With signatures that are none, or no news."""
        self._lately: dict[bytes, None] = {}
        """Statements here as a signature made them, the latest last: whoever says the same loses no patience."""
        self._answers: dict[tuple[NodeId, ImageId], asyncio.Event] = {}
        """Of hosts that were given a signature: they hand it on to whoever is there, this host too."""
        self._merging = asyncio.Lock()
        """Two signatures that come at once both stay."""
        self._tasks = Tasks()
        identity.watch(naming.trust_changed)

    async def close(self) -> None:
        await self._tasks.close()

    # --- signing ---

    async def sign(self, target: str, image: ImageId | None, *, look: bool) -> Signing:
        """As `trust_port.CosigningOffice.sign`."""
        if self._publisher is None:
            raise DeniedError(NO_KEY)
        publisher = self._publisher
        drafts: list[SavedName] = []
        if is_image_id(target):
            meant = ImageId.from_hex(target)
        else:
            drafts.append(await self._draft(publisher, target))
            meant = drafts[0].image
        if image not in (None, meant):
            raise LocalError(f"{target} is to mean image {meant}, not {image}: nothing is signed")
        publisher.require_trusted(self._identity.trust, ())
        self._recalls.check(meant)
        found = await self._find(meant)
        drafts += await self._digest_names(publisher, found.statement)
        told = 0
        if not look:
            found = replace(found, envelope=publisher.countersign(found.envelope))
            told = await self._hand_out(found)
            drafts = [await self._naming.cosign(publisher, draft) for draft in drafts]
            for node, draft in product(self._takers & set(found.holders), drafts):
                self._network.send(node, Cosigned(draft.envelope))
        return self._report(found, drafts, told)

    async def _draft(self, publisher: Publisher, name: str) -> SavedName:
        self._naming.require_publisher(publisher, self._naming.checked(name))
        draft = await self._naming.drafts.find(name)
        if draft is None:
            raise AbsentError(f"no record of {name} waits for a signature: first another publisher publishes it")
        return draft

    async def _digest_names(self, publisher: Publisher, statement: Statement) -> list[SavedName]:
        """Those of the image's digests that wait too, and that this publisher may sign."""
        names = statement.digests.names if statement.digests is not None else ()
        mine = [name for name in names if self._naming.may_publish(publisher, name)]
        found = [await self._naming.drafts.find(name, statement.image) for name in mine]
        return [draft for draft in found if draft is not None]

    async def _find(self, image: ImageId) -> _Found:
        """The statement that most have signed, of those that any host shows. `AbsentError` where none does."""
        shown: dict[NodeId | None, tuple[bytes, ...]] = {}
        with suppress(AbsentError):
            shown[None] = self._stockroom.image(image).statements
        providers = (await self._discovery.providers(image)).providers
        asked = [one for one in providers if one.node != self._identity.node][:COSIGN_HOLDERS_MAX_COUNT]
        answers = await asyncio.gather(*(self._shown(image, contact) for contact in asked))
        shown |= {contact.node: answer for contact, answer in zip(asked, answers, strict=True)}
        quorum, best = self._identity.trust.quorum, None
        for statement, envelope in self._by_anybody(image, shown.values()):
            rank = len(signers(envelope, quorum)), -statement.issued_at, envelope
            if best is None or rank > best[0]:
                best = rank, statement, envelope
        if best is None:
            raise AbsentError(f"no host that could be reached has a statement of image {image.short} by a publisher")
        _, statement, envelope = best
        holders = tuple(node for node, envelopes in shown.items() if node is not None and envelopes)
        return _Found(statement, envelope, holders)

    async def _shown(self, image: ImageId, contact: Contact) -> tuple[bytes, ...]:
        with suppress(EnticedError, TimeoutError):
            async with asyncio.timeout(COSIGN_TIMEOUT_S):
                await self._reach(contact.node, contact.addresses)
                return await self._purchasing.fetch_statements(image, contact.node)
        return ()

    def _by_anybody(self, image: ImageId, shown: Iterable[tuple[bytes, ...]]) -> Iterable[tuple[Statement, bytes]]:
        """Without the signatures that do not count: whoever shows a statement can have added them."""
        trust = self._identity.trust
        for envelope in {one for envelopes in shown for one in envelopes}:
            with suppress(DeniedError, MalformedError):
                statement = open_statement(envelope, trust.one_of())
                if statement.image == image:
                    yield statement, with_counting_only(envelope, trust.quorum)

    async def _hand_out(self, found: _Found) -> int:
        """Give the signature to the hosts that have the image; how many of the others have it then, as they say."""
        image = found.statement.image
        with suppress(AbsentError):
            await self._keep(image, found.envelope)
        return sum(await asyncio.gather(*(self._give(node, image, found.envelope) for node in found.holders)))

    async def _give(self, node: NodeId, image: ImageId, envelope: bytes) -> bool:
        if node not in self._takers:
            return False
        answer = self._answers[node, image] = asyncio.Event()
        try:
            self._network.send(node, Cosigned(envelope))
            async with asyncio.timeout(COSIGN_TIMEOUT_S):
                await answer.wait()
        except (EnticedError, TimeoutError):
            return False
        finally:
            self._answers.pop((node, image), None)
        return True

    def _report(self, found: _Found, drafts: list[SavedName], told: int) -> Signing:
        trust, said = self._identity.trust, found.statement
        signed_by = self._naming.drafts.signed_by
        names = tuple(NameSigning(one.name, tuple(sorted(signed_by(one.name, one.envelope)))) for one in drafts)
        statement_by = tuple(sorted(signers(found.envelope, trust.quorum)))
        return Signing(said, statement_by, trust.threshold, names, told)

    # --- what others sign ---

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, capabilities=capabilities) if COSIGNING in capabilities:
                self._takers.add(node)
            case PeerDown(node):
                self._takers.discard(node)
            case Heard(node, Cosigned(envelope)):
                if envelope in self._lately and not self._answers:
                    return
                if self._patience.is_out(node):
                    self._network.hang_up(node, "signatures that are no news")
                else:
                    self._patience.lose(node)  # before it is looked at: much may come at once
                    self._tasks.spawn(self._take(node, envelope), "take a signature")

    async def _take(self, node: NodeId, envelope: bytes) -> None:
        """Nothing of this changes what is signed, only by how many: whoever says it.

        What is no news is not answered: two hosts that have all would never be done.
        """
        news = False
        with suppress(EnticedError):
            kind = sealed_type(envelope)
            if kind == STATEMENT_TYPE:
                news = await self._take_statement(node, envelope)
            elif kind == NAME_TYPE:
                news = await self._naming.take_drawn_up(envelope)
        if news:
            self._patience.regain(node)

    async def _take_statement(self, node: NodeId, envelope: bytes) -> bool:
        image = open_statement(envelope, self._identity.trust.one_of()).image
        answer = self._answers.get((node, image))
        if answer is not None:
            answer.set()
            return True
        merged = await self._keep(image, envelope)
        if merged is None:
            return False
        for taker in self._takers & {node, *self._interested(image)}:
            self._network.send(taker, Cosigned(merged))
        return True

    def _interested(self, image: ImageId) -> set[NodeId]:
        """Hosts with a session that pull it, or have been asked for it."""
        host = self._driver.host
        pulling = {peer.node for peer in host.peers() if image in peer.subscriptions}
        return pulling | set(host.holders_of(image))

    async def _keep(self, image: ImageId, envelope: bytes) -> bytes | None:
        """Add its signatures to the statement of the same words that is here; what that is now, None without news."""
        quorum = self._identity.trust.quorum
        async with self._merging:
            for ours in self._stockroom.image(image).statements:
                merged = with_signatures_of(ours, envelope, quorum)
                if merged != ours:
                    await self._threads.run(self._stockroom.replace_statement, image, ours, merged)
                    self._lately[merged] = None
                    if len(self._lately) > COSIGNED_KNOWN_MAX_COUNT:
                        del self._lately[next(iter(self._lately))]
                    signed = len(keys_named(merged))
                    log.info("%d have signed for image %s", signed, image.short, extra={"image": image})
                    return merged
        return None
