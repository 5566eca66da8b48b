"""The campaign machine: which host gets its order now, what counts as ready, and when to ask again.

Each host of a campaign has its turn, at most `at_most_at_once` of them at the same time: it is reached, asked, and
followed until it says that it is ready or has failed. Earliest due date first where turns are scarce. Whatever happens
on one host changes nothing for the others.

Time is seconds of one clock that never goes back. The machine belongs to one writer.
"""

from __future__ import annotations

from dataclasses import replace

from enticed.core.campaigns import events as ev
from enticed.core.campaigns.campaign import OVER, PASSING, Campaign, Placement, Run, Stage
from enticed.core.campaigns.policy import CampaignPolicy
from enticed.core.orders import ENDED, OrderState, Promise
from protocol.identifiers import NodeId

_WITH_A_TURN = (Stage.CALLING, Stage.ORDERED, Stage.LOST)


class Campaigns:
    def __init__(self, policy: CampaignPolicy | None = None) -> None:
        self._policy = policy or CampaignPolicy()
        self._runs: dict[str, Run] = {}
        self._at: dict[NodeId, set[tuple[str, str]]] = {}
        """By host that was reached: campaign and the host's name there."""
        self._effects: list[ev.Effect] = []

    # --- the interface ---

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        """Take one event in and return what is to be done about it, in order."""
        match event:
            case ev.CampaignPlaced(campaign, is_resumed):
                if is_resumed:
                    self._resume(campaign, now)
                else:
                    self._place(campaign, now)
            case ev.CampaignCancelled(key):
                self._cancel(key)
            case ev.Reached(key, host, node):
                self._reached(key, host, node, now)
            case ev.Unreached(key, host, reason, is_final):
                if (called := self._called(key, host)) is not None:
                    self._missed(*called, reason, now, is_final=is_final)
            case ev.Told():
                self._told(event, now)
            case ev.Lost(node, reason):
                self._lost(node, reason, now)
            case ev.Woken():
                pass
        self._go_on(now)
        self._note_ends(now)
        effects, self._effects = self._effects, []
        return effects

    def next_deadline(self, now: float) -> float | None:
        """When to send `Woken`, `now` at the earliest; None when only events can change anything."""
        times = (run.next_alarm() for run in self._runs.values())
        return min((max(time, now) for time in times if time is not None), default=None)

    def runs(self) -> tuple[Run, ...]:
        """Every campaign, for who looks and does not touch."""
        return tuple(self._runs.values())

    def run(self, key: str) -> Run | None:
        return self._runs.get(key)

    # --- events ---

    def _place(self, campaign: Campaign, now: float) -> None:
        known = self._runs.get(campaign.key)
        if known is None or known.campaign.image != campaign.image or known.campaign.cancelled:
            # Whoever followed one of this key before must see that it changes.
            run = self._runs[campaign.key] = Run(campaign, now, 0 if known is None else known.revision + 1)
            if known is not None and not known.campaign.cancelled:
                self._take_over(known, run)
        else:
            run = known
            run.campaign, run.asked_at, run.revision = campaign, now, run.revision + 1
        self._effects.append(ev.SaveCampaign(run.campaign))
        self._choose_hosts(run)
        for one in list(run.placements.values()):
            self._ask_again(run, one, now)
        self._forget_oldest()

    def _resume(self, campaign: Campaign, now: float) -> None:
        """Nobody is asked again for what was over: hosts would fetch and keep anew what they were done with."""
        if campaign.over_at is None:
            self._place(campaign, now)
            self._runs[campaign.key].patient_until = now + self._policy.resume_patience_s
        elif now < campaign.over_at + campaign.keep_s:
            self._runs[campaign.key] = Run.ended(campaign, campaign.over_at)
        else:
            self._effects.append(ev.ForgetCampaign(campaign.key))

    def _take_over(self, known: Run, run: Run) -> None:
        """Another campaign has the key: hosts that it names too have their orders replaced when it is their turn, the
        others are let go."""
        named = dict(run.campaign.hosts)
        for one in known.placements.values():
            if one.host in named:
                self._leave(known, one)
                run.put(Placement(one.host, one.node, asked=one.asked))
            else:
                self._let_go(known, one)

    def _choose_hosts(self, run: Run) -> None:
        """The hosts that the campaign names now: new ones wait for their turn, others are let go."""
        named = dict(run.campaign.hosts)
        for host in [host for host in run.placements if host not in named]:
            self._let_go(run, run.take(host))
        for host, node in named.items():
            if host not in run.placements:
                run.put(Placement(host, node))

    def _ask_again(self, run: Run, one: Placement, now: float) -> None:
        """What asking for a known campaign means to a host: a failure is forgiven, a lease that has aged is renewed."""
        if self._is_there(run, one) and one.stage in (Stage.CALLING, Stage.ORDERED):
            self._ask(run, one)  # its terms may have changed
        elif one.stage in (Stage.FAILED, Stage.LOST, Stage.RETRYING):
            run.put(Placement(one.host, one.node, asked=one.asked))
        elif one.stage is Stage.READY and one.leased_at is not None:
            aged_s = self._policy.renew_share * run.campaign.keep_s
            if now >= one.leased_at + aged_s:
                run.put(replace(one, stage=Stage.WAITING, turn_at=0.0, tries=0))

    def _forget_oldest(self) -> None:
        over = [run for run in self._runs.values() if run.is_over]
        surplus = len(self._runs) - self._policy.campaigns_kept
        for run in sorted(over, key=lambda run: run.campaign.created_at)[: max(0, surplus)]:
            self._forget(run)

    def _forget(self, run: Run) -> None:
        del self._runs[run.campaign.key]
        self._effects.append(ev.ForgetCampaign(run.campaign.key))
        for one in run.placements.values():
            self._leave(run, one)

    def _cancel(self, key: str) -> None:
        run = self._runs.get(key)
        if run is None or run.campaign.cancelled:
            return
        run.campaign = replace(run.campaign, cancelled=True)
        run.revision += 1
        self._effects.append(ev.SaveCampaign(run.campaign))
        for one in list(run.placements.values()):
            knows = self._is_there(run, one)
            self._let_go(run, one)
            if knows or not one.asked or one.order_state is OrderState.FAILED:
                run.put(replace(one, stage=Stage.CANCELLED))
            else:  # it has an order, for all that is known, and is to hear that it is not wanted any more
                run.put(replace(one, stage=Stage.WAITING, tries=0))

    def _let_go(self, run: Run, one: Placement) -> None:
        """Its order is wanted no more, as far as this campaign goes."""
        if one.node is not None and self._is_there(run, one):
            self._effects.append(ev.Drop(one.node, run.campaign.key))
            self._leave(run, one)

    def _is_there(self, run: Run, one: Placement) -> bool:
        """Whether it was asked over a session that lasts."""
        return one.node is not None and (run.campaign.key, one.host) in self._at.get(one.node, ())

    def _ask(self, run: Run, one: Placement) -> None:
        campaign = run.campaign
        assert one.node is not None
        self._effects.append(
            ev.Ask(one.node, campaign.key, campaign.image, campaign.due_at, campaign.keep_s, campaign.owner)
        )

    def _leave(self, run: Run, one: Placement) -> None:
        if one.node in self._at:
            self._at[one.node].discard((run.campaign.key, one.host))
            if not self._at[one.node]:
                del self._at[one.node]

    def _reached(self, key: str, host: str, node: NodeId, now: float) -> None:
        called = self._called(key, host)
        if called is None:
            return
        run, one = called
        if run.campaign.cancelled:
            self._effects.append(ev.Drop(node, key))
            run.put(replace(one, node=node, stage=Stage.CANCELLED))
            return
        twin = run.by_node.get(node, host)
        if twin != host:
            run.put(replace(one, stage=Stage.FAILED, reason=f"it is the same host as {twin}"))
            return
        self._at.setdefault(node, set()).add((key, host))
        one = replace(one, node=node, asked=True, turn_at=now + self._policy.answer_patience_s, reason="")
        run.put(one)
        self._ask(run, one)

    def _told(self, told: ev.Told, now: float) -> None:
        for key, host in list(self._at.get(told.node, ())):
            run = self._runs[key]
            if key != told.key or run.campaign.cancelled:
                continue
            one = replace(
                run.placements[host],
                order_state=told.state,
                failure=told.failure,
                percent=told.percent,
                promise=told.promise,
                estimate_s=told.estimate_s,
                reason=told.reason,
                tries=0,
            )
            match told.state:
                case OrderState.READY:
                    run.put(replace(one, stage=Stage.READY, percent=100.0, leased_at=now))
                case OrderState.FAILED if told.failure in PASSING:
                    self._missed(run, replace(one, tries=run.placements[host].tries), told.reason, now)
                case OrderState.FAILED:
                    run.put(replace(one, stage=Stage.FAILED, promise=_broken(run)))
                case OrderState.CANCELLED:
                    reason = told.reason or "somebody on that host has cancelled the order"
                    run.put(replace(one, stage=Stage.FAILED, reason=reason, promise=_broken(run)))
                case _:
                    run.put(replace(one, stage=Stage.ORDERED))

    def _lost(self, node: NodeId, reason: str, now: float) -> None:
        for key, host in self._at.pop(node, set()):
            run = self._runs[key]
            one = run.placements[host]
            if one.stage not in OVER:
                self._missed(run, one, reason, now)

    def _missed(self, run: Run, one: Placement, reason: str, now: float, *, is_final: bool = False) -> None:
        """A try was in vain: another one later, unless it is of no use."""
        self._leave(run, one)
        missed = replace(one, reason=reason, tries=one.tries + 1, turn_at=now + self._pause_s(one))
        if run.campaign.cancelled:
            over = is_final or missed.tries >= self._policy.drop_tries
            run.put(replace(missed, stage=Stage.CANCELLED if over else Stage.RETRYING))
        elif is_final or now >= self._gives_up_at(run):
            run.put(replace(missed, stage=Stage.FAILED, promise=_broken(run)))
        else:
            missed = replace(missed, turn_at=min(missed.turn_at, self._gives_up_at(run)))
            if _under_way(one) and missed.tries <= self._policy.lost_tries:
                run.put(replace(missed, stage=Stage.LOST))  # its promise stands: it goes on without us
            else:
                run.put(replace(missed, stage=Stage.RETRYING, order_state=None, promise=_broken(run)))

    def _pause_s(self, one: Placement) -> float:
        return float(min(self._policy.retry_last_s, self._policy.retry_first_s * 2.0 ** min(one.tries, 20)))

    def _gives_up_at(self, run: Run) -> float:
        """Until when a host that cannot be reached is tried again."""
        due_at = run.campaign.due_at
        give_up_at = run.asked_at + self._policy.give_up_s if due_at is None else due_at
        return max(give_up_at, run.patient_until)

    # --- what follows from any event ---

    def _go_on(self, now: float) -> None:
        """Take turns away that lead to nothing, and give those that are free, to the earliest due date first."""
        for run in self._runs.values():
            for one in run.due(now):
                if one.stage is Stage.CALLING:
                    self._missed(run, one, one.reason or "it does not answer", now)
                elif one.stage is Stage.LOST:
                    self._call(run, one, now)
                else:
                    run.put(replace(one, stage=Stage.WAITING))  # behind those that never had a turn
        taken = sum(run.count(*_WITH_A_TURN) for run in self._runs.values())
        for run in sorted(self._runs.values(), key=_urgency):
            here = (run.campaign.at_most_at_once or self._policy.at_once_max) - run.count(*_WITH_A_TURN)
            for one in run.first(Stage.WAITING, min(here, self._policy.at_once_max - taken)):
                self._call(run, one, now)
                taken += 1

    def _note_ends(self, now: float) -> None:
        for run in self._runs.values():
            if run.note_end(now):
                self._effects.append(ev.SaveCampaign(run.campaign))

    def _call(self, run: Run, one: Placement, now: float) -> None:
        run.put(replace(one, stage=Stage.CALLING, turn_at=now + self._policy.answer_patience_s))
        self._effects.append(ev.Reach(run.campaign.key, one.host, one.node, run.campaign.labels))

    def _called(self, key: str, host: str) -> tuple[Run, Placement] | None:
        """A campaign and its host, if that is being reached."""
        run = self._runs.get(key)
        one = run.placements.get(host) if run is not None else None
        return (run, one) if run is not None and one is not None and one.stage is Stage.CALLING else None


def _broken(run: Run) -> Promise | None:
    """What a host that is not going to have the image is said to be, where there is a due date."""
    return None if run.campaign.due_at is None else Promise.INFEASIBLE


def _under_way(one: Placement) -> bool:
    return one.order_state is not None and one.order_state not in ENDED


def _urgency(run: Run) -> tuple[bool, float, float]:
    """Cancellations first, since they make room; then earliest due date, then age."""
    campaign = run.campaign
    return (not campaign.cancelled, float("inf") if campaign.due_at is None else campaign.due_at, campaign.created_at)
