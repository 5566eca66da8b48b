"""The trust desk: who may do what. What the CA decides here every host goes by within the minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.core.renewals import RenewalPolicy
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.port import AuthorityView, CertifiedHostView, CertifiedView, HolderView, TrustView
from enticed.engine.trust.renewing import Renewing
from enticed.engine.trust.trusting import Trusting
from enticed.identity.authority import Authority
from enticed.identity.bundles import (
    with_publisher,
    with_revoked,
    with_scheduler,
    with_threshold,
    without_publisher,
    without_scheduler,
)
from enticed.identity.certified import Certified
from enticed.identity.host import HostIdentity
from enticed.identity.publisher import Publisher, public_key, save_publisher
from enticed.limits import ORDERS_PER_OWNER_MAX_COUNT
from enticed.overlay.udp import UdpOverlay
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, PeerUp
from protocol.credentials import Role, load_authority
from protocol.errors import AbsentError, DeniedError, LocalError
from protocol.identifiers import NodeId, PublisherKey
from protocol.token import authority_hash
from protocol.trust import TrustBundle, TrustedPublisher, TrustedScheduler

log = logging.getLogger(__name__)
Change = Callable[[TrustBundle], TrustBundle]


class TrustDesk:
    """`enticed.engine.trust.port.TrustOffice`, with what hands bundles on and renews certificates."""

    def __init__(
        self,
        identity: HostIdentity,
        authority: Authority | None,
        publisher: Publisher | None,
        sign_anew: Callable[[PublisherKey], Awaitable[None]],
        network: PeerNetwork,
        overlay: UdpOverlay,
        reach: Callable[[NodeId], Awaitable[PeerUp]],
        threads: StoreThreads,
        clock: Callable[[], float],
        renewals: RenewalPolicy | None = None,
    ) -> None:
        self._identity = identity
        self._authority = authority
        self._publisher = publisher
        self._sign_anew = sign_anew
        self._threads = threads
        self._clock = clock
        self._trusting = Trusting(identity, network, overlay, threads, clock)
        self.renewing = Renewing(identity, authority, network, reach, threads, clock, renewals)
        self._one_at_a_time = asyncio.Lock()

    def start(self) -> None:
        self._trusting.start()
        self.renewing.start()

    async def close(self) -> None:
        await self.renewing.close()
        await self._trusting.close()

    def network_event(self, event: Event) -> None:
        self._trusting.network_event(event)
        self.renewing.network_event(event)

    # --- looked at ---

    async def view(self) -> TrustView:
        trust = self._identity.trust
        return TrustView(
            trust.serial,
            trust.issued_at,
            tuple(_authority_view(authority) for authority in trust.authorities),
            trust.registrars,
            trust.publishers,
            self._publisher.key if self._publisher is not None else None,
            trust.threshold,
            tuple(one for one in trust.schedulers if one.expires_at > self._clock()),
            trust.revoked,
            None if self._authority is None else self._certified(self._authority),
        )

    async def hosts(self) -> tuple[CertifiedHostView, ...]:
        if self._authority is None:
            raise DeniedError("only the founding host knows for whom there are certificates, and this is not it")
        behind = {one.node for one in self._behind(self._authority)}
        return tuple(
            CertifiedHostView(one.node_id, one.name, one.zone, one.rack, float(one.expires_at), one.node in behind)
            for one in _nodes(self._good(self._authority))
        )

    def _good(self, authority: Authority) -> list[Certified]:
        revoked = self._identity.trust.revoked_nodes
        return [one for one in authority.certified() if one.node_id not in revoked]

    def _certified(self, authority: Authority) -> CertifiedView:
        good = self._good(authority)
        nodes = _nodes(good)
        return CertifiedView(
            len(nodes),
            tuple(_holder(one) for one in nodes if one.may_dispatch),
            tuple(_holder(one) for one in good if one.role == Role.SCHEDULER.name.lower()),
            len(self._behind(authority)),
        )

    def _behind(self, authority: Authority) -> list[Certified]:
        revoked = self._identity.trust.revoked_nodes
        return [one for one in authority.behind() if one.node_id not in revoked]

    # --- changed ---

    async def revoke(self, who: str) -> TrustView:
        authority, now = self._founding(), self._clock()
        try:
            revocations = authority.revocations(who)
        except AbsentError:
            if not any(one.name == who for one in self._identity.trust.publishers):
                raise
            return await self._change(lambda bundle: without_publisher(bundle, who))
        log.warning("revoking %s: %s", who, ", ".join(str(one.node) for one in revocations))
        return await self._change(lambda bundle: without_scheduler(with_revoked(bundle, revocations, now), who))

    async def grant_publisher(self, name: str, key: PublisherKey, names: tuple[str, ...]) -> TrustView:
        self._founding()
        log.info("granting publisher %s the names %s", name, ", ".join(names))
        return await self._change(lambda bundle: with_publisher(bundle, TrustedPublisher(key, name, names)))

    async def set_threshold(self, threshold: int) -> TrustView:
        self._founding()
        log.info("%d publishers have to sign from now on", threshold)
        return await self._change(partial(with_threshold, threshold=threshold))

    async def grant_token(
        self, name: str, token_sha256: bytes | None, orders: int | None, max_bytes: int | None, lifetime_s: float
    ) -> TrustView:
        self._founding()
        now = self._clock()
        new = TrustedScheduler(name, ORDERS_PER_OWNER_MAX_COUNT, token_sha256, int(now + lifetime_s))

        def change(bundle: TrustBundle) -> TrustBundle:
            before = bundle.scheduler(name) or new
            # A token that was given out lives as long as was said then.
            kept = new if token_sha256 or before.token_sha256 is None else before
            bounds = before.orders if orders is None else orders, before.max_bytes if max_bytes is None else max_bytes
            scheduler = replace(kept, orders=bounds[0], max_bytes=bounds[1])
            log.info("granting scheduler %s %d orders of %d bytes (0: any)", name, *bounds)
            return with_scheduler(bundle, scheduler, now)

        return await self._change(change)

    async def rotate_authority(self, *, finish: bool, force: bool) -> TrustView:
        authority = self._founding()
        async with self._one_at_a_time:
            if not finish:
                await self._trusting.publish(await self._threads.run(authority.begin_rotation))
                return await self.view()
            sealed = authority.finish_rotation()
            behind = self._behind(authority)
            if behind and not force:
                raise LocalError(
                    f"{len(behind)} hosts and schedulers have no certificate by the new CA yet: they would be cut off"
                )
            # First this host's own certificate: those who have the new bundle believe no other.
            await self.renewing.renew(by=-1)
            await self._trusting.publish(sealed)
            await self._threads.run(authority.forget_old_keys)
        return await self.view()

    async def rotate_publisher(self, *, finish: bool) -> TrustView:
        authority, publisher = self._founding(), self._publisher
        async with self._one_at_a_time:
            ours = next(
                (one for one in self._identity.trust.publishers if publisher and one.key == publisher.key), None
            )
            if publisher is None or ours is None:
                raise LocalError("this host is no publisher whose key could be rotated")
            others = [one for one in self._identity.trust.publishers if one.name == ours.name and one != ours]
            if finish == (not others):
                raise LocalError("the key is not being rotated" if finish else "the key is being rotated already")
            if finish:
                for one in others:
                    await self._sign_anew(one.key)
                await self._trusting.publish(authority.seal(partial(without_publisher, name=ours.name, keep=ours.key)))
            else:
                private, old = Ed25519PrivateKey.generate(), publisher.key
                new = replace(ours, key=public_key(private))
                # Trusted first: until it signs, a key that is lost in a crash has signed nothing.
                await self._trusting.publish(authority.seal(partial(with_publisher, publisher=new)))
                await self._threads.run(save_publisher, self._identity.directory, private)
                publisher.take(private)
                await self._sign_anew(old)
        return await self.view()

    async def _change(self, change: Change) -> TrustView:
        async with self._one_at_a_time:
            await self._trusting.publish(self._founding().seal(change))
        return await self.view()

    def _founding(self) -> Authority:
        if self._authority is None:
            raise DeniedError("only the founding host says who may do what, and this is not it")
        return self._authority


def _authority_view(der: bytes) -> AuthorityView:
    expires_at = load_authority(der).not_valid_after_utc.timestamp()
    return AuthorityView(der, authority_hash(der).hex(), int(expires_at))


def _nodes(certified: Iterable[Certified]) -> list[Certified]:
    return [one for one in certified if one.role == Role.NODE.name.lower()]


def _holder(one: Certified) -> HolderView:
    return HolderView(one.node_id, one.name, one.expires_at)
