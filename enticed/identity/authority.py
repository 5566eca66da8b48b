"""The cluster's CA at work, in the daemon of the founding host: hands out tokens, and certificates for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from enticed.identity.authority_keys import AuthorityKeys, new_authority
from enticed.identity.bundles import next_serial, with_authority, with_newest_authority_only
from enticed.identity.certificates import new_credential, new_scheduler, renewed, serial_number
from enticed.identity.certified import CERTIFIED_FILE, Certified, CertifiedBook, certified
from enticed.identity.host import HostIdentity, identity_directory, is_founder, load_identity
from enticed.identity.limits import (
    CERTIFIED_ID_MIN_CHARS,
    RENEWALS_MIN_INTERVAL_S,
    RENEWED_REMEMBERED_MAX_COUNT,
    REVOCATION_IDS_TOLD_COUNT,
)
from enticed.identity.tokens import TokenBook
from enticed.limits import (
    SCHEDULER_MAX_LIFETIME_S,
    SCHEDULER_MIN_LIFETIME_S,
    TOKEN_MAX_LIFETIME_S,
    TOKEN_MAX_USES,
    TOKEN_MIN_LIFETIME_S,
)
from protocol.credentials import NodeCredential, Role, parse_label
from protocol.enrolment import read_request, served_at, sign_certificate
from protocol.errors import AbsentError, CorruptError, DeniedError, ExhaustedError, LocalError, MalformedError
from protocol.identifiers import NodeId
from protocol.labels import HostLabel, parse_labels
from protocol.limits import TOKEN_ID_SIZE_BYTES, TOKEN_SECRET_SIZE_BYTES
from protocol.token import JoinToken, authority_hash, format_token
from protocol.trust import Revocation, TrustBundle, seal_trust


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new member is given: certificates as DER, the trust bundle sealed."""

    certificate: bytes
    authority: bytes
    trust: bytes


