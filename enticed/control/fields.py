"""Reading what a request says: every field is known and of its type, or the request is refused with one clear line."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from enticed.core.orders import Priority
from enticed.engine.campaigns.port import CampaignTerms
from enticed.engine.port import OrderTerms
from enticed.limits import (
    CAMPAIGN_HOSTS_MAX_COUNT,
    CONTROL_RELATIVES_MAX_COUNT,
    ORDER_KEY_MAX_CHARS,
    ORDER_TERM_MAX_S,
    PROFILE_RANGES_MAX_COUNT,
    REMOTE_LEASE_MAX_S,
    SCHEDULER_LIFETIME_S,
    SCHEDULER_MAX_LIFETIME_S,
    SCHEDULER_MIN_LIFETIME_S,
    TOKEN_MAX_LIFETIME_S,
    TOKEN_MAX_USES,
    TOKEN_MIN_LIFETIME_S,
)
from enticed.problems import UsageError
from protocol.credentials import Role, parse_label
from protocol.errors import MalformedError
from protocol.identifiers import NodeId
from protocol.labels import HOST, HostLabel, check_label
from protocol.limits import IMAGE_MAX_SIZE_BYTES, LABELS_MAX_COUNT, REMOTE_KEY_MAX_CHARS, SOURCE_FORMAT_MAX_CHARS
from protocol.names import is_digest_name, is_image_id, parse_name

_KEY = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@+-]{{0,{ORDER_KEY_MAX_CHARS - 1}}}")
_OTHERS_KEY = re.compile(r"[0-9a-f]{40}:.*|(?:read|heal|keep)-[0-9a-f]{64}")
"""Keys of orders that hosts place: `<node id>:<key>` for the campaigns of others, the rest for themselves."""
_FORMAT = re.compile(rf"[a-z0-9]{{1,{SOURCE_FORMAT_MAX_CHARS}}}")


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """See `enticed.engine.port.Publication`; the ticket stands for the descriptor."""

    ticket: str
    name: str
    source_format: str
    verbatim: bool
    private: str | None
    relatives: tuple[str, ...] | None
    digests: bool
    source_sha256: bytes | None
    source_sha512: bytes | None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    uses: int
    ttl_s: float
    may_dispatch: bool


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """request: of a certificate, DER."""

    name: str
    request: bytes
    lifetime_s: float


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; no body is an empty one."""
    if not body:
        return {}
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("the body is not a JSON object")
    return value


def parse_target(text: str) -> str:
    """A name or an image id, in its one spelling."""
    if is_image_id(text):
        return text.lower()
    try:
        return parse_name(text)
    except MalformedError as error:
        raise UsageError(f"{quoted(text)} is neither a name nor an image id: {error}") from error


def parse_key(text: str) -> str:
    """An order's key."""
    if not _KEY.fullmatch(text):
        raise UsageError(f"an order's key is 1 to {ORDER_KEY_MAX_CHARS} letters, digits and any of . _ : @ + -")
    return text


def parse_own_key(text: str) -> str:
    """The key of an order to place: none that a host gives to those that it places."""
    key = parse_key(text)
    if _OTHERS_KEY.fullmatch(key):
        raise UsageError(f"{quoted(key)} is a key of orders that hosts place by themselves: take another one")
    return key


def parse_order(values: dict[str, Any]) -> OrderTerms:
    fields = Fields(values, "image", "deadline_s", "priority", "keep_s", "origin")
    priority = fields.text("priority", default=Priority.PREWARM.value)
    if priority not in list(Priority):
        raise UsageError(f"priority is one of {', '.join(Priority)}")
    return OrderTerms(
        target=parse_target(fields.text("image")),
        deadline_s=fields.deadline(),
        priority=Priority(priority),
        keep_s=fields.seconds("keep_s"),
        origin=fields.origin("origin"),
    )


def parse_campaign_key(text: str) -> str:
    """A campaign's key, which is also that of its orders on other hosts."""
    if len(text) > REMOTE_KEY_MAX_CHARS or not _KEY.fullmatch(text):
        raise UsageError(f"a campaign's key is 1 to {REMOTE_KEY_MAX_CHARS} letters, digits and any of . _ : @ + -")
    return text


def parse_campaign(values: dict[str, Any]) -> CampaignTerms:
    fields = Fields(values, "image", "hosts", "labels", "deadline_s", "at_most_at_once", "keep_s")
    hosts, labels = fields.hosts(), fields.labels()
    if (hosts is None) == (labels is None):
        raise UsageError("a campaign has hosts or labels, and not both")
    if not hosts and not labels:
        raise UsageError("a campaign of no hosts: hosts and labels are not empty")
    keep_s = fields.seconds("keep_s")
    if keep_s is not None and keep_s > REMOTE_LEASE_MAX_S:
        raise UsageError(f"keep_s is at most {REMOTE_LEASE_MAX_S:g} on other hosts: ask again before it is over")
    return CampaignTerms(
        target=parse_target(fields.text("image")),
        hosts=hosts or (),
        labels=labels or (),
        deadline_s=fields.deadline(),
        at_most_at_once=fields.count("at_most_at_once", CAMPAIGN_HOSTS_MAX_COUNT, default=0),
        keep_s=keep_s,
    )


