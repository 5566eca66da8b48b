"""Meeting hosts of a campaign: found by what they are called, dialled, and looked at before they are asked anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from enticed.core.campaigns.events import Reach
from enticed.engine.campaigns.roster import Roster
from enticed.limits import HOST_NAMES_KNOWN_MAX_COUNT, MEETING_NAMESAKES_MAX_COUNT, MEETING_TIMEOUT_S
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import DialFailed, Event, PeerDown, PeerUp
from protocol.credentials import NodeCredential
from protocol.errors import AbsentError, DeniedError, EnticedError, MalformedError
from protocol.identifiers import NodeId
from protocol.labels import HOST, HostLabel
from protocol.messages import ORDERS


class Meetings:
    def __init__(self, network: PeerNetwork, roster: Roster, me: NodeCredential) -> None:
        self._network = network
        self._roster = roster
        self._me = me
        self._up: dict[NodeId, PeerUp] = {}
        self._waiting: dict[NodeId, list[asyncio.Future[PeerUp]]] = {}
        self.names: dict[NodeId, str] = {me.node: _name_of(me)}
        """What hosts are called that have been met."""

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, credential):
                self._up[node] = event
                for waiting in self._waiters(node):
                    waiting.set_result(event)
                if node in self.names or len(self.names) < HOST_NAMES_KNOWN_MAX_COUNT:
                    self.names[node] = _name_of(credential)
            case PeerDown(node):
                self._up.pop(node, None)
            case DialFailed(node, why):
                for waiting in self._waiters(node):
                    waiting.set_exception(AbsentError(f"it cannot be reached: {why}"))

    async def meet(self, wanted: Reach) -> NodeId:
        """The host, with a session to it (or this host itself), once its certificate says that it is the one.

        `AbsentError` where it cannot be found or reached, now; `DeniedError` where it is not what was asked for.
        """
        labels = frozenset(wanted.labels) or _labels_of(wanted.host)
        if wanted.node is not None:
            return await self._met(wanted.node, None, labels)
        found = await self._roster.host(wanted.host)
        if not found:
            raise AbsentError(f"no host {wanted.host} is known in this cluster")
        # Anybody may say to be called so: those count whose certificates do.
        right: list[NodeId] = []
        last: EnticedError | None = None
        for contact in found[:MEETING_NAMESAKES_MAX_COUNT]:
            try:
                right.append(await self._met(contact.node, contact.addresses, labels))
            except EnticedError as error:
                last = error
        if len(right) > 1:
            raise DeniedError(f"{len(right)} hosts are called {wanted.host}: give the id of the one that is meant")
        if not right:
            raise last or AbsentError(f"no host {wanted.host} could be reached")
        return right[0]

    async def _met(self, node: NodeId, addresses: Iterable[str] | None, labels: frozenset[HostLabel]) -> NodeId:
        if node == self._me.node:
            _check(self._me, labels)
            return node
        up = await self.reach(node, addresses)
        if ORDERS not in up.capabilities:
            raise DeniedError("it takes no orders from other hosts: its enticed is older")
        _check(up.credential, labels)
        return node

    async def reach(
        self, node: NodeId, addresses: Iterable[str] | None = None, otherwise: tuple[str, ...] = ()
    ) -> PeerUp:
        """A session with this host, at these addresses, or where the DHT says, or `otherwise`.

        `AbsentError` where it cannot be found or reached, now.
        """
        up = self._up.get(node)
        if up is not None:
            return up
        if addresses is None:
            found = await self._roster.host(node.hex())
            if not found and not otherwise:
                raise AbsentError(f"no host {node.short} is known in this cluster")
            addresses = found[0].addresses if found else otherwise
        return await self._dialled(node, tuple(addresses))

    async def _dialled(self, node: NodeId, addresses: tuple[str, ...]) -> PeerUp:
        waiting: asyncio.Future[PeerUp] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(node, []).append(waiting)
        try:
            self._network.dial(node, addresses)
            async with asyncio.timeout(MEETING_TIMEOUT_S):
                return await waiting
        except TimeoutError as error:
            raise AbsentError("it cannot be reached: no answer") from error
        finally:
            if waiting in self._waiting.get(node, ()):
                self._waiting[node].remove(waiting)

    def _waiters(self, node: NodeId) -> list[asyncio.Future[PeerUp]]:
        return [one for one in self._waiting.pop(node, []) if not one.done()]


def _check(credential: NodeCredential, labels: frozenset[HostLabel]) -> None:
    missing = sorted(labels - credential.every_label)
    if missing:
        raise DeniedError(f"its certificate does not say {', '.join(map(str, missing))}")


def _labels_of(host: str) -> frozenset[HostLabel]:
    """What a host's certificate must say that is asked for by this text: nothing, where it is an id."""
    try:
        NodeId.from_hex(host)
    except MalformedError:
        return frozenset({HostLabel(HOST, host)})
    return frozenset()


def _name_of(credential: NodeCredential) -> str:
    return next((label.value for label in credential.labels if label.key == HOST), "")
