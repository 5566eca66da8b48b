"""Pulls on several hosts at once, followed to their ends: a live bar for each on a terminal, elsewhere a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enticed.cli.failures import Exit, Failed
from enticed.cli.output import duration, note

if TYPE_CHECKING:
    from rich.progress import Progress

    from simnet.testbed import Call, Daemon, Done

REFRESH_S = 0.1
PULL_TIMEOUT_S = 3600.0


def follow(hosts: Sequence[Daemon], calls: Sequence[Call], spread: Callable[[], None] | None) -> list[dict[str, Any]]:
    """The results of `entice --json pull` on these hosts. spread: called once a full copy is on the hosts themselves.

    `Failed` where a pull fails.
    """
    with ThreadPoolExecutor(len(calls)) as threads, _bars(hosts) as progress:
        ends = {threads.submit(call.wait, PULL_TIMEOUT_S): host for host, call in zip(hosts, calls, strict=True)}
        try:
            _watch(ends, progress, spread)
        except BaseException:
            for call in calls:
                call.process.kill()
            raise
    return [end.result().json for end in ends]


def _watch(ends: dict[Future[Done], Daemon], progress: Progress | None, spread: Callable[[], None] | None) -> None:
    running = set(ends)
    while running:
        ended, running = wait(running, timeout=REFRESH_S, return_when="FIRST_COMPLETED")
        for end in ended:
            _tell_end(ends[end], end.result(), progress)
        orders = {host.number: _order(host) for host in ends.values()}
        if progress is not None:
            for host in ends.values():
                order = orders[host.number]
                if order is not None:
                    _draw(progress, host, order)
        if spread is not None and any(order is not None and _is_spread(order) for order in orders.values()):
            spread()
            spread = None


def _order(host: Daemon) -> dict[str, Any] | None:
    """The newest order of a host."""
    orders: list[dict[str, Any]] = host.control.get("/v1/orders")["orders"]
    return max(orders, key=lambda order: order["created_at"], default=None)


def _is_spread(order: dict[str, Any]) -> bool:
    """Whether the hosts have all of the image without the publisher, whose copy is one of those that are counted."""
    return order["state"] == "ready" or (order["copies"] or 0) >= 2


def _tell_end(host: Daemon, done: Done, progress: Progress | None) -> None:
    if done.exit_code:
        raise Failed(Exit.FAILED, f"host {host.number}: {done.stderr.strip()}")
    if progress is None:
        note(f"host {host.number}: ready in {duration(done.json['seconds'])}")


def _draw(progress: Progress, host: Daemon, order: dict[str, Any]) -> None:
    task = progress.tasks[host.number - 1].id
    progress.update(
        task,
        completed=order["done_bytes"],
        total=order["data_bytes"] or None,
        description=f"host {host.number}: {order['state']}",
    )


@contextmanager
def _bars(hosts: Sequence[Daemon]) -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:<18}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    # What is said meanwhile stands above the bars.
    with Progress(*columns, console=Console(stderr=True), redirect_stderr=True) as progress:
        for host in hosts:
            progress.add_task(f"host {host.number}", total=None)
        yield progress
