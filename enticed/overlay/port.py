"""The narrow port behind which discovery stands: ready, find, announce, withdraw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from enticed.core.dht.events import NameOffer, Offer, ProviderOffer
from protocol.identifiers import DiscoveryKey
from protocol.providers import ProviderRecord

__all__ = ["AddressMemory", "Found", "NameOffer", "Offer", "Overlay", "ProviderOffer"]


@dataclass(frozen=True, slots=True)
class Found:
    """What is known under a key.

    providers: other hosts, each once, in no order; a sample where there are many, `population` how many there seem to
    be. names: signed names that verify, newest first. asked: how many hosts were asked;
    answered: how many of them have answered.
    """

    providers: tuple[ProviderRecord, ...]
    names: tuple[bytes, ...]
    population: int
    asked: int
    answered: int


class Overlay(Protocol):
    """Who has what. Every method is for the event loop on which the overlay was started."""

    async def ready(self) -> None:
        """Returns once this host has found the others, or it is clear that it is the first."""
        ...

    async def find(self, key: DiscoveryKey) -> Found:
        """Ask for a key: answers within seconds, with nothing if nothing is there. `LocalError` once closed.

        Cancelling ends the search.
        """
        ...

    def announce(self, offer: Offer) -> None:
        """Announce from now on, until withdrawn or announced anew with another state or version; one offer per key."""
        ...

    async def announced(self, key: DiscoveryKey) -> None:
        """Returns once others were told what was announced last under this key: from then on they find it."""
        ...

    def spread(self, key: DiscoveryKey, record: bytes) -> None:
        """Have every host told a recall or floor, signed, of this key; each hears by `on_spread`, and spreads it on."""
        ...

    def on_spread(self, told: Callable[[bytes], None]) -> None:
        """Whom else to tell what comes in that way, verified; again and again the same perhaps."""
        ...

    async def withdraw(self, key: DiscoveryKey) -> None:
        """No longer announce; returns once those who keep a provider's record were told. A name stays until it expires.

        Cancelling stops the waiting, not the withdrawal.
        """
        ...


class AddressMemory(Protocol):
    """Addresses of other hosts that outlive this process. Neither method raises."""

    def load(self) -> tuple[str, ...]: ...

    def save(self, addresses: tuple[str, ...]) -> None: ...
