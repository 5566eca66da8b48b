"""Proving: hosts that say they hold an image are asked for a fragment of it, so that no copy goes for words alone.

Each is asked for one that is chosen here at random, the way that any pull goes; it is verified as any, and thrown away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import numpy as np

from enticed.core.holders import Proof, Witnesses
from enticed.core.vocabulary import Contact
from enticed.engine.driver import Driver
from enticed.engine.retention.census import Census, Claims
from enticed.engine.stock.stockroom import Stockroom
from enticed.landing import Landing
from enticed.store.limits import (
    CALLED_AGAIN_S,
    PROOF_AGAIN_S,
    PROOF_TIMEOUT_S,
    PROOFS_FAILED_MAX_COUNT,
    PROOFS_FAILED_OF_HOST_COUNT,
)
from enticed.transfer.errors import BusyError, PeerSilentError
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import PeerUp
from protocol.errors import AbsentError, CorruptError, DeniedError, ExhaustedError, RemoteError
from protocol.identifiers import ImageId, NodeId
from protocol.limits import ROOT_MAX_SIZE_BYTES
from protocol.manifest import Fragments
from protocol.messages import FragmentsRequest, Part, PartRequest

log = logging.getLogger(__name__)
Reach = Callable[[NodeId, tuple[str, ...]], Awaitable[PeerUp]]
"""A session with this host, at these addresses; `AbsentError` where there can be none now."""
Key = TypeVar("Key")
_Answer = tuple[Proof, float]
"""And after how long a busy host may be asked again."""


@dataclass(frozen=True, slots=True, eq=False)
class _Fragment:
    """One of an image, and what it has to be."""

    request: FragmentsRequest
    digests: Fragments


@dataclass(frozen=True, slots=True)
class _Root:
    """Of an image of zeros, which has no fragments."""

    request: PartRequest
    encoded: bytes


class Proving:
    """Belongs to the event loop."""

    def __init__(
        self, driver: Driver, network: PeerNetwork, stockroom: Stockroom, census: Census, reach: Reach
    ) -> None:
        self.census = census
        """Who says that it holds what."""
        self._clock = driver.clock
        self._network = network
        self._stockroom = stockroom
        self._reach = reach
        self._dice = Random(secrets.randbits(64))
        """What is asked for is not to be foreseen."""
        self.shown = self.not_shown = 0
        """How many hosts, asked to show what they say they hold, have and have not."""
        self._silent_until: dict[NodeId, float] = {}
        """Hosts that have not answered in time, or were busy, are not asked again at once, about any image."""
        self._unreachable_until: dict[NodeId, float] = {}
        """Holders that could not be called on: each costs a timeout, and may be one of every image's."""
        self._failed_until: dict[tuple[ImageId, NodeId], float] = {}
        """Hosts that have not shown an image are not asked about it again at once: else who holds little of it would be
        asked until it is for that. Nor is the same asked for later: by then it could have fetched that, from here. Who
        has not shown several is asked about none."""
        self._answered_until: dict[NodeId, float] = {}
        """Holders that could be called on: who takes its time to answer does so once, not for every image."""

    async def holders(self, image: ImageId, claims: Claims, wanted: int, within_s: float = PROOF_TIMEOUT_S) -> int:
        """How many hosts hold all of an image that is here, by what they have shown of it; `wanted` are enough.

        Takes so long at the most, and no more than PROOF_TIMEOUT_S. Raises as `Stockroom.page` does, where this host
        cannot tell what is right.
        """
        questions: dict[NodeId, _Fragment | _Root] = {}

        async def ask(contact: Contact) -> _Answer:
            """Whoever was busy is asked the same again: else it would be until it is asked for what it has."""
            if contact.node not in questions:
                questions[contact.node] = await self._question(image)
            return await self._ask(image, contact, questions[contact.node])

        heard = self._heard(image, claims.holders)
        passed_over = len(claims.holders) - len(heard)
        witnesses = await self._poll(heard, claims.count.whole, wanted, ask, within_s, passed_over)
        until = self._clock() + PROOF_AGAIN_S
        for node in witnesses.silent(self._clock()):
            self._silent_until[node] = until
            self._note(image, node, "nothing came in time")
        if not witnesses.over:
            for node in witnesses.busy:
                self._silent_until[node] = until
                log.info("%s is too busy to show image %s", node.short, image.short, extra={"peer": node})
        self.shown += witnesses.shown
        return witnesses.proven

    async def is_in_vain(self, image: ImageId) -> bool:
        """Whether hosts say that they hold it, and none of them is to be asked now."""
        claims = await self.census.claims(image)
        return claims is not None and bool(claims.holders) and not self._heard(image, claims.holders)

    def _heard(self, image: ImageId, holders: Iterable[Contact]) -> tuple[Contact, ...]:
        """Those whose turn it is to be asked."""
        self._silent_until = self._later(self._silent_until)
        self._failed_until = self._later(self._failed_until)
        failures = Counter(node for _, node in self._failed_until)
        return tuple(
            one
            for one in holders
            if one.node not in self._silent_until
            and (image, one.node) not in self._failed_until
            and failures[one.node] < PROOFS_FAILED_OF_HOST_COUNT
        )

    def _later(self, until: dict[Key, float]) -> dict[Key, float]:
        """Without what is over."""
        now = self._clock()
        return {key: at for key, at in until.items() if now < at}

    async def answering(self, holders: Iterable[Contact], count: int, wanted: int) -> int:
        """How many of so many that are said to hold an image, these among them, can be reached at all; `wanted` are
        enough. Takes PROOF_TIMEOUT_S at the most."""
        self._unreachable_until = self._later(self._unreachable_until)
        self._answered_until = self._later(self._answered_until)
        witnesses = await self._poll(holders, count, wanted, self._greet, PROOF_TIMEOUT_S)
        for node in witnesses.silent(self._clock()):
            self._unreachable_until[node] = self._clock() + CALLED_AGAIN_S
        return witnesses.proven

    async def _poll(
        self,
        holders: Iterable[Contact],
        count: int,
        wanted: int,
        ask: Callable[[Contact], Awaitable[_Answer]],
        within_s: float,
        passed_over: int = 0,
    ) -> Witnesses:
        """Ask them until as many as are wanted have answered well, or the time is over."""
        contacts = {one.node: one for one in holders}
        witnesses = Witnesses(contacts, count, wanted, self._dice, passed_over=passed_over)
        asking: dict[asyncio.Future[_Answer], NodeId] = {}
        ends_at = self._clock() + min(PROOF_TIMEOUT_S, within_s)
        try:
            while not witnesses.over and (now := self._clock()) < ends_at:
                for node in witnesses.next(now):
                    asking[asyncio.ensure_future(ask(contacts[node]))] = node
                until = min(ends_at, witnesses.next_deadline(now) or ends_at)
                for task in await _first_of(asking, until - now):
                    witnesses.answered(asking.pop(task), *task.result(), self._clock())
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return witnesses

    async def _greet(self, contact: Contact) -> _Answer:
        if contact.node in self._unreachable_until:
            return Proof.NOT_SHOWN, 0.0
        if contact.node not in self._answered_until:
            try:
                await self._reach(contact.node, contact.addresses)
            except AbsentError:
                self._unreachable_until[contact.node] = self._clock() + CALLED_AGAIN_S
                return Proof.NOT_SHOWN, 0.0
            self._answered_until[contact.node] = self._clock() + CALLED_AGAIN_S
        return Proof.SHOWN, 0.0

    async def _ask(self, image: ImageId, contact: Contact, question: _Fragment | _Root) -> _Answer:
        try:
            await self._reach(contact.node, contact.addresses)
            await self._fetch(contact.node, question)
        except BusyError as busy:
            return Proof.BUSY, busy.retry_after_s
        except (AbsentError, CorruptError, DeniedError, PeerSilentError, RemoteError) as error:
            self._note(image, contact.node, str(error))
            self._failed_until[image, contact.node] = self._clock() + PROOF_AGAIN_S
            if len(self._failed_until) > PROOFS_FAILED_MAX_COUNT:
                del self._failed_until[next(iter(self._failed_until))]
            return Proof.NOT_SHOWN, 0.0
        except (ExhaustedError, OSError):
            return Proof.BUSY, 0.0  # no thread or descriptor is left for it here
        return Proof.SHOWN, 0.0

    def _note(self, image: ImageId, node: NodeId, why: str) -> None:
        self.not_shown += 1
        about = {"image": image, "peer": node}
        log.warning("%s claims image %s, and shows no fragment of it: %s", node.short, image.short, why, extra=about)

    async def _question(self, image: ImageId) -> _Fragment | _Root:
        root = self._stockroom.image(image).root
        if not root.fragments:
            return _Root(PartRequest(image, Part.ROOT, 0, ROOT_MAX_SIZE_BYTES), root.encoded)
        index = self._dice.randrange(root.fragments)
        piece = int(np.searchsorted(root.first_fragments, index, side="right")) - 1
        first = index - int(root.first_fragments[piece])
        page = await self._stockroom.page(image, piece)
        return _Fragment(FragmentsRequest(image, piece, first, 1), page[first : first + 1])

    async def _fetch(self, node: NodeId, question: _Fragment | _Root) -> None:
        """Raises as `PeerNetwork.fetch` does, and `CorruptError` for a wrong answer."""
        if isinstance(question, _Root):
            if (await self._network.fetch_part(node, question.request))[0] != question.encoded:
                raise CorruptError("its root is another one")
            return
        fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            await self._network.fetch(node, question.request, Landing.of(fd, question.digests))
        finally:
            os.close(fd)


async def _first_of(tasks: Collection[asyncio.Future[_Answer]], timeout_s: float) -> set[asyncio.Future[_Answer]]:
    """Those that are done once one is, or after so long."""
    if not tasks:
        await asyncio.sleep(timeout_s)
        return set()
    return (await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED))[0]
