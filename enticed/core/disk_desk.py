"""The disk desk: what becomes of pulls when this host's own disk fails them, and how the host gets well again.

A full disk pauses the pulls that meet it, and orders whose name cannot be noted; each is tried again after a while, or
as soon as an image goes. A disk that fails degrades the host: every pull pauses, and a probe (one small write of each
kind, and a commit) is tried after ever longer pauses, give or take a half, so that hosts on one failing array do not
all try at once. When it works, everything goes on by itself. A sync that failed is never tried again: what it was for
is lost first, and read back or fetched.
"""

from __future__ import annotations

from enticed.core.books import Books
from enticed.core.effects import NoteDegraded, ProbeStore
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure, OrderState
from enticed.core.own_disk import PASSING, Pause
from enticed.core.pull_desk import PullDesk
from enticed.core.pulls import Pull
from protocol.identifiers import ImageId


class DiskDesk:
    def __init__(self, books: Books, orders: OrderDesk, pulls: PullDesk) -> None:
        self._books = books
        self._orders = orders
        self._pulls = pulls

    # --- what the disk does ---

    def hinder(self, image: ImageId, failure: Failure, reason: str, now: float, *, for_good: bool = False) -> None:
        """Work for an image has failed on this host: its pull waits, or its orders fail where waiting is of no use."""
        if for_good or failure not in PASSING:
            self._orders.fail_all(image, failure, reason, now)
            return
        if failure is Failure.DISK:
            self.degrade(reason, now)
        pull = self._books.pulls.get(image)
        if pull is not None:
            self._pause(pull, failure, reason, now)

    def unresolved(self, key: str, target: str, failure: Failure, reason: str, now: float, *, for_good: bool) -> None:
        """It is not known which image an order is for, or it is, and this host's disk cannot note it."""
        order, disk = self._orders.asking(key, target), self._books.disk
        if order is None:
            return
        if for_good or failure not in PASSING:
            self._orders.fail(order, failure, reason, now)
            return
        if failure is Failure.DISK:
            self.degrade(reason, now)
        before = disk.unnoted.get(key)
        disk.unnoted[key] = self._longer_pause(failure, reason, before.lasted_s if before else 0.0, now)
        self._orders.pause(order, failure, reason, now)

    def degrade(self, reason: str, now: float) -> None:
        """Nothing can be relied on to be written: no pull goes on, and no order is to be taken."""
        disk = self._books.disk
        if not disk.degraded:
            disk.since, disk.probe_pause_s = now, 0.0
            self._plan_probe(now)
            self._books.do(NoteDegraded(reason))
        disk.degraded = reason
        for pull in list(self._books.pulls.values()):
            self._pause(pull, Failure.DISK, reason, now)

    def probed(self, reason: str, now: float) -> None:
        """The probe has worked, or why not."""
        disk = self._books.disk
        if not disk.degraded:
            return
        if reason:
            disk.degraded = reason
            self._plan_probe(now)
        else:
            disk.degraded, disk.probe_at = "", None
            self._books.do(NoteDegraded(""))

    def room_made(self, now: float) -> None:
        """An image has gone: there may be room for what waits for some."""
        disk = self._books.disk
        for pause in (*disk.paused.values(), *disk.unnoted.values()):
            if pause.failure is Failure.NO_SPACE:
                pause.until = now

    # --- what is done about it ---

    def go_on(self, now: float) -> None:
        """Probe, or take up again what waits, where it is time to."""
        disk = self._books.disk
        if disk.degraded:
            for pull in list(self._books.pulls.values()):  # of orders that were taken before, or over a restart
                self._pause(pull, Failure.DISK, disk.degraded, now)
            if disk.probe_at is not None and now >= disk.probe_at:
                disk.probe_at = None
                self._books.do(ProbeStore())
        for image, pause in list(disk.paused.items()):
            if image not in self._books.wanted:
                del disk.paused[image]
            elif not disk.degraded and now >= pause.until:
                self._resume(image, pause, now)
        for key, pause in list(disk.unnoted.items()):
            order = self._books.orders.get(key)
            if order is None or order.ended or order.image is not None:
                del disk.unnoted[key]
            elif order.state is OrderState.PAUSED and not disk.degraded and now >= pause.until:
                self._orders.resolve_again(order, now)

    def moments(self) -> list[float | None]:
        """Times at which `go_on` may have something to do."""
        disk = self._books.disk
        pauses = () if disk.degraded else (*disk.paused.values(), *disk.unnoted.values())
        return [disk.probe_at, *(pause.until for pause in pauses)]

    def _pause(self, pull: Pull, failure: Failure, reason: str, now: float) -> None:
        self._books.disk.paused[pull.image] = self._longer_pause(failure, reason, pull.paused_s, now)
        self._pulls.drop(pull, now)
        for order in self._books.orders_of(pull.image):
            self._orders.pause(order, failure, reason, now)

    def _resume(self, image: ImageId, pause: Pause, now: float) -> None:
        del self._books.disk.paused[image]
        self._books.pulls[image] = Pull(image, now, find_at=now, paused_s=pause.lasted_s)
        for order in self._books.orders_of(image):
            self._books.put_order(order.step(OrderState.RESOLVING, now, failure=None, reason=""))

    def _plan_probe(self, now: float) -> None:
        disk = self._books.disk
        disk.probe_pause_s = self._longer(disk.probe_pause_s)
        disk.probe_at = now + self._jittered(disk.probe_pause_s)

    def _longer_pause(self, failure: Failure, reason: str, last_s: float, now: float) -> Pause:
        pause_s = self._longer(last_s)
        return Pause(failure, reason, now + self._jittered(pause_s), pause_s)

    def _longer(self, pause_s: float) -> float:
        policy = self._books.policy
        return min(policy.disk_retry_last_s, max(policy.disk_retry_first_s, 2 * pause_s))

    def _jittered(self, pause_s: float) -> float:
        return pause_s * float(self._books.dice.uniform(0.5, 1.5))
