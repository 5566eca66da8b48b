"""What can go wrong between a request and its bytes, by whose fault it is."""

from __future__ import annotations

import ssl

from enticed.errnos import exhausted
from enticed.transfer.limits import COURIER_LOST_RETRY_S
from protocol.errors import AbsentError, DeniedError, EnticedError, ExhaustedError, RemoteError
from protocol.messages import Alternative, Refusal

_DENIED_ALERTS = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "ALERT_CERTIFICATE_EXPIRED")


class BusyError(ExhaustedError):
    """The peer has no upload slot: ask it again after `retry_after_s`, or ask the alternatives now."""

    def __init__(self, retry_after_s: float, alternatives: tuple[Alternative, ...]) -> None:
        super().__init__(f"the peer is busy for {retry_after_s:g} s, and names {len(alternatives)} others")
        self.retry_after_s = retry_after_s
        self.alternatives = alternatives


class CourierLostError(BusyError):
    """The process that fetched has ended. It is not the peer's fault: ask it again."""

    def __init__(self) -> None:
        super().__init__(COURIER_LOST_RETRY_S, ())
        self.args = ("the process that fetched has ended",)


class RefusedError(AbsentError):
    """The peer does not serve this: it has not got it, cannot read it, or finds the request wrong."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(f"the peer refuses: {why.name.lower()}")
        self.why = why


class PeerLostError(AbsentError):
    """There is no connection to the peer, or not any more."""


class DisownedError(PeerLostError):
    """The peer says that this host was revoked. Only the trust bundle proves it."""

    def __init__(self) -> None:
        super().__init__("the peer says that this host was revoked")


class PeerSilentError(ExhaustedError):
    """The peer took too long: the connection is given up."""


def fault_of(error: OSError) -> EnticedError:
    """What an error of a TLS connection says of the peer; or of this host, where it has no descriptor left."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return DeniedError(f"the peer is no member of this cluster: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return PeerSilentError("the peer is silent")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return PeerLostError("the peer has closed the connection")
    if isinstance(error, ssl.SSLError):
        if any(alert in (error.reason or "") for alert in _DENIED_ALERTS):
            return DeniedError("the peer does not accept this host's certificate")
        return RemoteError(f"the peer does not speak our TLS: {error.reason}")
    told = exhausted(error, f"this host has nothing left for a connection: {error.strerror or error}")
    return told or PeerLostError(f"the connection is lost: {error.strerror or error}")
