"""The cluster's CA at work, in the daemon of the founding host: hands out tokens, and certificates for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.identity.files import read_file
from enticed.identity.host import (
    identity_directory,
    is_founder,
    load_identity,
    load_signing_key,
    new_credential,
    new_scheduler,
    serial_number,
)
from enticed.identity.tokens import TokenBook
from enticed.limits import (
    SCHEDULER_MAX_LIFETIME_S,
    SCHEDULER_MIN_LIFETIME_S,
    TOKEN_MAX_LIFETIME_S,
    TOKEN_MAX_USES,
    TOKEN_MIN_LIFETIME_S,
)
from protocol.credentials import NodeCredential, parse_label
from protocol.enrolment import read_request, sign_certificate
from protocol.errors import CorruptError, DeniedError, LocalError, MalformedError
from protocol.labels import HostLabel, parse_labels
from protocol.limits import TOKEN_ID_SIZE_BYTES, TOKEN_SECRET_SIZE_BYTES, TRUST_MAX_SIZE_BYTES
from protocol.token import JoinToken, authority_hash, format_token


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new member is given: certificates as DER, the trust bundle sealed."""

    certificate: bytes
    authority: bytes
    trust: bytes


class Authority:
    """The CA of the cluster that this host founded. Methods write to disk and may be called from any thread."""

    def __init__(
        self,
        private: Ed25519PrivateKey,
        certificate: bytes,
        trust: bytes,
        tokens: TokenBook,
        clock: Callable[[], float],
    ) -> None:
        self._private = private
        self._tokens = tokens
        self._clock = clock
        self.certificate = certificate
        self.trust = trust

    @classmethod
    def load(cls, state_dir: Path, clock: Callable[[], float] = time.time) -> Authority:
        """From the state of the founding host. `DeniedError` on any other; else raises as `load_identity` does."""
        identity = load_identity(state_dir)
        if not is_founder(state_dir):
            raise DeniedError("only the founding host enrols others")
        directory = identity_directory(state_dir)
        try:
            private = load_signing_key(directory / "ca.key")
        except MalformedError as error:
            raise CorruptError(f"the identity in {directory} is damaged: {error}") from error
        trust = read_file(directory / "trust", TRUST_MAX_SIZE_BYTES)
        return cls(private, identity.authority_der, trust, TokenBook(directory / "tokens"), clock)

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

    def _certify(self, credential: NodeCredential, serves_at: IPv4Address | IPv6Address | None = None) -> bytes:
        return sign_certificate(self._private, self.certificate, credential, serial_number(), serves_at)
