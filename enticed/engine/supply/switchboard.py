"""The switchboard: what the network tells goes to everybody in the daemon who listens."""

from __future__ import annotations

from collections.abc import Callable

from enticed.transfer.ports import Event

Listener = Callable[[Event], None]


class Switchboard:
    """Stands where the network needs a listener before those who listen can be built.

    Peers connect from the moment the port is open. What they say before anybody listens is kept until then: a session
    whose beginning was lost would stay open, and deaf.
    """

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] | None = None
        self._early: list[Event] = []

    def connect(self, *listeners: Listener) -> None:
        """From now on, and with what has been told so far."""
        self._listeners = listeners
        early, self._early = self._early, []
        for event in early:
            self.network_event(event)

    def network_event(self, event: Event) -> None:
        if self._listeners is None:
            self._early.append(event)
            return
        for listener in self._listeners:
            listener(event)