def parse_publish(values: dict[str, Any]) -> PublishRequest:
    fields = Fields(values, *(one.name for one in dataclasses.fields(PublishRequest)))
    name = _new_name(fields.text("name"))
    source_format = fields.text("source_format", default="raw")
    if not _FORMAT.fullmatch(source_format):
        raise UsageError("source_format is a format as qemu names it")
    digests = fields.flag("digests")
    sha256, sha512 = fields.hexadecimal("source_sha256", 32), fields.hexadecimal("source_sha512", 64)
    if (sha256 is None) != (sha512 is None) or (sha256 is not None and not digests):
        raise UsageError("source_sha256 and source_sha512 come together, and with digests")
    return PublishRequest(
        ticket=fields.text("ticket"),
        name=name,
        source_format=source_format,
        verbatim=fields.flag("verbatim"),
        private=fields.text("private", "") or None,
        relatives=fields.targets("relatives"),
        digests=digests,
        source_sha256=sha256,
        source_sha512=sha512,
    )


def parse_token_request(values: dict[str, Any]) -> TokenRequest:
    fields = Fields(values, "uses", "ttl_s", "campaigns")
    uses = fields.count("uses", TOKEN_MAX_USES, default=1)
    ttl_s = fields.seconds("ttl_s")
    ttl_s = 3600 if ttl_s is None else ttl_s
    if not TOKEN_MIN_LIFETIME_S <= ttl_s <= TOKEN_MAX_LIFETIME_S:
        raise UsageError(f"ttl_s is {TOKEN_MIN_LIFETIME_S} to {TOKEN_MAX_LIFETIME_S} seconds")
    return TokenRequest(uses, ttl_s, fields.flag("campaigns"))


def parse_grant(values: dict[str, Any]) -> GrantRequest:
    fields = Fields(values, "role", "name", "request", "lifetime_s")
    if fields.text("role") != Role.SCHEDULER.name.lower():
        raise UsageError("role is scheduler or publisher: no other is granted here")
    name = fields.text("name")
    try:
        if not parse_label(name):
            raise UsageError("a scheduler has a name")
        request = base64.b64decode(fields.text("request"), validate=True)
    except MalformedError as error:
        raise UsageError(f"name: {error}") from error
    except ValueError as error:
        raise UsageError("request is a certificate request, DER in base64") from error
    lifetime_s = fields.seconds("lifetime_s")
    lifetime_s = SCHEDULER_LIFETIME_S if lifetime_s is None else lifetime_s
    if not SCHEDULER_MIN_LIFETIME_S <= lifetime_s <= SCHEDULER_MAX_LIFETIME_S:
        raise UsageError(f"lifetime_s is {SCHEDULER_MIN_LIFETIME_S} to {SCHEDULER_MAX_LIFETIME_S} seconds")
    return GrantRequest(name, request, lifetime_s)


def parse_recall(values: dict[str, Any]) -> str | None:
    """The reason; None: only to hear how it was recalled. How long it may be is for who signs it to say."""
    reason = Fields(values, "reason").text("reason", "")
    if not reason.isprintable():
        raise UsageError("reason is one line of printable characters")
    return reason or None


def parse_profile(values: dict[str, Any]) -> tuple[tuple[int, int], ...] | None:
    """The ranges of a profile, offset and size each; None: those that were noted here."""
    ranges = Fields(values, "ranges").ranges("ranges")
    if ranges is not None and not ranges:
        raise UsageError("a profile of no ranges says nothing")
    return ranges


