"""What the records of the control API look like, as JSON Schema: beside `views.py`, which writes them, and `fields.py`,
which reads them. A test holds real answers against these.

In answers nothing is optional: what is not known is null. Fields may be added; so programs pass over those they do not
know, and requests with them are refused.
"""

from __future__ import annotations

from typing import Any

from enticed.core.campaigns.records import Stage
from enticed.core.orders import Failure, OrderState, Priority, Promise
from enticed.engine.campaign_port import CampaignState
from enticed.engine.port import OriginState
from enticed.limits import (
    CAMPAIGN_HOSTS_MAX_COUNT,
    CONTROL_RELATIVES_MAX_COUNT,
    ORDER_KEY_MAX_CHARS,
    ORDER_TERM_MAX_S,
    ORDERS_MAX_COUNT,
    PROFILE_RANGES_MAX_COUNT,
    REMOTE_LEASE_MAX_S,
    SCHEDULER_MAX_LIFETIME_S,
    SCHEDULER_MIN_LIFETIME_S,
    TOKEN_MAX_LIFETIME_S,
    TOKEN_MAX_USES,
    TOKEN_MIN_LIFETIME_S,
)
from enticed.operating.diagnosis import Area, Verdict
from enticed.problems import STATUS, TYPE_PREFIX, Kind
from protocol.limits import (
    IMAGE_MAX_SIZE_BYTES,
    LABEL_KEY_MAX_CHARS,
    LABEL_MAX_CHARS,
    LABELS_MAX_COUNT,
    NAME_MAX_CHARS,
    NAME_PATTERN_MAX_CHARS,
    PUBLISHER_MAX_NAMES,
    RECALL_REASON_MAX_CHARS,
    REMOTE_KEY_MAX_CHARS,
    SOURCE_FORMAT_MAX_CHARS,
)

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BYTES: Schema = {"type": "integer", "minimum": 0, "description": "bytes"}
NUMBER: Schema = {"type": "number", "minimum": 0}
TIME: Schema = {"type": "number", "description": "unix seconds"}
IMAGE_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
NODE_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{40}$"}
PUBLISHER_KEY: Schema = IMAGE_ID
HEX_32: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
PATTERN: Schema = {
    "type": "string",
    "maxLength": NAME_PATTERN_MAX_CHARS,
    "pattern": r"^(([a-z0-9][A-Za-z0-9._/:-]*)?\*|[a-z0-9][A-Za-z0-9._/:-]*)$",
}
ANYTHING: Schema = {}

_NAME = r"(?!sha256:|sha512:)[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9._-]+)?"
TARGET: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": NAME_MAX_CHARS,
    "description": "a name like 'ubuntu:24.04', or an image id",
    "pattern": rf"^(sha256:[0-9a-f]{{64}}|sha512:[0-9a-f]{{128}}|{_NAME})$",
}
LABEL: Schema = {"type": "string", "pattern": rf"^[A-Za-z0-9._-]{{1,{LABEL_MAX_CHARS}}}$"}
KEY: Schema = {"type": "string", "pattern": rf"^[A-Za-z0-9][A-Za-z0-9._:@+-]{{0,{ORDER_KEY_MAX_CHARS - 1}}}$"}
CAMPAIGN_KEY: Schema = {"type": "string", "pattern": rf"^[A-Za-z0-9][A-Za-z0-9._:@+-]{{0,{REMOTE_KEY_MAX_CHARS - 1}}}$"}
HOST_NAME: Schema = LABEL | {"description": "a host's id, or its name: what `--label host=` said when it joined"}
TERM: Schema = {"type": "number", "minimum": 0, "maximum": ORDER_TERM_MAX_S, "description": "seconds from now"}
DEADLINE: Schema = TERM | {"exclusiveMinimum": 0}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def enum(values: Any) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def counts_by(what: str) -> Schema:
    return {"type": "object", "additionalProperties": COUNT, "description": f"by {what}"}


