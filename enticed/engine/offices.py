"""The offices of a daemon: what may be asked of it beside orders and images, each with a port of its own."""

from __future__ import annotations

from typing import Protocol

from enticed.engine.retention.port import SpaceOffice
from enticed.engine.trust.port import CosigningOffice, TrustOffice


class Offices(Protocol):
    @property
    def trust(self) -> TrustOffice:
        """Who may do what."""
        ...

    @property
    def cosigning(self) -> CosigningOffice:
        """What other publishers have signed, signed by this one too."""
        ...

    @property
    def space(self) -> SpaceOffice:
        """What images take, and which stay."""
        ...
