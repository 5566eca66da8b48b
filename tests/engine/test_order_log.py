"""What the log says of an order that waits for the disk: that it does, that it goes on, and no more."""

from __future__ import annotations

import logging

import pytest

from enticed.core.orders import Failure, Order, OrderState
from enticed.engine.order_log import OrderLog
from enticed.limits import ORDER_WAITS_PERIOD_S

RESOLVING, RESERVING, FETCHING = OrderState.RESOLVING, OrderState.RESERVING, OrderState.FETCHING


def walk(log: OrderLog, order: Order, *states: OrderState) -> Order:
    for state in states:
        order = order.step(state, 1.0)
        log.note(order)
    return order


def pause(log: OrderLog, order: Order) -> Order:
    order = order.step(OrderState.PAUSED, 1.0, failure=Failure.NO_SPACE, reason="the quota is full")
    log.note(order)
    return order


def test_an_order_that_waits_says_so_once_and_that_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = OrderLog(lambda: 1.0)
    order = walk(log, Order("vm-1", "web:1", 1.0), RESOLVING, RESERVING)
    for _ in range(100):  # tried again, in vain
        order = walk(log, pause(log, order), RESOLVING, RESERVING)
    walk(log, order, FETCHING, OrderState.VERIFYING, OrderState.READY)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "order vm-1 for web:1 waits: the quota is full"),
        ("INFO", "order vm-1 for web:1 goes on"),
        ("INFO", "order vm-1 for web:1 is ready"),
    ]


def test_one_that_waits_and_goes_on_in_turns_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [1000.0]
    log = OrderLog(lambda: now[0])
    order = walk(log, Order("vm-1", "web:1", 1.0), RESOLVING, RESERVING, FETCHING)
    for _ in range(100):
        order = walk(log, pause(log, order), RESOLVING, RESERVING, FETCHING)
        now[0] += ORDER_WAITS_PERIOD_S / 50
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"] * 2
    walk(log, order, OrderState.CANCELLED)
    pause(log, walk(log, Order("vm-1", "web:1", 1.0), RESOLVING))  # another one, of the same key
    assert [record.levelname for record in caplog.records][4:] == ["INFO", "WARNING"]
