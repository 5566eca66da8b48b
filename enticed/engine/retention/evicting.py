"""Evicting: what `enticed.core.eviction` decides, carried out.

What that has to know is brought together here: who uses an image, who wants it, who else holds it. Before one goes,
those others have to show that they do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from enticed.core.eviction import Bond, Candidate, Decision, Ground, decide, goes_all_the_same, proofs_wanted
from enticed.core.orders import OrderState
from enticed.engine.driver import Driver
from enticed.engine.retention.bonds import Bonds
from enticed.engine.retention.floor_keeping import FloorKeeping
from enticed.engine.retention.port import Judged, Reckoning
from enticed.engine.retention.proving import Proving
from enticed.engine.retention.removal import Removal
from enticed.engine.stock.stockroom import HEAL_PREFIX
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.recalls import Recalls
from enticed.store.images import StoredImage, claim_bytes
from enticed.store.limits import EVICTIONS_MAX_COUNT, PROOFS_TIMEOUT_S, UNPROVEN_S
from enticed.store.store import Store
from enticed.store.use import guests_on
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import ImageId
from protocol.names import is_digest_name

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Proofs:
    """Of one pass: how long it may yet ask; and what is known of images whose other holders were to show them."""

    left_s: float
    known: dict[ImageId, Candidate] = field(default_factory=dict)


class Evicting:
    """Belongs to the event loop. One at a time calls `clear`: what goes is counted once."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        recalls: Recalls,
        removal: Removal,
        floors: FloorKeeping,
        proving: Proving,
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._recalls = recalls
        self._removal = removal
        self._floors = floors
        self._proving = proving
        self._bonds = Bonds(driver, store, threads)
        self.guests: tuple[Path, ...] = ()
        """Directories with disks of guests that may stand on images of this store."""
        self._unproven: dict[ImageId, tuple[Candidate, float]] = {}
        """What is known of images whose holders did not show them to an earlier pass, and until when it counts."""
        self.evicted_images = 0
        self.evicted_bytes = 0

    async def clear(self, wanted_bytes: int, *, pressing: bool) -> Reckoning:
        """Until it is done, or nothing is left to try: what could not go is kept from the next pass."""
        gone: list[Judged] = []
        spared: dict[ImageId, str] = {}
        now = self._driver.clock()
        self._unproven = {image: known for image, known in self._unproven.items() if now < known[1]}
        proofs = _Proofs(PROOFS_TIMEOUT_S, {image: candidate for image, (candidate, _) in self._unproven.items()})
        while True:
            left_bytes = wanted_bytes - sum(one.decision.candidate.size_bytes for one in gone)
            planned = await self.reckon(left_bytes, pressing=pressing, spared=spared, proven=proofs.known)
            going = [one for one in planned.judged if one.decision.evict][:EVICTIONS_MAX_COUNT]
            for one in going:
                was_proven = one.image in proofs.known
                try:
                    await self._evict(one.decision, proofs, pressing=pressing)
                    gone.append(replace(one, gone=True))
                except EnticedError as error:
                    if was_proven or one.image not in proofs.known:
                        spared[one.image] = str(error)
            if not going or len(gone) + len(spared) >= EVICTIONS_MAX_COUNT:
                freed_bytes = sum(one.decision.candidate.size_bytes for one in gone)
                stayed = (replace(one, trouble=spared.get(one.image, "")) for one in planned.judged)
                return replace(planned, judged=(*gone, *stayed), wanted_bytes=wanted_bytes, freed_bytes=freed_bytes)

    async def _evict(self, decision: Decision, proofs: _Proofs, *, pressing: bool) -> None:
        """An image of which fewer copies turn out to be elsewhere than it goes for stays, and enters `proofs`."""
        candidate = decision.candidate
        if proofs_wanted(decision) and (proofs.left_s <= 0 or await self._proving.is_in_vain(candidate.image)):
            proofs.known[candidate.image] = replace(candidate, others=0, claimed=candidate.others)
            raise LocalError(f"image {candidate.image.short} stays: nobody can be asked now to show it")

        async def objection() -> str:
            claims = await self._proving.census.claims(candidate.image)
            now = replace(candidate, others=None if claims is None else claims.count.whole, claimed=None)
            (again,) = decide([now], 1, self._driver.clock(), pressing=pressing)
            if claims is not None and again.evict and (wanted := proofs_wanted(decision)):
                asked_at = self._driver.clock()
                others = await self._proving.holders(candidate.image, claims, wanted, proofs.left_s)
                proofs.left_s -= max(0.0, self._driver.clock() - asked_at)
                now = replace(now, others=others, claimed=claims.count.whole)
                (again,) = decide([now], 1, self._driver.clock(), pressing=pressing)
            if goes_all_the_same(decision, again):
                return await self._bond_by_now(candidate.image)
            proofs.known[candidate.image] = now
            self._unproven[candidate.image] = now, self._driver.clock() + UNPROVEN_S
            return again.why

        about = {"image": candidate.image}
        log.info("image %s is to go: %s", candidate.image.short, decision.why, extra=about)
        await self._removal.remove(candidate.image, objection)
        self.evicted_images += 1
        self.evicted_bytes += candidate.size_bytes

    async def _bond_by_now(self, image: ImageId) -> str:
        """What keeps an image that nothing kept when it was chosen; empty if nothing does."""
        guests = await self._threads.run(guests_on, self.guests)
        bond = (await self._bonds.of([self._store.image(image)], guests)).get(image)
        return "" if bond is None else bond.who

    async def reckon(
        self,
        wanted_bytes: int,
        *,
        pressing: bool,
        spared: dict[ImageId, str] | None = None,
        proven: dict[ImageId, Candidate] | None = None,
    ) -> Reckoning:
        """spared: what could not go, and why. proven: what is known of images whose other holders were to show them."""
        images = self._store.images()
        counts = await self._proving.census.of_all(stored.image for stored in images)
        guests = await self._threads.run(guests_on, self.guests)
        bonds = await self._bonds.of(images, guests)
        bonds |= {image: Bond(Ground.IN_USE, why) for image, why in (spared or {}).items()}
        (names, named), leased_until = self._names(), self._leased_until()
        candidates = [
            Candidate(
                stored.image,
                claim_bytes(stored.root),
                max(stored.last_used_at, leased_until.get(stored.image, 0.0)),
                None if (count := counts[stored.image]) is None else count.whole,
                self._floor(stored, is_named=stored.image in named),
                self._recalls.of(stored.image) is not None,
                bonds.get(stored.image),
            )
            for stored in images
        ]
        if proven:
            candidates = [_known_better(one, proven.get(one.image)) for one in candidates]
        decisions = decide(candidates, wanted_bytes, self._driver.clock(), pressing=pressing)
        space = self._store.space()
        return Reckoning(
            tuple(Judged(one, tuple(names.get(one.candidate.image, ()))) for one in decisions),
            wanted_bytes,
            sum(one.candidate.size_bytes for one in decisions if one.evict),
            space.claimed_bytes,
            space.limit_bytes,
            len(guests.unread),
        )

    def _floor(self, stored: StoredImage, *, is_named: bool) -> int:
        return 0 if self._is_given_up(stored) else max(self._floors.replicas(stored.image), int(is_named))

    def _is_given_up(self, stored: StoredImage) -> bool:
        """Whether it is not whole, nor to be so: no copy that anybody counts on, though it may have pieces that nobody
        else has. What an order under way wants has a bond; what has rotted is healed as soon as it can be; and what
        the core does not know is still read after the start: it may be whole."""
        heal = self._driver.host.order(f"{HEAL_PREFIX}{stored.image}")
        is_known = self._driver.host.image(stored.image) is not None
        return is_known and not stored.ready and (heal is None or heal.state is OrderState.CANCELLED)

    def _names(self) -> tuple[dict[ImageId, list[str]], set[ImageId]]:
        """What people call each image; and which have a name that still holds: those are to be had somewhere, whether
        anybody has said so or not."""
        called: dict[ImageId, list[str]] = {}
        named: set[ImageId] = set()
        for saved in self._store.names():
            if not is_digest_name(saved.name):
                called.setdefault(saved.image, []).append(saved.name)
                if saved.expires_at > self._driver.clock():
                    named.add(saved.image)
        return called, named

    def _leased_until(self) -> dict[ImageId, float]:
        """A lease that has ended counts as a use until then."""
        until: dict[ImageId, float] = {}
        now = self._driver.clock()
        for order in self._driver.host.orders():
            if order.image is not None and order.keep_until is not None:
                until[order.image] = max(until.get(order.image, 0.0), min(order.keep_until, now))
        return until


def _known_better(one: Candidate, proven: Candidate | None) -> Candidate:
    """With the other holders that were proven, if they were to prove it."""
    return one if proven is None else replace(one, others=proven.others, claimed=proven.claimed)
