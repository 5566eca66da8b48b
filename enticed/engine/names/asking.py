"""Asking other hosts what a name means, and what it is worth that none of them knows."""

from __future__ import annotations

from typing import Protocol

from enticed.core.orders import Failure
from enticed.engine.faults import failure_of
from enticed.overlay.port import Found, Overlay
from enticed.store.files import DiskError
from protocol.errors import DeniedError, EnticedError, ExhaustedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.trust import TrustBundle


class AloneError(ExhaustedError):
    """No other host answers that could be asked."""


class Member(Protocol):
    """Who this host is, and whom it trusts by now: what asking needs of `HostIdentity`."""

    @property
    def node(self) -> NodeId: ...

    @property
    def trust(self) -> TrustBundle: ...


class Repute(Protocol):
    """What others say of this host: what asking needs of `Standing`."""

    @property
    def disowned(self) -> str: ...


class Asking:
    """is_founder: a founding host that knows of no other is the whole of its cluster."""

    def __init__(self, overlay: Overlay, member: Member, repute: Repute, *, is_founder: bool) -> None:
        self._overlay = overlay
        self._member = member
        self._repute = repute
        self._is_founder = is_founder

    async def ask(self, name: str) -> Found:
        """The records that other hosts have of a name. They are asked again before it is said that there are none:
        right after a start, who is asked first may have to be met anew, and answers too late."""
        await self._overlay.ready()  # an order placed right after the start is not refused for want of acquaintances
        key = DiscoveryKey.of_name(name)
        found = await self._overlay.find(key)
        return found if found.names else await self._overlay.find(key)

    def check(self, name: str, found: Found, trouble: str) -> None:
        """`AloneError`, or `DeniedError` for a host that was revoked, where nobody can have said what a name means.

        trouble: what the origin has said instead.
        """
        unknown = f"and does not know by itself what {name!r} means now{trouble}"
        if self._member.node in self._member.trust.revoked_nodes:
            raise DeniedError(f"this host was revoked (entice doctor), {unknown}")
        if not found.answered and (found.asked or not self._is_founder):
            # Whoever says that this host was revoked may lie: it may be asked again, unlike where the CA says so.
            disowned = f", and {self._repute.disowned}" if self._repute.disowned else ""
            raise AloneError(f"this host reaches no other host{disowned} (entice doctor), {unknown}")


def failure_to_resolve(error: EnticedError) -> Failure:
    """What an error of `Naming.resolve` means for the order whose image it was to be."""
    match error:
        case AloneError():
            return Failure.ALONE
        case DeniedError():
            return Failure.DENIED
        case DiskError() | ExhaustedError():  # it is known, and cannot be remembered
            return failure_of(error)
        case _:
            return Failure.NOT_FOUND
