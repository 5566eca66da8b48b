"""What the CA is about to certify: nonces and serial numbers of its choice, and how long it is good for."""

from __future__ import annotations

import secrets
from dataclasses import replace

from enticed.limits import CERTIFICATE_LIFETIME_S
from protocol.credentials import NodeCredential
from protocol.enrolment import node_credential, scheduler_credential
from protocol.identifiers import NodeKey, Nonce, SealingKey
from protocol.labels import HostLabel
from protocol.limits import CLOCK_SKEW_MAX_S

SERIAL_NUMBER_BITS = 127


def new_credential(
    node_key: NodeKey,
    sealing_key: SealingKey,
    zone: str,
    rack: str,
    now: float,
    *,
    labels: tuple[HostLabel, ...] = (),
    may_dispatch: bool = False,
) -> NodeCredential:
    """Of a host: with a new nonce, valid from a little before `now`."""
    since, until = int(now) - CLOCK_SKEW_MAX_S, int(now) + CERTIFICATE_LIFETIME_S
    return node_credential(
        node_key,
        sealing_key,
        _nonce(),
        zone=zone,
        rack=rack,
        not_before=since,
        not_after=until,
        labels=labels,
        may_dispatch=may_dispatch,
    )


def renewed(credential: NodeCredential, now: float) -> NodeCredential:
    """The same host, from now on: its nonce, and so its id, stays."""
    return replace(credential, not_before=int(now) - CLOCK_SKEW_MAX_S, not_after=int(now) + CERTIFICATE_LIFETIME_S)


def new_scheduler(key: NodeKey, sealing_key: SealingKey, name: str, now: float, lifetime_s: float) -> NodeCredential:
    """As `new_credential`, of a scheduler."""
    since, until = int(now) - CLOCK_SKEW_MAX_S, int(now + lifetime_s)
    return scheduler_credential(key, sealing_key, _nonce(), name=name, not_before=since, not_after=until)


def _nonce() -> Nonce:
    return Nonce(secrets.token_bytes(Nonce.size_bytes))


def serial_number() -> int:
    """A certificate's serial number: random, positive."""
    return secrets.randbits(SERIAL_NUMBER_BITS) | 1
