"""What records about trust look like: who may do what, granted, taken back, cosigned."""

from __future__ import annotations

from enticed.control.answers import schema_of
from enticed.control.schema_kinds import (
    BYTES,
    COUNT,
    FLAG,
    HEX_32,
    IMAGE_ID,
    LABEL,
    NODE_ID,
    PATTERN,
    TARGET,
    TEXT,
    TIME,
    Schema,
    answer,
    array,
    or_null,
    request,
)
from enticed.engine.port import Grant
from enticed.engine.trust.port import CertifiedHostView
from enticed.identity.limits import QUOTA_MAX_BYTES
from enticed.limits import ORDERS_MAX_COUNT, SCHEDULER_MAX_LIFETIME_S, SCHEDULER_MIN_LIFETIME_S
from protocol.limits import NAME_MAX_CHARS, PUBLISHER_MAX_NAMES, STATEMENT_MAX_SIGNATURES

_HOLDER = answer(node_id=NODE_ID, name=TEXT, expires_at=TIME)

TRUST_RECORDS: dict[str, Schema] = {
    "GrantRequest": request(
        ("role", "name", "request"),
        role={"type": "string", "const": "scheduler"},
        name=LABEL,
        request=TEXT | {"description": "a certificate request, PKCS #10 in DER, base64: SPEC.md, Joining"},
        lifetime_s={"type": "number", "minimum": SCHEDULER_MIN_LIFETIME_S, "maximum": SCHEDULER_MAX_LIFETIME_S},
    ),
    "Grant": schema_of(Grant),
    "Trust": answer(
        serial=COUNT,
        issued_at=TIME,
        authorities=array(answer(sha256=HEX_32, certificate=TEXT, expires_at=TIME)),
        registrars=array(NODE_ID),
        publishers=array(answer(name=TEXT, key=HEX_32, names=array(TEXT), is_this_host=FLAG)),
        own_publisher=or_null(HEX_32),
        threshold=COUNT,
        schedulers=array(answer(name=TEXT, orders=COUNT, bytes=or_null(BYTES), has_token=FLAG, expires_at=TIME)),
        revoked=array(answer(node_id=NODE_ID, until=TIME)),
        certified=or_null(answer(hosts=COUNT, dispatchers=array(_HOLDER), schedulers=array(_HOLDER), behind=COUNT)),
    ),
    "CertifiedHost": schema_of(CertifiedHostView),
    "RevocationRequest": request(("who",), who={"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS}),
    "PublisherRequest": request(
        ("name", "key", "names"),
        name=LABEL,
        key=HEX_32,
        names={"type": "array", "minItems": 1, "maxItems": PUBLISHER_MAX_NAMES, "items": PATTERN},
    ),
    "ThresholdRequest": request(
        ("threshold",), threshold={"type": "integer", "minimum": 1, "maximum": STATEMENT_MAX_SIGNATURES}
    ),
    "SigningRequest": request(
        ("image",),
        image=TARGET,
        expect=IMAGE_ID | {"description": "what the name has to mean, or nothing is signed"},
        look=FLAG | {"description": "sign nothing, only say what would be signed"},
    ),
    "Signing": answer(
        image_id=IMAGE_ID,
        virtual_size_bytes=BYTES,
        data_bytes=BYTES,
        source_format=TEXT,
        digests=array(TEXT),
        issued_at=TIME,
        signed_by=array(TEXT) | {"description": "the publishers who have signed the statement"},
        needed=COUNT | {"description": "how many must have"},
        names=array(answer(name=TEXT, signed_by=array(TEXT))),
        told=COUNT | {"description": "how many other hosts with the image have the signature now"},
    ),
    "SchedulerRequest": request(
        ("name",),
        name=LABEL,
        token_sha256=HEX_32 | {"description": "of a token: `ENS1.` and 32 random bytes, base64url"},
        orders={"type": "integer", "minimum": 1, "maximum": ORDERS_MAX_COUNT},
        bytes={
            "type": "integer",
            "minimum": 0,
            "maximum": QUOTA_MAX_BYTES,
            "description": "of data on one host; 0: any",
        },
        lifetime_s={"type": "number", "minimum": SCHEDULER_MIN_LIFETIME_S, "maximum": SCHEDULER_MAX_LIFETIME_S},
    ),
    "RotationRequest": request(
        ("what",),
        what={"type": "string", "enum": ["ca", "publisher"]},
        finish=FLAG,
        force=FLAG | {"description": "of the CA"},
    ),
}
