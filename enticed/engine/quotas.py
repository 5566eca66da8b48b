"""Quotas: how many orders, and of how many bytes, a scheduler may have on one host at once.

What counts is what it has ordered here that goes on or keeps an image, and its campaigns from here that run: an image
is counted once, by its data. Bounds stand in the trust bundle, so they change everywhere while orders go on; what is
ordered stays when a bound is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enticed.core.orders import Order, owner_text
from enticed.engine.campaign_port import CampaignState, CampaignView
from enticed.engine.planning import Planning
from enticed.identity.host import HostIdentity
from enticed.limits import ORDERS_PER_OWNER_MAX_COUNT
from protocol.errors import AbsentError, QuotaError
from protocol.identifiers import ImageId
from protocol.limits import GIB

SCHEDULER = "scheduler:"
_OVER = (CampaignState.FAILED, CampaignState.CANCELLED)


class Quotas:
    def __init__(
        self,
        identity: HostIdentity,
        planning: Planning,
        orders: Callable[[], Iterable[Order]],
        campaigns: Callable[[], Iterable[CampaignView]],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._planning = planning
        self._orders = orders
        self._campaigns = campaigns
        self._clock = clock
        self._sizes: dict[ImageId, int] = {}
        """Of what schedulers with a bound in bytes have ordered, as far as it is known."""

    def check_count(self, owner: str) -> None:
        """`QuotaError` where an owner has as many orders here as it may."""
        now = self._clock()
        theirs = sum(1 for one in self._orders() if one.owner == owner and one.holds_place(now))
        said = self._identity.trust.scheduler(owner.removeprefix(SCHEDULER))
        if theirs >= (ORDERS_PER_OWNER_MAX_COUNT if said is None else said.orders):
            raise QuotaError(f"{owner_text(owner)} has {theirs} orders here: cancel some, or wait")

    async def check_bytes(self, owner: str, image: ImageId) -> None:
        """`QuotaError` where an owner would have more bytes ordered here than it may, with this image.

        `AbsentError` where nobody who could be reached says how large the image is. Nothing is waited for, or asked,
        where there is no bound.
        """
        if self._bound(owner) is None:
            return
        await self._learn({image, *self._ordered(owner)}, needed=image)
        ordered, bound = self._ordered(owner), self._bound(owner)  # again: others may have ordered meanwhile
        theirs, more = sum(self._sizes.get(one, 0) for one in ordered - {image}), self._sizes[image]
        if bound is not None and theirs + more > bound:
            raise QuotaError(
                f"{owner_text(owner)} may have {bound / GIB:.2f} GiB ordered here at once, has {theirs / GIB:.2f}, and "
                f"image {image.short} is {more / GIB:.2f}: cancel some, or wait"
            )

    def _bound(self, owner: str) -> int | None:
        said = self._identity.trust.scheduler(owner.removeprefix(SCHEDULER)) if owner.startswith(SCHEDULER) else None
        return None if said is None else said.max_bytes or None

    def _ordered(self, owner: str) -> set[ImageId]:
        now = self._clock()
        orders = {one.image for one in self._orders() if one.owner == owner and one.holds_place(now) and one.image}
        return orders | {one.image for one in self._campaigns() if one.owner == owner and one.state not in _OVER}

    async def _learn(self, images: set[ImageId], needed: ImageId) -> None:
        self._sizes = {image: size for image, size in self._sizes.items() if image in images}
        for image in images - self._sizes.keys():
            try:
                self._sizes[image] = await self._planning.data_bytes(image)
            except AbsentError:
                if image == needed:
                    raise
