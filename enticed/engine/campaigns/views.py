"""Campaigns as they are shown, made from what the machine knows."""

from __future__ import annotations

from collections.abc import Mapping

from enticed.core.campaigns.campaign import Placement, Run, Stage, summary
from enticed.core.orders import Promise, owner_text
from enticed.engine.campaigns.port import CampaignHostView, CampaignState, CampaignView
from protocol.identifiers import NodeId


def campaign_view(run: Run, names: Mapping[NodeId, str] | None) -> CampaignView:
    """names: what hosts are called that have been seen; None for a view without its hosts."""
    campaign, counted = run.campaign, summary(run.placements.values())
    return CampaignView(
        key=campaign.key,
        target=campaign.target,
        image=campaign.image,
        owner=owner_text(campaign.owner) if campaign.owner else "",
        state=_state(run),
        created_at=campaign.created_at,
        due_at=campaign.due_at,
        keep_s=campaign.keep_s,
        at_most_at_once=campaign.at_most_at_once or None,
        labels={label.key: label.value for label in campaign.labels},
        complete=campaign.is_complete,
        promise=next((one for one in reversed(Promise) if counted.promises[one]), None),
        hosts_ready=counted.ready,
        hosts_total=counted.total,
        revision=run.revision,
        hosts=() if names is None else tuple(_host_view(one, names) for one in run.placements.values()),
    )


def _state(run: Run) -> CampaignState:
    if run.campaign.cancelled:
        return CampaignState.CANCELLED if run.is_over else CampaignState.CANCELLING
    if not run.is_over:
        return CampaignState.RUNNING
    return CampaignState.READY if run.count(Stage.READY) == len(run.placements) else CampaignState.FAILED


def _host_view(one: Placement, names: Mapping[NodeId, str]) -> CampaignHostView:
    return CampaignHostView(
        host=one.host,
        name=names.get(one.node, "") if one.node is not None else "",
        node=one.node,
        state=(one.order_state or one.stage) if one.stage is Stage.ORDERED else one.stage,
        failure=one.failure,
        percent=one.percent,
        promise=one.promise,
        estimate_s=one.estimate_s,
        reason=one.reason,
    )
