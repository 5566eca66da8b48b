"""Whether this host can do what it is there for, check by check: what `/readyz` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enticed.engine.parts import Parts
from enticed.identity.limits import CERTIFICATE_WARNING_S
from enticed.limits import READY_LOOP_LAG_MAX_S
from enticed.store.space import size

# The founding host's identity holds the CA: it is never moved away.
RENEW_OWN = "stop enticed, entice trust renew --state STATE, start it again"
JOIN_AGAIN = "stop enticed, move STATE/identity away, and let it join again with a new token: entice join; images stay"
SEE_WHO_LIES = f"entice trust show, on the founding host: if not, that host lies; if it was: {JOIN_AGAIN}"


@dataclass(frozen=True, slots=True)
class Check:
    """said: how things are. to_do: what helps where it is not ok."""

    name: str
    is_ok: bool
    said: str
    to_do: str = ""


def checks(parts: Parts) -> Iterator[Check]:
    """All checks, as things are now."""
    yield _trust(parts)
    yield _certificate(parts)
    yield _store(parts)
    yield _disk(parts)
    yield _quota(parts)
    yield _peers(parts)
    yield _event_loop(parts)


def _trust(parts: Parts) -> Check:
    trust = parts.identity.trust
    if parts.identity.node in trust.revoked_nodes:
        said = "this host was revoked: no other host of the cluster has anything to do with it"
        return Check("trust", False, said, f"if it is to belong to the cluster: {JOIN_AGAIN}")
    if not parts.standing.disowned:
        return Check("trust", True, f"this host is not revoked in its trust bundle, of serial {trust.serial}")
    said = f"{parts.standing.disowned}; in this host's own trust bundle, of serial {trust.serial}, it is not"
    return Check("trust", is_member(parts), said, SEE_WHO_LIES)


def is_member(parts: Parts) -> bool:
    """Not where somebody says that this host was revoked, and nobody has anything to do with it. Where others have, one
    that lies is not to take it out of service; nor the founding host, which cannot be revoked."""
    if parts.identity.node in parts.identity.trust.revoked_nodes:
        return False
    return not parts.standing.disowned or parts.overlay.contacts > 0 or parts.authority is not None


def _certificate(parts: Parts) -> Check:
    credential, now = parts.identity.credential, parts.clock()
    left_days = (credential.not_after - now) / 86400
    trouble = parts.trust.renewing.trouble
    if 0 < left_days < CERTIFICATE_WARNING_S / 86400 and trouble is not None:
        said = f"good for {left_days:.0f} days, and cannot be renewed: {trouble}"
        return Check("certificate", True, said)
    if left_days > 0:
        return Check("certificate", True, f"good for {left_days:.0f} days")
    to_do = RENEW_OWN if parts.authority is not None else JOIN_AGAIN
    return Check("certificate", False, "this host's certificate has expired", f"is its clock right? Else {to_do}")


def _store(parts: Parts) -> Check:
    degraded = parts.driver.host.disk.degraded
    if not degraded:
        return Check("store", True, "can be written to")
    to_do = "see to the disk under the state directory: once it can be written to, this host goes on by itself"
    return Check("store", False, f"degraded, no new orders are taken: {degraded}", to_do)


def _disk(parts: Parts) -> Check:
    space = parts.store.space()
    taken_bytes = space.reserved_bytes + space.promised_bytes
    said = (
        f"{size(space.free_bytes)} free in {space.place}, {size(space.reserved_bytes)} to stay free, "
        f"{size(space.promised_bytes)} promised to pulls"
    )
    if taken_bytes >= space.free_bytes:
        said = f"full, {size(taken_bytes - space.free_bytes)} too little: {said}"
    to_do = "remove images (entice rm), lower reserve_bytes in [store], or have a larger file system"
    return Check("disk", taken_bytes < space.free_bytes, said, to_do)


def _quota(parts: Parts) -> Check:
    space = parts.store.space()
    if space.quota_bytes is None:
        return Check("quota", True, "none is set")
    claimed_bytes = space.used_bytes + space.promised_bytes
    said = f"{size(claimed_bytes)} of {size(space.quota_bytes)} claimed"
    to_do = "remove images (entice rm), or raise quota_bytes in [store] and entice reload"
    return Check("quota", claimed_bytes < space.quota_bytes, said, to_do)


def _peers(parts: Parts) -> Check:
    contacts = parts.overlay.contacts
    # The founding host may be the first of all.
    if contacts or parts.authority is not None:
        return Check("peers", True, f"{contacts} other hosts known")
    to_do = "is UDP of `listen` open both ways, is one of `bootstrap` up, do the clocks agree, was this host revoked?"
    return Check("peers", False, "no other host answers", to_do)


def _event_loop(parts: Parts) -> Check:
    lag_s = parts.lag.p99_ms / 1000
    to_do = "the host has no processor time to spare, or the disk under the state directory hangs"
    return Check("event_loop", lag_s <= READY_LOOP_LAG_MAX_S, f"{lag_s:.3f} s late (p99 of the last minute)", to_do)