def answer(**properties: Schema) -> Schema:
    """A record that we write: everything in it is there."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def request(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """A record that we read: null is the same as left out, and nothing else may be in it."""
    optional = {name: or_null(schema) for name, schema in properties.items() if name not in required}
    kept = {name: schema for name, schema in properties.items() if name in required}
    return {
        "type": "object",
        "properties": kept | optional,
        "required": list(required),
        "additionalProperties": False,
    }


_RANGE: Schema = {
    "type": "array",
    "prefixItems": [
        {"type": "integer", "minimum": 0, "maximum": IMAGE_MAX_SIZE_BYTES - 1, "description": "offset"},
        {"type": "integer", "minimum": 1, "maximum": IMAGE_MAX_SIZE_BYTES, "description": "size"},
    ],
    "minItems": 2,
    "maxItems": 2,
}

_CAMPAIGN = {
    "key": CAMPAIGN_KEY,
    "image": TEXT | {"description": "as it was asked for"},
    "image_id": IMAGE_ID,
    "owner": TEXT,
    "state": enum(CampaignState),
    "created_at": TIME,
    "due_at": or_null(TIME),
    "keep_s": NUMBER,
    "at_most_at_once": or_null(COUNT),
    "labels": {"type": "object", "additionalProperties": TEXT},
    "complete": FLAG | {"description": "false where there may be more hosts with these labels than could be found"},
    "promise": or_null(enum(Promise)) | {"description": "the worst that any host has been promised"},
    "hosts_ready": COUNT,
    "hosts_total": COUNT,
    "revision": COUNT | {"description": "grows with every change"},
}

_HOLDER = answer(node_id=NODE_ID, name=TEXT, expires_at=TIME)

RECORDS: dict[str, Schema] = {
    "Problem": answer(
        type=enum(TYPE_PREFIX + kind for kind in Kind),
        title=TEXT,
        status={"type": "integer", "description": f"mostly one of {sorted(STATUS.values())}"},
        detail={"type": "string", "description": "one line for people"},
        kind=enum(Kind) | {"description": "for programs: never changes its meaning"},
    ),
    "Image": answer(
        image_id=IMAGE_ID,
        names=array(TEXT),
        virtual_size_bytes=BYTES,
        data_bytes=BYTES,
        fragments=COUNT,
        pieces=COUNT,
        pieces_held=COUNT,
        ready=FLAG,
        leased=FLAG,
        created_at=TIME,
        source_format=TEXT,
        relatives=array(answer(image_id=IMAGE_ID, shared_bytes=BYTES)),
        digests={"type": "object", "additionalProperties": TEXT},
        private=FLAG,
        recalled=or_null(ref("Recall")),
    ),
    "Recall": answer(by=PUBLISHER_KEY, reason=TEXT, at=TIME),
    "RecallRequest": request(
        (),
        reason={
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": RECALL_REASON_MAX_CHARS,
            "description": "one line, printable, for people; null: only to hear how it was recalled, and who held it",
        },
    ),
    "RecallReport": answer(
        image_id=IMAGE_ID,
        recalled=ref("Recall"),
        holders=array(answer(id=NODE_ID, addresses=array(TEXT), whole=FLAG))
        | {"description": "hosts that hold some of it, each by its own signature"},
        estimated_others=COUNT | {"description": "how many more seem to hold it, and have not signed"},
    ),
    "BytesFrom": answer(zero=BYTES, on_hand=BYTES, relatives=BYTES, peers=BYTES, origin=BYTES),
    "OrderTerms": request(
        ("image",),
        image=TARGET,
        deadline_s=DEADLINE,
        priority=enum(Priority),
        keep_s=TERM | {"description": "how long the image is kept once it is ready; null: until cancelled"},
        origin={"type": ["string", "null"], "enum": ["never", None]},
    ),
    "Order": answer(
        key=KEY,
        image=TEXT | {"description": "as it was asked for"},
        image_id=or_null(IMAGE_ID),
        state=enum(OrderState),
        failure=or_null(enum(Failure)),
        reason=TEXT,
        priority=enum(Priority),
        created_at=TIME,
        due_at=or_null(TIME),
        keep_until=or_null(TIME),
        ready_at=or_null(TIME),
        late=FLAG,
        percent=NUMBER | {"maximum": 100},
        virtual_size_bytes=BYTES,
        data_bytes=BYTES,
        done_bytes=BYTES,
        fragments=COUNT,
        bytes_from=ref("BytesFrom"),
        bytes_per_s=NUMBER,
        estimate_s=or_null(NUMBER),
        path=or_null(TEXT),
        copies=or_null(COUNT),
        promise=or_null(enum(Promise)),
        owner=TEXT | {"description": "who placed it; empty for a user of this host"},
    ),
    "Why": answer(
        key=KEY,
        image=TEXT | {"description": "as it was asked for"},
        image_id=or_null(IMAGE_ID),
        state=enum(OrderState),
        why=TEXT | {"description": "one line: what it waits for (the piece, who was asked, what each answered)"},
    ),
    "CampaignTerms": request(
        ("image",),
        image=TARGET,
        hosts=array(HOST_NAME) | {"minItems": 1, "maxItems": CAMPAIGN_HOSTS_MAX_COUNT},
        labels={
            "type": "object",
            "additionalProperties": LABEL,
            "propertyNames": {"pattern": rf"^[a-z0-9][a-z0-9._-]{{0,{LABEL_KEY_MAX_CHARS - 1}}}$"},
            "minProperties": 1,
            "maxProperties": LABELS_MAX_COUNT,
            "description": "instead of hosts: all hosts that have all of these",
        },
        deadline_s=DEADLINE,
        at_most_at_once={"type": "integer", "minimum": 1, "maximum": CAMPAIGN_HOSTS_MAX_COUNT},
        keep_s={"type": "number", "minimum": 0, "maximum": REMOTE_LEASE_MAX_S},
    ),
    "Campaign": answer(**_CAMPAIGN),
    "CampaignWithHosts": answer(**_CAMPAIGN, hosts=array(ref("CampaignHost"))),
    "CampaignHost": answer(
        host=TEXT | {"description": "as it was asked for"},
        name=TEXT | {"description": "as its certificate calls it"},
        node_id=or_null(NODE_ID),
        state=enum(dict.fromkeys([*Stage, *OrderState])),
        failure=or_null(enum(Failure)),
        percent=NUMBER | {"maximum": 100},
        promise=or_null(enum(Promise)),
        estimate_s=or_null(NUMBER),
        reason=TEXT,
    ),
    "Publication": request(
        ("ticket", "name"),
        ticket=TEXT | {"description": "for the descriptor that was handed over on the second socket"},
        name=TARGET,
        source_format={"type": "string", "pattern": f"^[a-z0-9]{{1,{SOURCE_FORMAT_MAX_CHARS}}}$"},
        verbatim=FLAG,
        private={"type": ["string", "null"], "description": "a group of this host: only its members get the image"},
        relatives=array(TARGET) | {"maxItems": CONTROL_RELATIVES_MAX_COUNT},
        digests=FLAG,
        source_sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        source_sha512={"type": "string", "pattern": "^[0-9a-f]{128}$"},
    ),
    "ProfileRequest": request(ranges=array(_RANGE) | {"minItems": 1, "maxItems": PROFILE_RANGES_MAX_COUNT}),
    "Profile": answer(image_id=IMAGE_ID, ranges=array(_RANGE), total_bytes=BYTES),
    "Plan": answer(
        image=TEXT,
        image_id=IMAGE_ID,
        virtual_size_bytes=BYTES,
        data_bytes=BYTES,
        bytes_from=ref("BytesFrom"),
        peers=counts_by("the distance of the nearest holder"),
        missing_bytes=BYTES,
        missing_pieces=COUNT,
        estimate_s=or_null(NUMBER),
        providers=COUNT,
    ),
    "Peer": answer(
        node_id=NODE_ID,
        addresses=array(TEXT),
        zone=TEXT,
        rack=TEXT,
        in_flight_bytes=BYTES,
        bytes_per_s=NUMBER,
        strikes=COUNT,
        images=COUNT,
    ),
    "Status": answer(
        version=TEXT,
        node_id=NODE_ID,
        zone=TEXT,
        rack=TEXT,
        founder=FLAG,
        may_change=FLAG,
        listen=array(TEXT),
        advertise=array(TEXT),
        images=COUNT,
        peers=COUNT,
        dht_nodes=COUNT,
        used_bytes=BYTES,
        quota_bytes=or_null(BYTES),
        free_bytes=BYTES,
        uploads=COUNT,
        degraded=or_null(
            TEXT | {"description": "why it writes nothing and takes no orders, though it serves what it has"}
        ),
        degraded_since=or_null(TIME),
        orders=counts_by("state"),
        started_at=TIME,
        certificate_expires_at=TIME,
        certificate_trouble=or_null(TEXT),
        sent_bytes=BYTES,
        received_bytes=BYTES,
        loop_lag_p99_ms=NUMBER,
        memory_bytes=BYTES,
        origin=or_null(
            answer(prefix=TEXT, state=enum(OriginState), said=TEXT, since=or_null(TIME), received_bytes=BYTES)
        ),
    ),
    "TokenRequest": request(
        uses={"type": "integer", "minimum": 1, "maximum": TOKEN_MAX_USES},
        ttl_s={"type": "number", "minimum": TOKEN_MIN_LIFETIME_S, "maximum": TOKEN_MAX_LIFETIME_S},
        campaigns=FLAG | {"description": "hosts that join with it may place orders on others"},
    ),
    "Token": answer(token=TEXT, uses=COUNT, ttl_s=NUMBER, campaigns=FLAG),
    "GrantRequest": request(
        ("role", "name", "request"),
        role={"type": "string", "const": "scheduler"},
        name=LABEL,
        request=TEXT | {"description": "a certificate request, PKCS #10 in DER, base64: SPEC.md, Joining"},
        lifetime_s={"type": "number", "minimum": SCHEDULER_MIN_LIFETIME_S, "maximum": SCHEDULER_MAX_LIFETIME_S},
    ),
    "Grant": answer(certificate=TEXT, authority=TEXT, id=NODE_ID, expires_at=TIME, api=array(TEXT)),
    "Trust": answer(
        serial=COUNT,
        issued_at=TIME,
        authorities=array(answer(sha256=HEX_32, certificate=TEXT, expires_at=TIME)),
        registrars=array(NODE_ID),
        publishers=array(answer(name=TEXT, key=HEX_32, names=array(TEXT), is_this_host=FLAG)),
        own_publisher=or_null(HEX_32),
        threshold=COUNT,
        schedulers=array(answer(name=TEXT, orders=COUNT, has_token=FLAG, expires_at=TIME)),
        revoked=array(answer(node_id=NODE_ID, until=TIME)),
        certified=or_null(answer(hosts=COUNT, dispatchers=array(_HOLDER), schedulers=array(_HOLDER), behind=COUNT)),
    ),
    "RevocationRequest": request(("who",), who={"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS}),
    "PublisherRequest": request(
        ("name", "key", "names"),
        name=LABEL,
        key=HEX_32,
        names={"type": "array", "minItems": 1, "maxItems": PUBLISHER_MAX_NAMES, "items": PATTERN},
    ),
    "SchedulerRequest": request(
        ("name",),
        name=LABEL,
        token_sha256=HEX_32 | {"description": "of a token: `ENS1.` and 32 random bytes, base64url"},
        orders={"type": "integer", "minimum": 1, "maximum": ORDERS_MAX_COUNT},
        lifetime_s={"type": "number", "minimum": SCHEDULER_MIN_LIFETIME_S, "maximum": SCHEDULER_MAX_LIFETIME_S},
    ),
    "RotationRequest": request(
        ("what",),
        what={"type": "string", "enum": ["ca", "publisher"]},
        finish=FLAG,
        force=FLAG | {"description": "of the CA"},
    ),
    "Configuration": answer(
        state=TEXT, file=or_null(TEXT), settings=array(answer(key=TEXT, value=ANYTHING, origin=TEXT))
    ),
    "Finding": answer(area=enum(Area), name=TEXT, verdict=enum(Verdict), said=TEXT, to_do=TEXT),
    "SettingChange": answer(key=TEXT, old=ANYTHING, new=ANYTHING, origin=TEXT),
    "Reloaded": answer(applied=array(ref("SettingChange")), restart=array(ref("SettingChange"))),
}