class Authority:
    """The CA of the cluster that this host founded. Methods write to disk and may be called from any thread.

    It has one key, or two while it is being rotated: the newest certifies others; the oldest certifies this host
    itself, so that hosts that have not heard of the newest yet can still be told here.
    """

    def __init__(
        self,
        identity: HostIdentity,
        keys: AuthorityKeys,
        tokens: TokenBook,
        certified: CertifiedBook,
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._keys = keys
        self._tokens = tokens
        self._certified = certified
        self._clock = clock
        self._renewed_at: dict[NodeId, float] = {}

    @classmethod
    def load(
        cls, state_dir: Path, clock: Callable[[], float] = time.time, identity: HostIdentity | None = None
    ) -> Authority:
        """From the state of the founding host. `DeniedError` on any other; else raises as `load_identity` does.

        identity: of this host, where it is loaded already: what it goes by is what this CA hands out.
        """
        identity = identity or load_identity(state_dir)
        if not is_founder(state_dir):
            raise DeniedError("only the founding host enrols others")
        directory = identity_directory(state_dir)
        try:
            keys = AuthorityKeys.load(directory, identity.trust.authorities)
        except MalformedError as error:
            raise CorruptError(f"the identity in {directory} is damaged: {error}") from error
        tokens, certified = TokenBook(directory / "tokens"), CertifiedBook(directory / CERTIFIED_FILE)
        return cls(identity, keys, tokens, certified, clock)

    @property
    def certificate(self) -> bytes:
        """The CA certificate (DER) that joining hosts are to believe: that which has signed this host's own."""
        return self._identity.trust.authorities[0]

    @property
    def trust(self) -> bytes:
        """The sealed trust bundle."""
        return self._identity.sealed_trust.sealed

    def issue_token(self, address: str, uses: int = 1, ttl_s: int = 3600, *, may_dispatch: bool = False) -> str:
        """A token that lets `uses` hosts join within `ttl_s`; `address`: where this host's HTTPS API is reached.

        may_dispatch: other hosts will take orders from those that join with it.

        `LocalError` for values out of bounds, `ExhaustedError` if too many tokens are out.
        """
        if not 1 <= uses <= TOKEN_MAX_USES:
            raise LocalError(f"a join token has 1 to {TOKEN_MAX_USES} uses, not {uses}")
        if not TOKEN_MIN_LIFETIME_S <= ttl_s <= TOKEN_MAX_LIFETIME_S:
            raise LocalError(f"a join token lives {TOKEN_MIN_LIFETIME_S} to {TOKEN_MAX_LIFETIME_S} s, not {ttl_s}")
        token, secret = secrets.token_bytes(TOKEN_ID_SIZE_BYTES), secrets.token_bytes(TOKEN_SECRET_SIZE_BYTES)
        try:
            text = format_token(JoinToken(address, authority_hash(self.certificate), token, secret))
        except MalformedError as error:
            raise LocalError(f"no token for the address {address}: {error}") from error
        now = self._clock()
        self._tokens.add(token, secret, uses, int(now) + ttl_s, now, may_dispatch=may_dispatch)
        return text

    def enrol(
        self,
        token: bytes,
        secret: bytes,
        request: bytes,
        zone: str,
        rack: str,
        labels: tuple[HostLabel, ...] = (),
        seen_at: IPv4Address | IPv6Address | None = None,
    ) -> Enrolment:
        """A certificate for the keys of a certificate request (DER), whatever names that asks for.

        seen_at: the address from which the host asks; it is certified as one of its names.

        `DeniedError` for a bad token or a request that its sender did not sign, `MalformedError` for a malformed
        one. The request is checked first: a mistake does not cost a use of the token.
        """
        parse_label(zone)
        parse_label(rack)
        labels = parse_labels(labels)
        node_key, sealing_key = read_request(request)
        now = self._clock()
        redeemed = self._tokens.redeem(token, secret, now)
        credential = new_credential(
            node_key, sealing_key, zone, rack, now, labels=labels, may_dispatch=redeemed.may_dispatch
        )
        return Enrolment(self._certify(credential, seen_at), self.certificate, self.trust)

    def grant_scheduler(self, name: str, request: bytes, lifetime_s: int) -> bytes:
        """A scheduler's certificate (DER) for the keys of a certificate request, good for `lifetime_s`.

        `LocalError` for a lifetime out of bounds, `MalformedError` for a name or request that is none, `DeniedError`
        for a request that its sender did not sign.
        """
        if not SCHEDULER_MIN_LIFETIME_S <= lifetime_s <= SCHEDULER_MAX_LIFETIME_S:
            raise LocalError(
                f"a scheduler's certificate lives {SCHEDULER_MIN_LIFETIME_S} to {SCHEDULER_MAX_LIFETIME_S} s"
            )
        if not parse_label(name):
            raise MalformedError("a scheduler has a name")
        key, sealing_key = read_request(request)
        return self._certify(new_scheduler(key, sealing_key, name, self._clock(), lifetime_s))

    def renew(self, credential: NodeCredential, seen_at: IPv4Address | IPv6Address | None = None) -> bytes:
        """A new certificate (DER) for a host that has shown a good one: the same host, for another while.

        `DeniedError` if it was revoked or is no node, `ExhaustedError` if it has just been given one.
        """
        now = self._clock()
        self._identity.require_standing(credential.node)
        if credential.role is not Role.NODE:
            raise DeniedError("only a host's certificate is renewed here")
        if now < self._renewed_at.get(credential.node, -RENEWALS_MIN_INTERVAL_S) + RENEWALS_MIN_INTERVAL_S:
            raise ExhaustedError("this host's certificate has just been renewed")
        if len(self._renewed_at) >= RENEWED_REMEMBERED_MAX_COUNT:
            self._renewed_at.clear()
        self._renewed_at[credential.node] = now
        return self._certify(renewed(credential, now), seen_at)

    def renew_own(self, by: int = 0) -> bytes:
        """As `renew`, for this host itself, at the address that its certificate names; by: which CA, 0 the oldest."""
        own = self._identity
        return self._certify(renewed(own.credential, self._clock()), served_at(own.certificate_der), by)

    def renew_own_at_rest(self) -> int:
        """As `renew_own`, and written down, while no daemon runs: for a founding host that was off until its
        certificate had expired, or comes from a backup as old. Until when (s) it is good now.

        No start does it: where the clock is wrong, an expired certificate is what keeps the CA from signing by it.
        """
        certificate = self.renew_own()
        self._identity.save_certificate(certificate)
        self._identity.take_certificate(certificate, self._clock())
        return self._identity.credential.not_after

    # --- who is trusted ---

    def certified(self) -> tuple[Certified, ...]:
        """For whom there is a certificate that still holds."""
        return self._certified.all(self._clock())

    def seal(self, change: Callable[[TrustBundle], TrustBundle]) -> bytes:
        """The next trust bundle, sealed: what `change` makes of the present one. Nothing is written."""
        now, bundle = self._clock(), self._identity.trust
        changed = replace(change(bundle), serial=next_serial(bundle, now), issued_at=int(now))
        return seal_trust(changed, *self._keys.of((*bundle.authorities, *changed.authorities)))

    def revocations(self, text: str) -> tuple[Revocation, ...]:
        """Whom it means to revoke `text`: a host's id, the beginning of one, or the name of a host or scheduler.

        `AbsentError` if nobody, `LocalError` if it means several hosts, or this one.
        """
        now = self._clock()
        found = self._certified.find(text, now)
        if not found and len(text) == 2 * NodeId.size_bytes:
            try:
                found_unknown = NodeId.from_hex(text.lower())
            except MalformedError as error:
                raise AbsentError(f"no host or scheduler {text} is known") from error
            return (Revocation(found_unknown, int(now) + SCHEDULER_MAX_LIFETIME_S),)
        if not found:
            if len(text) < CERTIFIED_ID_MIN_CHARS and set(text.lower()) <= set("0123456789abcdef"):
                raise AbsentError(
                    f"{text} is too short for a host's id: give {CERTIFIED_ID_MIN_CHARS} characters of it"
                )
            raise AbsentError(f"no host or scheduler {text} is known: give its id in full")
        if len(found) > 1 and any(one.role != "scheduler" for one in found):
            raise LocalError(
                f"{len(found)} hosts are meant by {text}: give the id of the one that is to be revoked: {_ids(found)}"
            )
        if self._identity.node in (one.node_id for one in found):
            raise LocalError("this is the founding host: a cluster cannot revoke it")
        return tuple(Revocation(one.node_id, one.expires_at) for one in found)

    def begin_rotation(self) -> bytes:
        """Make another CA and trust it beside the present one; the sealed bundle that says so."""
        if len(self._identity.trust.authorities) > 1:
            raise LocalError("the CA is being rotated already: `entice trust rotate ca --finish` ends it")
        now = self._clock()
        private, authority = new_authority(now)
        self._keys.add(private)
        return self.seal(lambda bundle: with_authority(bundle, authority))

    def behind(self) -> tuple[Certified, ...]:
        """Who still has no certificate by the newest CA, but for this host."""
        newest, own = authority_hash(self._identity.trust.authorities[-1]).hex(), self._identity.node.hex()
        return tuple(one for one in self.certified() if one.authority != newest and one.node != own)

    def finish_rotation(self) -> bytes:
        """Retire every CA but the newest; the sealed bundle that says so. Once it is saved, `forget_old_keys`."""
        if len(self._identity.trust.authorities) < 2:
            raise LocalError("the CA is not being rotated")
        return self.seal(with_newest_authority_only)

    def forget_old_keys(self) -> None:
        """Remove from the disk the keys of CAs that are no longer trusted."""
        self._keys.keep_only(self._identity.trust.authorities)

    def _certify(
        self, credential: NodeCredential, serves_at: IPv4Address | IPv6Address | None = None, by: int = -1
    ) -> bytes:
        authority = self._identity.trust.authorities[by]
        (private,) = self._keys.of((authority,))
        certificate = sign_certificate(private, authority, credential, serial_number(), serves_at)
        self._certified.add(certified(credential, authority), self._clock())
        return certificate


def _ids(found: Sequence[Certified]) -> str:
    told, more = found[:REVOCATION_IDS_TOLD_COUNT], len(found) - REVOCATION_IDS_TOLD_COUNT
    return ", ".join(one.node_id.short for one in told) + (f" and {more} more (entice trust hosts)" if more > 0 else "")
