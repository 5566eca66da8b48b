"""Who a client of the HTTPS API is, by its certificate, and what its role lets it do. What is not allowed is denied."""

from __future__ import annotations

import hmac
import logging
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256

from aiohttp import web

from enticed.http_server import ShortHandler
from enticed.identity.host import HostIdentity
from enticed.problems import Handler
from protocol.credentials import Role
from protocol.errors import DeniedError, MalformedError

_SCHEDULER = web.RequestKey("scheduler", str)
_BEARER = "Bearer "
_log = logging.getLogger(__name__)


class Roles:
    """The one rule: schedulers order, and whoever likes may ask what is open to all. Roles are disjoint: a node orders
    over its sessions, where what it may is another question, and people use the unix socket.
    """

    def __init__(self, identity: HostIdentity, clock: Callable[[], float]) -> None:
        self._identity = identity
        self._clock = clock
        self._open: set[Handler] = set()

    def open_to_all(self, routes: Iterable[web.AbstractRoute]) -> None:
        self._open |= {route.handler for route in routes}

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None and request.match_info.handler not in self._open:
            name = self._scheduler(request)
            request[_SCHEDULER] = name
            if isinstance(request.protocol, ShortHandler):
                request.protocol.stay()
            if request.method != "GET":
                _log.info("scheduler %s: %s %s", name, request.method, request.rel_url.raw_path)
        return await handler(request)

    def knows(self, tls: object) -> bool:
        """Whether who is at the other end of a connection has shown a certificate that the cluster believes."""
        der = _certificate(tls)
        with suppress(MalformedError, DeniedError):
            return der is not None and bool(self._identity.verify(der, self._clock()))
        return False

    @staticmethod
    def owner_of(request: web.Request) -> str:
        """Whose orders a scheduler's are: its name's, so that a renewed certificate still owns them."""
        return f"scheduler:{request[_SCHEDULER]}"

    async def reader_of(self, request: web.Request) -> str:
        return self.owner_of(request)

    def _scheduler(self, request: web.Request) -> str:
        """Who asks, by certificate or token. Looked at for each request: a connection may outlive what either is worth.

        A certificate counts before a token: who shows one is who it says, whatever else is sent along.
        """
        der = _certificate(request.get_extra_info("ssl_object"))
        said = request.headers.get("Authorization", "")
        if der is not None:
            return self._by_certificate(der)
        if said.startswith(_BEARER):
            return self._by_token(said.removeprefix(_BEARER))
        raise DeniedError("show a scheduler's certificate or token: `entice grant scheduler NAME` on the founding host")

    def _by_certificate(self, der: bytes) -> str:
        try:
            credential = self._identity.verify(der, self._clock())
        except MalformedError as error:
            raise DeniedError(f"your certificate is none of this cluster's: {error}") from error
        if credential.role is not Role.SCHEDULER:
            role = credential.role.name.lower()
            raise DeniedError(f"your certificate is that of a {role}: orders are taken from schedulers")
        return credential.name

    def _by_token(self, token: str) -> str:
        """Only hashes are known here, and all of them are compared, each in constant time."""
        shown, now = sha256(token.encode(errors="surrogateescape")).digest(), self._clock()
        names = [
            one.name
            for one in self._identity.trust.schedulers
            if hmac.compare_digest(one.token_sha256 or bytes(32), shown) and now < one.expires_at
        ]
        if not names:
            raise DeniedError("your token is wrong, has expired or was taken back")
        return names[0]


def _certificate(tls: object) -> bytes | None:
    return tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
