"""The engine's parts by themselves: what each does when something that should not happen does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.host import Host
from enticed.core.orders import Failure, Order, OrderState
from enticed.core.vocabulary import Contact, Stretch
from enticed.engine.driver import Driver
from enticed.engine.ledger import OrderLedger
from enticed.engine.supply.switchboard import Switchboard
from enticed.engine.threads import StoreThreads
from enticed.store.files import DiskError
from enticed.store.store import Store
from enticed.transfer.ports import DialFailed, Event
from protocol.errors import LocalError
from protocol.identifiers import ImageId, NodeId

NODE = NodeId(bytes(20))
ORDER = Order("order", "debian:12", 1.0)


def host() -> Host:
    return Host(Contact(NODE, (), "", ""), np.random.default_rng(1))


def test_one_effect_that_fails_does_not_take_the_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        driver = Driver(host(), lambda: 1.0)
        saved: list[ef.SaveOrder] = []
        resolving: list[ef.ResolveTarget] = []

        def fail_once(effect: ef.SaveOrder) -> None:
            saved.append(effect)
            if len(saved) == 1:
                raise OSError("a bug")

        driver.carry(ef.SaveOrder, fail_once)
        driver.carry(ef.ResolveTarget, resolving.append)
        driver.tell(ev.OrderPlaced(ORDER))
        assert len(saved) > 1
        assert len(resolving) == 1
        assert "cannot be carried out" in caplog.text
        driver.close()

    asyncio.run(scenario())


def test_a_bug_in_the_core_is_told_once_and_ends_all_deciding(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        told: list[Exception] = []
        core = host()
        driver = Driver(core, lambda: 1.0, told.append)

        def fail(event: ev.Event, now: float) -> list[ef.Effect]:
            raise KeyError("a bug")

        monkeypatch.setattr(core, "handle", fail)
        driver.tell(ev.Woken())
        driver.tell(ev.Woken())
        assert [type(error) for error in told] == [KeyError]

    asyncio.run(scenario())


def test_an_event_that_makes_no_sense_is_its_tellers_error_alone() -> None:
    async def scenario() -> None:
        told: list[Exception] = []
        driver = Driver(host(), lambda: 1.0, told.append)
        taken: list[Any] = []
        driver.carry(ef.SaveOrder, taken.append)
        driver.carry(ef.ResolveTarget, taken.append)
        with pytest.raises(LocalError):
            driver.tell(ev.DemandRaised(1, ImageId(bytes(32)), (Stretch(0, 0, (4096,)),), 2.0))
        driver.tell(ev.OrderPlaced(ORDER))
        assert taken
        assert not told
        driver.close()

    asyncio.run(scenario())


def test_what_peers_say_before_anybody_listens_is_kept_in_order() -> None:
    board = Switchboard()
    heard: list[Event] = []
    early = [DialFailed(NODE, LocalError(str(number))) for number in range(3)]
    for event in early[:2]:
        board.network_event(event)
    board.connect(heard.append)
    board.network_event(early[2])
    assert heard == early


def test_who_waits_for_an_order_to_be_saved_hears_that_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with Store.open(tmp_path / "state", None, 0, lambda: 1.0) as store:
            driver, threads = Driver(host(), lambda: 1.0), StoreThreads()
            degraded: list[ef.NoteDegraded] = []
            driver.carry(ef.ResolveTarget, lambda effect: None)
            driver.carry(ef.NoteDegraded, degraded.append)
            ledger = OrderLedger(driver, store, threads)
            ledger.start()

            def fail(order: Order) -> None:
                raise DiskError("no disk")

            with monkeypatch.context() as broken:
                broken.setattr(store, "save_order", fail)
                driver.tell(ev.OrderPlaced(ORDER))
                with pytest.raises(DiskError):
                    await ledger.saved()
                with pytest.raises(DiskError):
                    await ledger.catch_up()
            assert degraded == [ef.NoteDegraded("orders cannot be saved: no disk")]
            assert store.orders() == ()
            await ledger.catch_up()  # a disk that works again
            assert [order.key for order in store.orders()] == ["order"]
            await ledger.close()
            await threads.close()
            driver.close()

    asyncio.run(scenario())


def test_who_waits_for_an_order_waits_for_no_later_change_and_hears_of_no_other_orders_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with Store.open(tmp_path / "state", None, 0, lambda: 1.0) as store:
            driver, threads = Driver(host(), lambda: 1.0), StoreThreads()
            driver.carry(ef.ResolveTarget, lambda effect: None)
            driver.carry(ef.NoteDegraded, lambda effect: None)
            ledger = OrderLedger(driver, store, threads)
            ledger.start()
            loop, save, places = asyncio.get_running_loop(), store.save_order, count(2)

            def place_another() -> None:
                driver.tell(ev.OrderPlaced(replace(ORDER, key=f"order {next(places)}")))

            def while_others_change(order: Order) -> None:
                loop.call_soon_threadsafe(place_another)
                if order.key != "order":
                    raise DiskError("no disk")
                save(order)

            with monkeypatch.context() as patched:
                patched.setattr(store, "save_order", while_others_change)
                driver.tell(ev.OrderPlaced(ORDER))
                async with asyncio.timeout(10):
                    await ledger.saved("order")  # without an end to the changes, and those cannot be saved
                    assert [order.key for order in store.orders()] == ["order"]
                    with pytest.raises(DiskError):
                        await ledger.saved()
            with suppress(DiskError):
                await ledger.saved()  # what was being saved on the broken disk
            await ledger.catch_up()
            assert {"order", "order 2"} <= {order.key for order in store.orders()}
            await ledger.close()
            await threads.close()
            driver.close()

    asyncio.run(scenario())


def test_what_ended_in_an_earlier_life_is_neither_logged_nor_counted_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with Store.open(tmp_path / "state", None, 0, lambda: 1.0) as store:
            failed = replace(ORDER, state=OrderState.FAILED, failure=Failure.NOT_FOUND, reason="no such name")
            store.save_order(failed)
            driver, threads = Driver(host(), lambda: 1.0), StoreThreads()
            driver.carry(ef.ResolveTarget, lambda effect: None)
            ledger = OrderLedger(driver, store, threads)
            ledger.start()
            driver.tell(ev.OrderPlaced(failed))
            assert (caplog.messages, ledger.ended.total()) == ([], 0)
            driver.tell(ev.OrderPlaced(replace(ORDER, key="new")))
            driver.tell(ev.TargetUnresolved("new", ORDER.target, Failure.NOT_FOUND, "no such name"))
            assert (len(caplog.messages), ledger.ended.total()) == (1, 1)
            await ledger.close()
            await threads.close()
            driver.close()

    asyncio.run(scenario())


def test_work_on_the_store_always_ends_in_an_error_of_ours() -> None:
    async def scenario() -> None:
        threads = StoreThreads()

        def fail() -> None:
            raise MemoryError

        with pytest.raises(LocalError, match="MemoryError"):
            await threads.run(fail)
        await threads.close()

    asyncio.run(scenario())


def test_what_a_watcher_who_comes_back_has_missed(tmp_path: Path) -> None:
    """The changes since its last one where they are kept; else every order as it is now, and then the changes."""

    async def scenario() -> None:
        with Store.open(tmp_path / "state", None, 0, lambda: 1.0) as store:
            driver, threads = Driver(host(), lambda: 1.0), StoreThreads()
            driver.carry(ef.ResolveTarget, lambda effect: None)
            ledger = OrderLedger(driver, store, threads)

            async def heard(after: int, count: int) -> list[tuple[int, str, str]]:
                async with aclosing(ledger.watch(after)) as changes:  # type: ignore[type-var]
                    return [
                        (number, order.key, str(order.state))
                        for number, order in [await anext(changes) for _ in range(count)]
                    ]

            for key in ("a", "b"):
                driver.tell(ev.OrderPlaced(replace(ORDER, key=key)))
            first = ledger.first_number
            assert await heard(first, 4) == [
                (first + 1, "a", "queued"), (first + 2, "a", "resolving"),
                (first + 3, "b", "queued"), (first + 4, "b", "resolving"),
            ]  # fmt: skip
            assert await heard(first + 3, 1) == [(first + 4, "b", "resolving")]
            for of_another_life in (0, first - 1, first + 5):
                assert await heard(of_another_life, 2) == [
                    (of_another_life, "a", "resolving"), (first + 4, "b", "resolving"),
                ]  # fmt: skip
            ledger.start()
            await ledger.close()
            await threads.close()
            driver.close()

    asyncio.run(scenario())
