"""What the records of the control API look like, as JSON Schema: beside `answers.py`, which writes them,
and `fields.py`, which reads them. A test holds real answers against these.

In answers nothing is optional: what is not known is null. Fields may be added; so programs pass over those they do not
know, and requests with them are refused.
"""

from __future__ import annotations

from enticed.control.answers import schema_of
from enticed.control.schema_kinds import (
    ANYTHING,
    BYTES,
    CAMPAIGN_KEY,
    COUNT,
    DEADLINE,
    FLAG,
    HOST_NAME,
    IMAGE_ID,
    LABEL,
    NUMBER,
    TARGET,
    TERM,
    TEXT,
    Schema,
    answer,
    array,
    enum,
    or_null,
    ref,
    request,
)
from enticed.control.space_schemas import SPACE_RECORDS
from enticed.control.trust_schemas import TRUST_RECORDS
from enticed.core.orders import Priority
from enticed.engine.campaigns.port import CampaignHostView, CampaignView
from enticed.engine.port import (
    BytesFrom,
    ImageView,
    OrderView,
    PeerView,
    PlanView,
    RecallReport,
    RecallView,
    StatusView,
    Why,
)
from enticed.limits import (
    CAMPAIGN_HOSTS_MAX_COUNT,
    CONTROL_RELATIVES_MAX_COUNT,
    PROFILE_RANGES_MAX_COUNT,
    REMOTE_LEASE_MAX_S,
    TOKEN_MAX_LIFETIME_S,
    TOKEN_MAX_USES,
    TOKEN_MIN_LIFETIME_S,
)
from enticed.operating.diagnosis import Area, Verdict
from enticed.problems import STATUS, TYPE_PREFIX, Kind
from protocol.limits import (
    IMAGE_MAX_SIZE_BYTES,
    LABEL_KEY_MAX_CHARS,
    LABELS_MAX_COUNT,
    RECALL_REASON_MAX_CHARS,
    SOURCE_FORMAT_MAX_CHARS,
)

_RANGE: Schema = {
    "type": "array",
    "prefixItems": [
        {"type": "integer", "minimum": 0, "maximum": IMAGE_MAX_SIZE_BYTES - 1, "description": "offset"},
        {"type": "integer", "minimum": 1, "maximum": IMAGE_MAX_SIZE_BYTES, "description": "size"},
    ],
    "minItems": 2,
    "maxItems": 2,
}

RECORDS: dict[str, Schema] = {
    "Problem": answer(
        type=enum(TYPE_PREFIX + kind for kind in Kind),
        title=TEXT,
        status={"type": "integer", "description": f"mostly one of {sorted(STATUS.values())}"},
        detail={"type": "string", "description": "one line for people"},
        kind=enum(Kind) | {"description": "for programs: never changes its meaning"},
    ),
    "Image": schema_of(ImageView),
    "Recall": schema_of(RecallView),
    "RecallRequest": request(
        (),
        reason={
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": RECALL_REASON_MAX_CHARS,
            "description": "one line, printable, for people; null: only to hear how it was recalled, and who held it",
        },
    ),
    "RecallReport": schema_of(RecallReport),
    "BytesFrom": schema_of(BytesFrom),
    "OrderTerms": request(
        ("image",),
        image=TARGET,
        deadline_s=DEADLINE,
        priority=enum(Priority),
        keep_s=TERM | {"description": "how long the image is kept once it is ready; null: until cancelled"},
        origin={"type": ["string", "null"], "enum": ["never", None]},
    ),
    "Order": schema_of(OrderView),
    "Why": schema_of(Why),
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
    "Campaign": schema_of(CampaignView, without="hosts", key=CAMPAIGN_KEY),
    "CampaignWithHosts": schema_of(CampaignView, key=CAMPAIGN_KEY),
    "CampaignHost": schema_of(CampaignHostView),
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
    "Plan": schema_of(PlanView),
    "Peer": schema_of(PeerView),
    "Status": schema_of(StatusView, may_change=FLAG),
    "TokenRequest": request(
        uses={"type": "integer", "minimum": 1, "maximum": TOKEN_MAX_USES},
        ttl_s={"type": "number", "minimum": TOKEN_MIN_LIFETIME_S, "maximum": TOKEN_MAX_LIFETIME_S},
        campaigns=FLAG | {"description": "hosts that join with it may place orders on others"},
    ),
    "Token": answer(token=TEXT, uses=COUNT, ttl_s=NUMBER, campaigns=FLAG),
    **TRUST_RECORDS,
    "Configuration": answer(
        state=TEXT, file=or_null(TEXT), settings=array(answer(key=TEXT, value=ANYTHING, origin=TEXT))
    ),
    "Finding": answer(area=enum(Area), name=TEXT, verdict=enum(Verdict), said=TEXT, to_do=TEXT),
    "SettingChange": answer(key=TEXT, old=ANYTHING, new=ANYTHING, origin=TEXT),
    "Reloaded": answer(applied=array(ref("SettingChange")), restart=array(ref("SettingChange"))),
} | SPACE_RECORDS
