"""Campaigning: carries out what the campaign machine decides, and answers for the campaigns of this host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from enticed.core.campaigns import events as ev
from enticed.core.campaigns.campaign import Campaign, Run
from enticed.core.campaigns.machine import Campaigns
from enticed.core.orders import owner_text
from enticed.engine.campaigns.meetings import Meetings
from enticed.engine.campaigns.order_messages import place_order, told_of
from enticed.engine.campaigns.port import CampaignTerms, CampaignView
from enticed.engine.campaigns.roster import Roster
from enticed.engine.campaigns.views import campaign_view
from enticed.engine.names.naming import Naming
from enticed.engine.threads import StoreThreads
from enticed.limits import (
    CAMPAIGN_HOSTS_CHECKED_COUNT,
    CAMPAIGN_HOSTS_MAX_COUNT,
    CAMPAIGN_KEEP_S,
    CAMPAIGN_SAVE_RETRY_S,
    CAMPAIGNS_PER_OWNER_MAX_COUNT,
)
from enticed.store.store import Store
from enticed.transfer.ports import Event, Heard, PeerDown, Said
from enticed.transfer.tasks import Tasks
from protocol.credentials import NodeCredential
from protocol.errors import AbsentError, DeniedError, EnticedError, ExhaustedError, LocalError
from protocol.identifiers import ImageId, NodeId
from protocol.messages import CancelOrder, OrderNews

log = logging.getLogger(__name__)


class Campaigning:
    """Belongs to the event loop. say: tells a host something, as `Reception` has it."""

    def __init__(
        self,
        store: Store,
        threads: StoreThreads,
        naming: Naming,
        roster: Roster,
        meetings: Meetings,
        me: NodeCredential,
        say: Callable[[NodeId, Said], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._threads = threads
        self._naming = naming
        self._roster = roster
        self._meetings = meetings
        self._me = me
        self._say = say
        self._clock = clock
        self._machine = Campaigns()
        self._tasks = Tasks()
        self._unsaved: list[ev.SaveCampaign | ev.ForgetCampaign] = []
        self._saving = asyncio.Lock()
        self._saver: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._is_closed = False

    def start(self) -> None:
        """Go on with the campaigns that were under way, and know of the others."""
        for campaign in self._store.campaigns():
            self._tell(ev.CampaignPlaced(campaign, is_resumed=True))

    async def close(self) -> None:
        self._is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        with suppress(EnticedError):
            await self._saved()
        await self._tasks.close()

    # --- what may be asked ---

    async def place(
        self, key: str, terms: CampaignTerms, owner: str, check: Callable[[ImageId], Awaitable[None]]
    ) -> CampaignView:
        """As of `CampaignEngine`. check: raises for an image that nobody may order."""
        if not self._me.may_dispatch:
            raise DeniedError(
                "this host may not order on others: the founding host may, and hosts that join with a token of "
                "`entice token --campaigns`"
            )
        self._check_key(key, terms.target, owner)
        image = await self._naming.resolve(terms.target)
        hosts, is_complete = await self._chosen(terms)
        await check(image)  # last: nothing comes between what it counts and this campaign
        known = self._check_key(key, terms.target, owner, image)  # again: others may have asked meanwhile
        now = self._clock()
        campaign = Campaign(
            key,
            terms.target,
            image,
            known.campaign.created_at if known is not None else now,
            hosts,
            None if terms.deadline_s is None else now + terms.deadline_s,
            CAMPAIGN_KEEP_S if terms.keep_s is None else terms.keep_s,
            terms.labels,
            is_complete,
            terms.at_most_at_once,
            owner,
        )
        self._tell(ev.CampaignPlaced(campaign))
        try:
            await self._saved_for_asker()
        except ExhaustedError:
            if known is None:  # whoever asked is told that it is not placed, and so it must not be
                self._tell(ev.CampaignCancelled(key))
            raise
        return self.view(key)

    async def cancel(self, key: str, owner: str) -> CampaignView:
        campaign = self._run(key).campaign
        if owner not in ("", campaign.owner):
            raise DeniedError(f"the campaign {key} is of {owner_text(campaign.owner)}, not yours to cancel")
        self._tell(ev.CampaignCancelled(key))
        await self._saved_for_asker()
        return self.view(key)

    def view(self, key: str) -> CampaignView:
        return campaign_view(self._run(key), self._meetings.names)

    def views(self) -> tuple[CampaignView, ...]:
        return tuple(campaign_view(run, None) for run in self._machine.runs())

    def runs(self) -> tuple[Run, ...]:
        """For who counts them, and does not touch."""
        return self._machine.runs()

    async def after(self, key: str, revision: int, timeout_s: float) -> CampaignView:
        try:
            async with asyncio.timeout(timeout_s):
                while self._run(key).revision == revision:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.view(key)

    # --- what the network tells ---

    def network_event(self, event: Event) -> None:
        match event:
            case PeerDown(node, why):
                self._tell(ev.Lost(node, f"the session with it is over: {why}"))
            case Heard(node, OrderNews() as news):
                self.heard(node, news)

    def heard(self, node: NodeId, news: OrderNews) -> None:
        self._tell(told_of(node, news))

    # --- inside ---

    def _run(self, key: str) -> Run:
        run = self._machine.run(key)
        if run is None:
            raise AbsentError(f"there is no campaign {key!r}")
        return run

    def _check_key(self, key: str, target: str, owner: str, image: ImageId | None = None) -> Run | None:
        """The campaign of that key, which this would renew; None where it would be a new one."""
        run = self._machine.run(key)
        if run is not None:
            campaign = run.campaign
            if campaign.owner != owner:
                raise LocalError(f"the key {key} is in use by {owner_text(campaign.owner)}")
            if campaign.cancelled:
                if not run.is_over:
                    raise ExhaustedError(f"the campaign {key} is being cancelled: try again when that is done")
            elif campaign.target != target:
                which = campaign.target
                raise LocalError(f"the key {key} is in use for {which}: cancel that first, or take another key")
            elif image in (None, campaign.image):
                return run
            elif not run.is_over:
                which = f"what {target} meant before"
                raise LocalError(f"the key {key} is in use for {which}: cancel that first, or ask when it is over")
        theirs = sum(1 for one in self._machine.runs() if one.campaign.owner == owner and not one.is_over)
        if theirs >= CAMPAIGNS_PER_OWNER_MAX_COUNT:
            raise ExhaustedError(f"{owner_text(owner)} has {theirs} campaigns under way: cancel some, or wait")
        return None

    async def _chosen(self, terms: CampaignTerms) -> tuple[tuple[tuple[str, NodeId | None], ...], bool]:
        """The hosts of a campaign, and whether these are all."""
        if terms.labels:
            roll = await self._roster.labelled(terms.labels)
            if not roll.hosts:
                raise AbsentError(f"no host has the labels {', '.join(map(str, terms.labels))}")
            chosen = sorted(roll.hosts)[:CAMPAIGN_HOSTS_MAX_COUNT]
            return tuple((node.hex(), node) for node in chosen), roll.is_complete and len(chosen) == len(roll.hosts)
        hosts = tuple(dict.fromkeys(terms.hosts))
        # Of a few, one at least must be known; of many, each says for itself, in its row, that nobody knows it.
        if len(hosts) <= CAMPAIGN_HOSTS_CHECKED_COUNT:
            found = await asyncio.gather(*map(self._roster.host, hosts))
            if not any(found):
                raise AbsentError(f"no host called {hosts[0]} is known in this cluster" + _and_others(len(hosts)))
        return tuple((host, None) for host in hosts), True

    async def _saved(self) -> None:
        """Wait until every campaign is durable as it is now; raises what the store does."""
        last = self._unsaved[-1] if self._unsaved else None  # what comes after it is for others to wait for
        async with self._saving:
            while any(one is last for one in self._unsaved):
                match self._unsaved[0]:
                    case ev.SaveCampaign(campaign):
                        await self._threads.run(self._store.save_campaign, campaign)
                    case ev.ForgetCampaign(key):
                        await self._threads.run(self._store.delete_campaign, key)
                del self._unsaved[0]

    async def _saved_for_asker(self) -> None:
        try:
            await self._saved()
        except EnticedError as error:  # a full disk, or one that fails: either passes
            raise ExhaustedError(f"this host takes no campaigns just now: {error}") from error

    async def _save(self) -> None:
        """What nobody waits for: that a campaign is over, or forgotten."""
        while self._unsaved:
            try:
                await self._saved()
            except EnticedError as error:
                log.warning("how campaigns ended cannot be saved: %s", error)
                await asyncio.sleep(CAMPAIGN_SAVE_RETRY_S)

    def _tell(self, event: ev.Event) -> None:
        if self._is_closed:
            return
        for effect in self._machine.handle(event, self._clock()):
            self._carry_out(effect)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._unsaved and (self._saver is None or self._saver.done()):
            self._saver = self._tasks.spawn(self._save(), "save campaigns")
        self._set_alarm()

    def _carry_out(self, effect: ev.Effect) -> None:
        match effect:
            case ev.SaveCampaign() | ev.ForgetCampaign():
                self._unsaved.append(effect)
            case ev.Reach():
                self._tasks.spawn(self._reach(effect), f"reach {effect.host}")
            case ev.Ask(node):
                self._say(node, place_order(effect, self._clock()))
            case ev.Drop(node, key):
                self._say(node, CancelOrder(key))

    async def _reach(self, effect: ev.Reach) -> None:
        try:
            node = await self._meetings.meet(effect)
        except EnticedError as error:
            self._tell(ev.Unreached(effect.key, effect.host, str(error), isinstance(error, DeniedError)))
        else:
            self._tell(ev.Reached(effect.key, effect.host, node))

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        now = self._clock()
        deadline = self._machine.next_deadline(now)
        self._alarm = None
        if deadline is not None:
            self._alarm = asyncio.get_running_loop().call_later(deadline - now, self._tell, ev.Woken())


def _and_others(hosts: int) -> str:
    return f", nor any of the {hosts - 1} others" if hosts > 1 else ""
