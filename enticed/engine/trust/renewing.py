"""Renewing: this host's certificate is replaced before it ends, and on the founding host, those of all others.

A host asks a registrar over a session: that it could open one says which host it is, and the CA certifies that very
host for another while, with what its certificate says already. There is nothing in the request to ask for more with.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from random import Random

from enticed.core.renewals import RenewalPolicy, Renewals
from enticed.engine.threads import StoreThreads
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity
from enticed.identity.limits import RENEWAL_CHECK_S, RENEWAL_TIMEOUT_S
from enticed.tally import Tally
from enticed.transfer.addresses import HostPort
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp
from enticed.transfer.tasks import Tasks
from protocol.credentials import NodeCredential, verify_certificate
from protocol.errors import AbsentError, DeniedError, EnticedError, ExhaustedError
from protocol.identifiers import NodeId
from protocol.limits import REASON_MAX_CHARS
from protocol.messages import TRUST, Renewal, RenewalRequest

log = logging.getLogger(__name__)


class Renewing:
    """reach: gets a session with a host. authority: on the founding host, its CA. clock: unix time."""

    def __init__(
        self,
        identity: HostIdentity,
        authority: Authority | None,
        network: PeerNetwork,
        reach: Callable[[NodeId], Awaitable[PeerUp]],
        threads: StoreThreads,
        clock: Callable[[], float],
        policy: RenewalPolicy | None = None,
    ) -> None:
        self._identity = identity
        self._authority = authority
        self._network = network
        self._reach = reach
        self._threads = threads
        self._clock = clock
        credential, dice = identity.credential, Random(secrets.randbits(64))
        self._renewals = Renewals(
            credential.not_before, credential.not_after, dice, is_behind=self._is_behind(), now=clock(), policy=policy
        )
        self._peers: dict[NodeId, NodeCredential] = {}
        self._certifying: set[NodeId] = set()
        self._refused = Tally(log)
        self._answers: dict[NodeId, asyncio.Future[bytes]] = {}
        self._changed = asyncio.Event()
        self._tasks = Tasks()
        self.trouble: str | None = None
        """Why the last try to renew has failed; None if it has not."""

    @property
    def failures(self) -> int:
        """Tries that have failed since one succeeded."""
        return self._renewals.failures

    def start(self) -> None:
        self._identity.watch(self._identity_changed)
        self._tasks.spawn(self._keep_valid(), "renewal")

    async def close(self) -> None:
        await self._tasks.close()

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, credential):
                self._peers[node] = credential
            case PeerDown(node):
                self._peers.pop(node, None)
                self._answer(node, AbsentError("the session with the registrar has ended"))
            case Heard(node, RenewalRequest()) if node not in self._certifying:
                self._certifying.add(node)
                self._tasks.spawn(self._certify(node), f"renew {node.short}")
            case Heard(node, Renewal(certificate, reason)):
                self._answer(node, certificate or DeniedError(f"the registrar renews no certificate: {reason}"))

    # --- this host's ---

    async def _keep_valid(self) -> None:
        while True:
            # Looked at from time to time all the same: a host that was suspended wakes with another time of day.
            wait_s = min(max(0.0, self._renewals.due_at - self._clock()), RENEWAL_CHECK_S)
            self._changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                if self._clock() >= self._renewals.due_at:
                    await self._try()

    async def _try(self) -> None:
        try:
            await self.renew()
        except EnticedError as error:
            self.trouble = str(error)
            self._renewals.failed(self._clock())
            level = logging.WARNING if self._renewals.failures > 1 else logging.INFO
            log.log(level, "the certificate could not be renewed: %s", error)

    async def renew(self, by: int = 0) -> None:
        """Have a new certificate, now. Raises why there is none, and then the present one stays.

        by: on the founding host, which of its CAs: 0 the oldest, -1 the newest.
        """
        if self._authority is None:
            certificate = await self._ask_registrars()
        else:
            certificate = await self._threads.run(self._authority.renew_own, by)
        self._identity.check_renewed(certificate, self._clock())
        await self._threads.run(self._identity.save_certificate, certificate)
        self._identity.take_certificate(certificate, self._clock())
        credential = self._identity.credential
        self.trouble = None
        self._renewals.renewed(
            credential.not_before, credential.not_after, is_behind=self._is_behind(), now=self._clock()
        )
        days = (credential.not_after - self._clock()) / 86400
        log.info("the certificate was renewed, and is good for %.0f days", days)

    async def _ask_registrars(self) -> bytes:
        trouble: EnticedError = AbsentError("the trust bundle names no registrar")
        for registrar in self._identity.trust.registrars:
            try:
                return await self._ask(registrar)
            except EnticedError as error:
                trouble = error
        raise trouble

    async def _ask(self, registrar: NodeId) -> bytes:
        peer = await self._reach(registrar)
        if TRUST not in peer.capabilities:
            raise DeniedError("the registrar renews no certificates: its enticed is older")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[registrar] = answer
        try:
            self._network.send(registrar, RenewalRequest())
            async with asyncio.timeout(RENEWAL_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise ExhaustedError("the registrar has not answered in time") from error
        finally:
            del self._answers[registrar]

    def _answer(self, registrar: NodeId, answer: bytes | EnticedError) -> None:
        """Only what this host waits for is an answer."""
        waiting = self._answers.get(registrar)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, bytes):
            waiting.set_result(answer)
        else:
            waiting.set_exception(answer)

    def _identity_changed(self) -> None:
        self._renewals.trust_changed(is_behind=self._is_behind(), now=self._clock())
        self._changed.set()

    def _is_behind(self) -> bool:
        """Whether a newer CA than that of this host's certificate is trusted.

        The founding host shows a certificate of the oldest that still is: who has not heard of the newest believes it.
        """
        newest = self._identity.trust.authorities[0 if self._authority is not None else -1]
        try:
            verify_certificate(self._identity.certificate_der, (newest,), self._identity.credential.not_after)
        except DeniedError:
            return True
        return False

    # --- other hosts' ---

    async def _certify(self, node: NodeId) -> None:
        certificate, reason = None, ""
        try:
            certificate = await self._renewed(node)
        except EnticedError as error:
            reason = str(error)[:REASON_MAX_CHARS]
            self._refused.info("host %s: its certificate is not renewed: %s", node.short, error, extra={"peer": node})
        else:
            log.info("host %s: its certificate was renewed", node.short, extra={"peer": node})
        finally:
            self._certifying.discard(node)
        self._network.send(node, Renewal(certificate, reason))

    async def _renewed(self, node: NodeId) -> bytes:
        credential = self._peers.get(node)
        if self._authority is None or credential is None:
            raise DeniedError("this host is no registrar")
        if credential.not_after < self._clock():  # the session has outlived it
            raise DeniedError("the certificate of this session has expired")
        seen_at = next((peer.address for peer in self._network.peers() if peer.node == node), None)
        address = None if seen_at is None else HostPort.parse(seen_at).ip
        return await self._threads.run(self._authority.renew, credential, address and ip_address(str(address)))