class Fields:
    """The fields of an object, of which none may be unknown; null is the same as left out."""

    def __init__(self, values: dict[str, Any], *known: str) -> None:
        for name in values:
            if name not in known:
                raise UsageError(f"no field is called {quoted(name)} here; there are {', '.join(known)}")
        self._values = values

    def _read(self, name: str, fits: Callable[[Any], bool], what: str, default: Any = None) -> Any:
        value = self._values.get(name)
        if value is None:
            return default
        if not fits(value):
            raise UsageError(f"{name} is {what}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._read(name, lambda value: isinstance(value, str), "a string", default)
        if value is None:
            raise UsageError(f"{name} is missing")
        return str(value)

    def origin(self, name: str) -> bool:
        return self._read(name, lambda value: value == "never", '"never", or left out', None) is None

    def flag(self, name: str) -> bool:
        return bool(self._read(name, lambda value: isinstance(value, bool), "true or false", False))

    def seconds(self, name: str) -> float | None:
        def fits(value: Any) -> bool:
            return type(value) in (int, float) and 0 <= value <= ORDER_TERM_MAX_S

        value = self._read(name, fits, f"seconds, from 0 to {ORDER_TERM_MAX_S}")
        return None if value is None else float(value)

    def count(self, name: str, most: int, default: int, least: int = 1) -> int:
        what = f"a number from {least} to {most}"
        return int(self._read(name, lambda value: _is_whole(value, least, most), what, default))

    def deadline(self) -> float | None:
        """Seconds from now until something is due."""
        value = self._values.get("deadline_s")
        if isinstance(value, int | float) and value <= 0 and value is not False:
            raise UsageError("deadline_s is seconds from now, more than 0: a date in the past cannot be met")
        return self.seconds("deadline_s")

    def ranges(self, name: str) -> tuple[tuple[int, int], ...] | None:
        def is_range(value: Any) -> bool:
            if not isinstance(value, list) or len(value) != 2:
                return False
            first, size = value
            return _is_whole(first, 0, IMAGE_MAX_SIZE_BYTES - 1) and _is_whole(size, 1, IMAGE_MAX_SIZE_BYTES)

        def fits(value: Any) -> bool:
            return isinstance(value, list) and len(value) <= PROFILE_RANGES_MAX_COUNT and all(map(is_range, value))

        value = self._read(name, fits, f"at most {PROFILE_RANGES_MAX_COUNT} pairs of offset and size")
        return None if value is None else tuple((int(first), int(size)) for first, size in value)

    def hosts(self) -> tuple[str, ...] | None:
        """Hosts by their ids or names."""

        def fits(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(one, str) for one in value)

        value = self._read("hosts", fits, "a list of hosts, by their ids or names")
        if value is not None and len(value) > CAMPAIGN_HOSTS_MAX_COUNT:
            raise UsageError(f"a campaign has at most {CAMPAIGN_HOSTS_MAX_COUNT} hosts")
        return None if value is None else tuple(map(_host, value))

    def labels(self) -> tuple[HostLabel, ...] | None:
        """Labels to choose hosts by; zone and rack are labels here."""

        def fits(value: Any) -> bool:
            return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())

        value = self._read("labels", fits, 'an object of labels, like {"zone": "a"}')
        if value is None:
            return None
        labels = tuple(sorted(HostLabel(key, one) for key, one in value.items()))
        if len(labels) > LABELS_MAX_COUNT:
            raise UsageError(f"hosts are chosen by at most {LABELS_MAX_COUNT} labels")
        try:
            for label in labels:
                check_label(label)
        except MalformedError as error:
            raise UsageError(f"labels: {error}") from error
        return labels

    def hexadecimal(self, name: str, size_bytes: int) -> bytes | None:
        def fits(value: Any) -> bool:
            return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{2 * size_bytes}}}", value) is not None

        value = self._read(name, fits, f"{2 * size_bytes} hex digits, in lower case")
        return None if value is None else bytes.fromhex(value)

    def texts(self, name: str, most: int, what: str) -> tuple[str, ...] | None:
        def fits(value: Any) -> bool:
            return isinstance(value, list) and len(value) <= most and all(isinstance(one, str) for one in value)

        value = self._read(name, fits, f"a list of at most {most} {what}")
        return None if value is None else tuple(value)

    def targets(self, name: str) -> tuple[str, ...] | None:
        value = self.texts(name, CONTROL_RELATIVES_MAX_COUNT, "names or image ids")
        return None if value is None else tuple(parse_target(one) for one in value)


def _new_name(text: str) -> str:
    """A name that an image can be given."""
    if is_image_id(text) or is_digest_name(text):
        raise UsageError("an image is published under a name like 'ubuntu:24.04', not under an id or a digest")
    try:
        return parse_name(text)
    except MalformedError as error:
        raise UsageError(f"{quoted(text)} is no name for an image: {error}") from error


def _host(text: str) -> str:
    """A host's id or name, in its one spelling."""
    if len(text) == 2 * NodeId.size_bytes and re.fullmatch("[0-9a-fA-F]+", text):
        return text.lower()
    try:
        check_label(HostLabel(HOST, text))
    except MalformedError as error:
        raise UsageError(f"{quoted(text)} is neither the id nor the name of a host") from error
    return text


def _is_whole(value: Any, least: int, most: int) -> bool:
    """A whole number within bounds. JSON has one kind of number: 3.0 is 3."""
    return type(value) in (int, float) and least <= value <= most and value == int(value)


def quoted(text: str) -> str:
    return repr(text if len(text) <= 64 else f"{text[:64]}...")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
