"""The processes that fetch for this daemon: one interpreter is worth about one processor, and the event loop needs it.

They are started when there is enough to do and ended when there is nothing. What goes wrong with them costs speed, not
images: threads of the daemon fetch then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from enticed.identity.host import HostIdentity
from enticed.transfer.addresses import HostPort
from enticed.transfer.courier_connection import CourierConnection
from enticed.transfer.courier_process import CourierProcess
from enticed.transfer.errors import CourierLostError, PeerLostError
from enticed.transfer.expiry import EXPIRED, Expiry
from enticed.transfer.limits import (
    COURIER_DEATHS_MAX_COUNT,
    COURIER_DEATHS_WITHIN_S,
    COURIER_SILENT_S,
    COURIERS_FROM_SIZE_BYTES,
    COURIERS_FROM_WITHIN_S,
    COURIERS_MAX_COUNT,
)
from enticed.transfer.tasks import Tasks
from enticed.transfer.timing import Timing
from enticed.transfer.tls import Handshakes
from protocol.errors import LocalError
from protocol.identifiers import NodeId
from protocol.session import Agreement

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Inflow:
    """Whether much comes, by what has come in one short time after another."""

    _since_s: float = -COURIERS_FROM_WITHIN_S
    _came_bytes: int = 0

    def came(self, size_bytes: int, now_s: float) -> None:
        if not self._is_current(now_s):
            self._since_s, self._came_bytes = now_s, 0
        self._came_bytes += size_bytes

    def is_much(self, now_s: float) -> bool:
        return self._is_current(now_s) and self._came_bytes >= COURIERS_FROM_SIZE_BYTES

    def _is_current(self, now_s: float) -> bool:
        return now_s < self._since_s + COURIERS_FROM_WITHIN_S


class Couriers:
    """All couriers of this daemon. Everything belongs to the event loop."""

    def __init__(
        self, identity: HostIdentity, handshakes: Handshakes, timing: Timing, clock: Callable[[], float], nice: int
    ) -> None:
        self._identity = identity
        self._handshakes = handshakes
        self._timing = timing
        self._clock = clock
        self._couriers: list[CourierProcess] = []
        self.most_count = min(COURIERS_MAX_COUNT, max(1, len(os.sched_getaffinity(0)) // 2))
        self._starting = asyncio.Lock()
        self._deaths_s: list[float] = []
        self._nice = nice
        self._inflow = Inflow()
        self._tasks = Tasks()

    @property
    def are_usable(self) -> bool:
        since_s = asyncio.get_running_loop().time() - COURIER_DEATHS_WITHIN_S
        return sum(death_s > since_s for death_s in self._deaths_s) < COURIER_DEATHS_MAX_COUNT

    @property
    def are_wanted(self) -> bool:
        """Whether there is enough to do for processes."""
        return self._inflow.is_much(asyncio.get_running_loop().time())

    @property
    def count(self) -> int:
        return len(self._couriers)

    @property
    def connections_count(self) -> int:
        return sum(len(courier.connections) for courier in self._couriers)

    def fetched(self, size_bytes: int) -> None:
        """So much of images has come, whoever carried it."""
        self._inflow.came(size_bytes, asyncio.get_running_loop().time())

    async def open(self, addresses: Sequence[HostPort], node: NodeId, agreement: Agreement) -> CourierConnection:
        """A connection to the node, in the courier that has the fewest. Raises as `Handshakes.dial`; `LocalError` where
        no process can be started."""
        courier = await self._least_loaded(node)
        courier.linger()
        connection = await self._handshakes.reach(addresses, node, partial(self._shake_hands, courier, node))
        connection.begin(agreement)
        return connection

    def refresh(self) -> None:
        """Have all of them show and believe what this host's identity says now."""
        for courier in self._couriers:
            courier.believe(self._identity)

    async def close(self) -> None:
        """End them, and what they are at; until each process has ended, also of those that were ending already."""
        for courier in list(self._couriers):
            courier.close()
        await self._tasks.finished()

    async def _least_loaded(self, node: NodeId) -> CourierProcess:
        """Started, and one that carries nothing to this node if there can be one."""

        def load(courier: CourierProcess) -> tuple[int, int]:
            connections = courier.connections.values()
            return sum(one.node == node for one in connections), len(connections)

        async with self._starting:  # so that those who come together do not start one each
            if not self.are_usable:
                raise LocalError("no process fetches on this host")
            best = min(self._couriers, key=load, default=None)
            if best is None or (best.connections and len(self._couriers) < self.most_count):
                best = self._start()
            try:
                await best.ready()
            except LocalError as error:
                log.warning("threads of the daemon fetch meanwhile, which is slower: %s", error)
                raise
            return best

    def _start(self) -> CourierProcess:
        try:
            courier = CourierProcess(self._nice)
        except LocalError as error:
            self._died(str(error))
            raise
        courier.believe(self._identity)
        courier.on_ended = partial(self._forget, courier)
        self._couriers.append(courier)
        return courier

    def _forget(self, courier: CourierProcess) -> None:
        self._couriers.remove(courier)
        self._tasks.spawn(self._see_out(courier), "end of a courier")

    async def _see_out(self, courier: CourierProcess) -> None:
        status = await courier.wait()
        if status is None:
            log.error("a process that fetched does not end, killed though it is: it waits for a disk")
        elif status:  # it ends with 0 when the daemon lets it
            self._died(f"a process that fetched has ended with status {status}")

    def _died(self, how: str) -> None:
        log.error("%s; threads of the daemon fetch meanwhile, which is slower", how)
        self._deaths_s = [*self._deaths_s, asyncio.get_running_loop().time()][-COURIER_DEATHS_MAX_COUNT:]
        if not self.are_usable:
            log.error("threads of the daemon fetch everything for an hour, since processes that do end by themselves")

    async def _shake_hands(
        self, courier: CourierProcess, node: NodeId, sock: socket.socket, _: HostPort
    ) -> CourierConnection:
        self._handshakes.prepare_bulk(sock)
        connection = courier.take(sock, node, self._timing)
        try:
            async with asyncio.timeout(self._timing.handshake_s + COURIER_SILENT_S):
                certificate = await connection.shaken
            credential = self._identity.verify_peer(certificate, self._clock())
        except TimeoutError:  # of a silent peer the courier would have told
            log.error("a process that fetched has stopped, and is ended")
            courier.close()
            raise CourierLostError from None
        except BaseException:
            connection.close()
            raise
        connection.node = credential.node
        Expiry(credential, self._clock, partial(connection.interrupt, PeerLostError(EXPIRED)), connection.ended)
        return connection
