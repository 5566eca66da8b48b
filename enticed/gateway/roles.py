"""Who a client of the HTTPS API is, by its certificate, and what its role lets it do. What is not allowed is denied."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable

from aiohttp import web

from enticed.identity.host import HostIdentity
from enticed.problems import Handler
from protocol.credentials import NodeCredential, Role, verify_certificate
from protocol.errors import DeniedError, MalformedError

_CREDENTIAL = web.RequestKey("credential", NodeCredential)
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
            credential = self._credential(request)
            if credential.role is not Role.SCHEDULER:
                role = credential.role.name.lower()
                raise DeniedError(f"your certificate is that of a {role}: orders are taken from schedulers")
            request[_CREDENTIAL] = credential
            if request.method != "GET":
                _log.info("scheduler %s: %s %s", credential.name, request.method, request.rel_url.raw_path)
        return await handler(request)

    @staticmethod
    def owner_of(request: web.Request) -> str:
        """Whose orders a scheduler's are: its name's, so that a renewed certificate still owns them."""
        return f"scheduler:{request[_CREDENTIAL].name}"

    async def reader_of(self, request: web.Request) -> str:
        return self.owner_of(request)

    def _credential(self, request: web.Request) -> NodeCredential:
        """Looked at anew for each request: a connection may outlive what the certificate is good for."""
        tls = request.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
        if der is None:
            raise DeniedError("show a scheduler's certificate: `entice grant scheduler NAME` on the founding host")
        try:
            return verify_certificate(der, self._identity.trust.authorities, self._clock())
        except MalformedError as error:
            raise DeniedError(f"your certificate is none of this cluster's: {error}") from error
