"""The driver: hands events to the core, carries its effects out through whoever registered for them, keeps its alarm.

This is all that stands between `enticed.core.host.Host` and the world; simnet has its own. Events are taken one at a
time in the order in which they came: what a carrier tells from inside an effect waits until those before it are done.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from enticed.core.effects import Effect
from enticed.core.events import Event, Woken
from enticed.core.host import Host
from protocol.errors import EnticedError

log = logging.getLogger(__name__)
Carrier = Callable[[Any], None]
E = TypeVar("E")


class Driver:
    """Belongs to one event loop. Register a carrier for every effect, then `tell`.

    on_broken: told, once, of a bug in the core. What it knows cannot be relied on after that: nothing more is decided.
    Without it, whoever tells what the core cannot take gets the exception.
    """

    def __init__(
        self, host: Host, clock: Callable[[], float], on_broken: Callable[[Exception], None] | None = None
    ) -> None:
        self.host = host
        self._on_broken = on_broken
        self.clock = clock
        self._carriers: dict[type[Effect], Carrier] = {}
        self._events: deque[Event] = deque()
        self._busy = False
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def carry(self, kind: type[E], carrier: Callable[[E], None]) -> None:
        """Have `carrier` called on the loop for each effect of this kind. It must not block; it may `tell`."""
        self._carriers[kind] = carrier  # type: ignore[index]

    def tell(self, event: Event) -> None:
        """Let the core know; by the time this returns, what it wants done has been handed out (or is next in line).

        `LocalError` for an event that makes no sense.
        """
        self._events.append(event)
        if self._busy or self._closed:
            return
        self._busy = True
        try:
            while self._events and not self._closed:
                for effect in self._decide(self._events.popleft()):
                    self._carry_out(effect)
            if not self._closed:
                self._set_alarm()
        finally:
            self._busy = False

    def close(self) -> None:
        """Take no more events; what is told from now on is lost, as it is in a crash."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()

    def _decide(self, event: Event) -> list[Effect]:
        try:
            return self.host.handle(event, self.clock())
        except EnticedError:
            raise
        except Exception as error:
            if self._on_broken is None:
                raise
            log.exception("the core cannot take %s", type(event).__name__)
            self.close()
            self._on_broken(error)
            return []

    def _carry_out(self, effect: Effect) -> None:
        try:
            self._carriers[type(effect)](effect)
        except Exception:
            # The other effects are not to be lost with this one: the core believes that they are under way.
            log.exception("%s cannot be carried out", effect)

    def _set_alarm(self) -> None:
        """See to it that the host is woken at its deadline. One that has moved back finds the alarm too early, and then
        it is set again: that is rarer than events are."""
        now = self.clock()
        deadline = self.host.next_deadline(now)
        if deadline is None or self._closed or self._rings_at <= deadline:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings_at = deadline
        self._alarm = asyncio.get_running_loop().call_later(deadline - now, self._ring)

    def _ring(self) -> None:
        self._alarm, self._rings_at = None, math.inf
        now = self.clock()
        deadline = self.host.next_deadline(now)
        if deadline is not None and deadline <= now:
            self.tell(Woken())
        else:
            self._set_alarm()
