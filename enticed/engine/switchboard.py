"""The switchboard: what the network tells goes to everybody in the daemon who listens."""

from __future__ import annotations

from collections.abc import Callable

from enticed.transfer.ports import Event

Listener = Callable[[Event], None]


class Switchboard:
    """Stands where the network needs a listener before those who listen can be built."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def connect(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def network_event(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
