"""Whose orders and campaigns a client hears of."""

from __future__ import annotations

from enticed.core.orders import owner_text
from enticed.engine.campaigns.port import CampaignView
from enticed.engine.port import OrderView


def is_for(owner: str, one: OrderView | CampaignView) -> bool:
    """Whether it is of this owner, as of `enticed.core.orders.Order`; users of this host, "", hear of all."""
    return not owner or one.owner == owner_text(owner)
