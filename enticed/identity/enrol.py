"""`entice join`: makes this host's keys, and trades a join token for a certificate.

The secret goes to nobody but the host that may have it. First the CA's certificate is fetched from whoever answers
and compared with the hash in the token; from then on only a host with that CA's certificate is spoken to; the CA's
trust bundle says which hosts enrol others; and the secret is sent on a connection to one of those.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

from enticed.identity.exchange import Answer, Exchange
from enticed.identity.host import HostIdentity, HostKeys, check_labels, identity_files, load_identity, new_identity
from enticed.limits import JOIN_TIMEOUT_S
from protocol.addresses import split_address
from protocol.codec import pack_record, unpack_record
from protocol.credentials import Role, load_authority, verify_certificate
from protocol.enrolment import JoinAnswer, JoinRequest, request_certificate
from protocol.errors import AbsentError, DeniedError, ExhaustedError, LocalError, MalformedError, RemoteError
from protocol.identifiers import NodeId
from protocol.labels import HostLabel
from protocol.limits import CLOCK_SKEW_MAX_S
from protocol.token import JoinToken, authority_hash, parse_token
from protocol.trust import TrustBundle, open_trust


def join_cluster(
    state_dir: Path,
    token_text: str,
    zone: str,
    rack: str,
    timeout_s: float = JOIN_TIMEOUT_S,
    clock: Callable[[], float] = time.time,
    labels: tuple[HostLabel, ...] = (),
) -> HostIdentity:
    """Enrol this host; blocks for at most about `timeout_s`. Whatever fails, the state is left as it was.

    `MalformedError` for a text that is no token, `LocalError` if this host is enrolled already, cannot write, or its
    clock is wrong, `AbsentError` if nobody answers, `DeniedError` for a token that is wrong, used or expired and for a
    host that is not who the token says, `ExhaustedError` if it takes too long, `RemoteError` if it makes no sense.
    """
    token = parse_token(token_text)
    labels = check_labels(zone, rack, labels)
    with new_identity(state_dir) as draft:
        exchange = Exchange(token.address, token.endpoint, timeout_s)
        authority = _pinned_authority(exchange, token)
        context = _verifying_context(authority)
        trust = _trust(exchange, context, authority, clock())
        keys = HostKeys.generate()
        certificate = request_certificate(keys.node, keys.sealing_key)
        request = JoinRequest(token.token, token.secret, certificate, zone, rack, labels)
        answer = _submit(exchange, context, authority, trust, request, clock())
        _check_answer(answer, authority, keys, request, clock())
        draft.publish(identity_files(keys, answer.certificate, authority, answer.trust, answer.bootstrap))
    return load_identity(state_dir)


def _pinned_authority(exchange: Exchange, token: JoinToken) -> bytes:
    """The CA certificate that the token's hash is of; nothing has been believed or told before it matches."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.minimum_version = ssl.TLSVersion.TLSv1_3
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    answer = exchange.ask(anyone, "GET", "/v1/ca")
    if answer.status != 200:
        raise AbsentError(f"the host at {exchange.address} does not enrol others")
    if authority_hash(answer.body) != token.authority_hash:
        raise DeniedError(f"the host at {exchange.address} is of another cluster than the token")
    load_authority(answer.body)
    return answer.body


def _verifying_context(authority: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who it is says the certificate's NodeId, never a name
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority)
    return context


def _trust(exchange: Exchange, context: ssl.SSLContext, authority: bytes, now: float) -> TrustBundle:
    answer = exchange.ask(context, "GET", "/v1/trust")
    _refuse_failure(answer)
    _compare_clocks(answer, now)
    return open_trust(answer.body, (authority,))


def _submit(
    exchange: Exchange,
    context: ssl.SSLContext,
    authority: bytes,
    trust: TrustBundle,
    request: JoinRequest,
    now: float,
) -> JoinAnswer:
    """Send the request, secret and all, once it is known that the other end is a registrar of this cluster."""

    def check(tls: ssl.SSLSocket) -> None:
        _require_registrar(tls, authority, trust.registrars, now)

    answer = exchange.ask(context, "POST", "/v1/join", pack_record(request), check)
    _refuse_failure(answer)
    return unpack_record(JoinAnswer, answer.body)


def _require_registrar(tls: ssl.SSLSocket, authority: bytes, registrars: tuple[NodeId, ...], now: float) -> None:
    credential = verify_certificate(tls.getpeercert(binary_form=True) or b"", (authority,), now)
    if credential.role is not Role.NODE or credential.node not in registrars:
        raise DeniedError(f"the host that answers, {credential.node.short}, is a member but must not enrol others")


def _refuse_failure(answer: Answer) -> None:
    if answer.status == 200:
        return
    text = answer.error_text()
    if answer.status == 403:
        raise DeniedError(text)
    if answer.status in (429, 503):
        raise ExhaustedError(text)
    raise RemoteError(f"the founding host answers {answer.status}: {text}")


def _compare_clocks(answer: Answer, now: float) -> None:
    """A clock that is off is found out before the token is spent: certificates are valid by the clock."""
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except ValueError as error:
        raise MalformedError("the founding host does not say what time it is") from error
    ahead_s = round(now - theirs)
    if abs(ahead_s) > CLOCK_SKEW_MAX_S:
        which = "ahead of" if ahead_s > 0 else "behind"
        raise LocalError(f"this host's clock is {abs(ahead_s)} s {which} the founding host's: set it and try again")


def _check_answer(answer: JoinAnswer, authority: bytes, keys: HostKeys, request: JoinRequest, now: float) -> None:
    """Nothing is kept that a daemon could not start with, or that was not asked for."""
    trust = open_trust(answer.trust, (authority,))
    if authority not in trust.authorities:
        raise RemoteError("the founding host's trust bundle does not name its own CA")
    credential = verify_certificate(answer.certificate, trust.authorities, now)
    asked = (keys.node_key, keys.sealing_key, Role.NODE, request.zone, request.rack, request.labels)
    place = (credential.zone, credential.rack, credential.labels)
    given = (credential.node_key, credential.sealing_key, credential.role, *place)
    if answer.authority != authority or given != asked:
        raise RemoteError("the founding host has certified something else than was asked for")
    for address in answer.bootstrap:
        split_address(address)
