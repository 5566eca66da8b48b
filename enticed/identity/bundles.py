"""Changes to a trust bundle, each a new bundle: pure, numbered and sealed elsewhere (`Authority.seal`)."""

from __future__ import annotations

from dataclasses import replace

from protocol.errors import AbsentError, LocalError, MalformedError
from protocol.identifiers import PublisherKey
from protocol.limits import (
    PUBLISHER_MAX_NAMES,
    STATEMENT_MAX_SIGNATURES,
    TRUST_MAX_AUTHORITIES,
    TRUST_MAX_PUBLISHERS,
    TRUST_MAX_REVOKED,
    TRUST_MAX_SCHEDULERS,
)
from protocol.trust import Revocation, TrustBundle, TrustedPublisher, TrustedScheduler, parse_pattern


def next_serial(bundle: TrustBundle, now: float) -> int:
    """Serials rise, and never fall behind the clock: a CA that is restored from a backup still overtakes its past."""
    return max(int(now), bundle.serial + 1)


def with_revoked(bundle: TrustBundle, revocations: tuple[Revocation, ...], now: float) -> TrustBundle:
    """These believed no longer; whose certificates have all ended is dropped. `LocalError` if the list is full."""
    revoked = {one.node: one for one in (*bundle.revoked, *revocations) if one.until > now}
    if len(revoked) > TRUST_MAX_REVOKED:
        raise LocalError(
            f"{TRUST_MAX_REVOKED} are revoked already: `entice trust rotate ca` gives all others new certificates"
        )
    return replace(bundle, revoked=tuple(revoked.values()))


def with_publisher(bundle: TrustBundle, publisher: TrustedPublisher) -> TrustBundle:
    """This publisher trusted, with these names for every key that it has. `LocalError` for what is out of bounds."""
    if not 1 <= len(publisher.names) <= PUBLISHER_MAX_NAMES:
        raise LocalError(f"a publisher has 1 to {PUBLISHER_MAX_NAMES} patterns of names, not {len(publisher.names)}")
    try:
        for pattern in publisher.names:
            parse_pattern(pattern)
    except MalformedError as error:
        raise LocalError(str(error)) from error
    if any(one.key == publisher.key and one.name != publisher.name for one in bundle.publishers):
        raise LocalError("this key is another publisher's already")
    others = tuple(
        replace(one, names=publisher.names) if one.name == publisher.name else one
        for one in bundle.publishers
        if one.key != publisher.key
    )
    if len(others) >= TRUST_MAX_PUBLISHERS:
        raise LocalError(f"there are {TRUST_MAX_PUBLISHERS} publishers' keys already: revoke one of them")
    return replace(bundle, publishers=(*others, publisher))


def without_publisher(bundle: TrustBundle, name: str, keep: PublisherKey | None = None) -> TrustBundle:
    """None of the publisher's keys trusted, but for the one to keep. `AbsentError` if there is none to take away."""
    left = tuple(one for one in bundle.publishers if one.name != name or one.key == keep)
    if len(left) == len(bundle.publishers):
        raise AbsentError(f"there is no key of a publisher {name} to take away")
    return replace(bundle, publishers=left)


def with_threshold(bundle: TrustBundle, threshold: int) -> TrustBundle:
    """So many different publishers have to sign. `LocalError` where there are not so many."""
    publishers = len({one.name for one in bundle.publishers})
    if not 1 <= threshold <= STATEMENT_MAX_SIGNATURES:
        raise LocalError(f"1 to {STATEMENT_MAX_SIGNATURES} publishers have to sign, not {threshold}")
    if threshold > publishers:
        raise LocalError(f"{threshold} publishers cannot sign: there are {publishers}; `entice grant publisher` first")
    return replace(bundle, threshold=threshold)


def with_scheduler(bundle: TrustBundle, scheduler: TrustedScheduler, now: float) -> TrustBundle:
    """This scheduler's quota and token, in place of what there was; whose time is over is dropped."""
    others = tuple(one for one in bundle.schedulers if one.name != scheduler.name and one.expires_at > now)
    if len(others) >= TRUST_MAX_SCHEDULERS:
        raise LocalError(f"{TRUST_MAX_SCHEDULERS} schedulers have a token or a quota already: `entice revoke` one")
    return replace(bundle, schedulers=(*others, scheduler))


def without_scheduler(bundle: TrustBundle, name: str) -> TrustBundle:
    """No token of this scheduler believed, nor its quota kept."""
    return replace(bundle, schedulers=tuple(one for one in bundle.schedulers if one.name != name))


def with_authority(bundle: TrustBundle, authority: bytes) -> TrustBundle:
    """One more CA (DER), the newest."""
    if len(bundle.authorities) >= TRUST_MAX_AUTHORITIES:
        raise LocalError(f"there are {TRUST_MAX_AUTHORITIES} CAs already")
    return replace(bundle, authorities=(*bundle.authorities, authority))


def with_newest_authority_only(bundle: TrustBundle) -> TrustBundle:
    """The CAs before the newest retired: what they have signed is believed no longer."""
    return replace(bundle, authorities=bundle.authorities[-1:])
