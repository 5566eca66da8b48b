"""What the DHT node is given besides time and dice: someone who signs and checks, and who knows the calendar.

Private keys and the calendar stay outside; the DHT's own clock only has to run evenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protocol.identifiers import DiscoveryKey
from protocol.providers import ProviderRecord, ProviderState


@dataclass(frozen=True, slots=True)
class CheckedProvider:
    """A record whose signature verifies. `lifetime_s`: from now until it expires, more than 0."""

    record: ProviderRecord
    data: bytes
    lifetime_s: float


@dataclass(frozen=True, slots=True)
class CheckedName:
    """A signed name that verifies and belongs under the key; or a recall, which is kept, and found, like a name.

    spreads: every host is to know it, and not only those who look for it.
    """

    version: int
    data: bytes
    lifetime_s: float
    spreads: bool = False


class Notary(Protocol):
    """Signs this host's records and checks everybody's. All three are quick: a signature or a few."""

    def sign(self, key: DiscoveryKey, state: ProviderState) -> bytes:
        """This host's provider record, its sequence higher than that of any before; raises nothing remote."""
        ...

    def check_provider(self, data: bytes) -> CheckedProvider:
        """`MalformedError` if it is no record, `CorruptError` if it is not genuine, `AbsentError` if it has expired.

        `DeniedError` if its subject was revoked.
        """
        ...

    def check_name(self, key: DiscoveryKey, data: bytes) -> CheckedName:
        """`MalformedError` if it is no signed name, `CorruptError` if it belongs under another key.

        `DeniedError` if nobody who is trusted has signed it, `AbsentError` if it has expired.
        """
        ...
