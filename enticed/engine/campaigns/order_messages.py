"""Orders as hosts tell each other of them: between the core's words and the wire's."""

from __future__ import annotations

from enticed.core.campaigns.events import Ask, Told
from enticed.core.orders import Failure, OrderState, Promise
from enticed.engine.port import OrderView
from protocol.identifiers import NodeId
from protocol.limits import LABEL_MAX_CHARS, REASON_MAX_CHARS
from protocol.messages import OrderFault, OrderNews, OrderPromise, OrderStage, PlaceOrder

_MS = 1000
_FOREVER_MS = 2**63


def place_order(ask: Ask, now: float) -> PlaceOrder:
    """A due date that has passed is due at once."""
    due_in_ms = None if ask.due_at is None else _milliseconds(max(0.0, ask.due_at - now))
    owner = ask.owner.partition(":")[2][:LABEL_MAX_CHARS]
    return PlaceOrder(ask.key, ask.image, due_in_ms, int(ask.keep_s), owner)


def news_of(key: str, order: OrderView) -> OrderNews:
    """What to tell the host that has placed an order, under its own key."""
    failure = order.failure if order.state is OrderState.FAILED else None
    return OrderNews(
        key,
        # One that is paused goes on as after a restart: by reserving.
        OrderStage.RESERVING if order.state is OrderState.PAUSED else OrderStage[order.state.name],
        None if failure is None else OrderFault[failure.name],
        None if order.promise is None else OrderPromise[order.promise.name],
        round(10 * order.percent),
        None if order.estimate_s is None else _milliseconds(order.estimate_s),
        order.reason[:REASON_MAX_CHARS],
    )


def declined(key: str, failure: Failure, reason: str) -> OrderNews:
    fault = OrderFault[failure.name]
    return OrderNews(key, OrderStage.FAILED, fault, None, 0, None, reason[:REASON_MAX_CHARS])


def told_of(node: NodeId, news: OrderNews) -> Told:
    return Told(
        node,
        news.key,
        OrderState[news.stage.name],
        None if news.fault is None else Failure[news.fault.name],
        None if news.promise is None else Promise[news.promise.name],
        news.permille / 10,
        None if news.remaining_ms is None else news.remaining_ms / _MS,
        _one_line(news.reason),
    )


def _milliseconds(seconds: float) -> int:
    return int(min(seconds * _MS, _FOREVER_MS))


def _one_line(text: str) -> str:
    """What another host says may be shown to people."""
    return "".join(char if char.isprintable() else "?" for char in text)
