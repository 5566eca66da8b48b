"""TLS between members: contexts for both sides, and who is at the other end.

The contexts serve asyncio and uvloop as well as blocking sockets. Who the peer is says its certificate, never an
address or a name: callers ask `peer_credential` after the handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from enticed.identity.host import HostIdentity
from enticed.identity.tls_context import load, member_context
from protocol.credentials import NodeCredential
from protocol.errors import DeniedError


def server_context(identity: HostIdentity, alpn: Sequence[str]) -> ssl.SSLContext:
    """For a listener that only members may speak to. `alpn`: what is spoken here, preferred first."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity, alpn)
    context.num_tickets = 0  # every handshake shows certificates; a ticket would let one outlive its certificate
    return context


def client_context(identity: HostIdentity, alpn: Sequence[str]) -> ssl.SSLContext:
    """For dialling a member."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity, alpn)


def api_context(identity: HostIdentity) -> ssl.SSLContext:
    """For the HTTPS API: as `server_context`, but a client without a certificate may ask to join."""
    context = server_context(identity, ["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def refresh(context: ssl.SSLContext, identity: HostIdentity) -> None:
    """Have a context in use show this host's present certificate, and believe CAs that have come.

    Those that were retired it goes on believing: whoever takes a connection asks `HostIdentity.verify`.
    """
    load(context, identity.directory, identity.trust.authorities)


def peer_credential(tls: ssl.SSLObject | ssl.SSLSocket, identity: HostIdentity, now: float) -> NodeCredential:
    """Which member is at the other end of a finished handshake.

    `DeniedError` if it is none, was revoked, or shows no node's certificate; `MalformedError` for one that is not ours.
    """
    der = tls.getpeercert(binary_form=True)
    if der is None:
        raise DeniedError("the peer has shown no certificate")
    return identity.verify_peer(der, now)


def _context(side: ssl._SSLMethod, identity: HostIdentity, alpn: Sequence[str]) -> ssl.SSLContext:
    return member_context(side, identity.directory, identity.trust.authorities, alpn)
