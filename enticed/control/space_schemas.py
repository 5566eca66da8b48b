"""The records of what images take and which stay, as JSON Schema: beside `space_routes.py`."""

from __future__ import annotations

from enticed.control.answers import schema_of
from enticed.control.schema_kinds import (
    BYTES,
    COUNT,
    FLAG,
    IMAGE_ID,
    TERM,
    TEXT,
    TIME,
    Schema,
    answer,
    array,
    enum,
    or_null,
    ref,
    request,
)
from enticed.core.eviction import Ground
from enticed.engine.retention.port import FloorView, RoomView
from enticed.store.limits import FREE_MAX_SIZE_BYTES
from protocol.limits import REPLICAS_MAX_COUNT

FREE_BYTES: Schema = {"type": "integer", "minimum": 1, "maximum": FREE_MAX_SIZE_BYTES, "description": "bytes"}

REPLICAS: Schema = {"type": "integer", "minimum": 0, "maximum": REPLICAS_MAX_COUNT}

SPACE_RECORDS: dict[str, Schema] = {
    "PinRequest": request(ttl_s=TERM | {"description": "how long it stays; null: until it is unpinned"}),
    "GcRequest": request(free_bytes=FREE_BYTES | {"description": "null: as much as the low mark wants"}),
    "FloorRequest": request(("replicas",), replicas=REPLICAS),
    "Floor": schema_of(
        FloorView, replicas=REPLICAS | {"description": "hosts that are to hold all of it; 0 where nobody says so"}
    ),
    "Reckoning": answer(
        dry_run=FLAG,
        wanted_bytes=BYTES,
        freed_bytes=BYTES | {"description": "by what has gone, or would go"},
        claimed_bytes=BYTES | {"description": "what images take, and were promised"},
        limit_bytes=BYTES | {"description": "the most that they could take"},
        unread_guests=COUNT | {"description": "files and directories in guest_directories that were not looked at"},
        images=array(ref("Judged")),
    ),
    "Room": schema_of(RoomView),
    "Judged": answer(
        image_id=IMAGE_ID,
        names=array(TEXT),
        size_bytes=BYTES,
        last_used_at=TIME,
        other_holders=or_null(COUNT) | {"description": "how many other hosts hold all of it; null: nobody answered"},
        replicas=COUNT | {"description": "how many other hosts are to hold it before it may go"},
        verdict={"type": "string", "enum": ["evict", "keep"]},
        ground=enum(Ground),
        why=TEXT | {"description": "one line for people"},
        gone=FLAG,
    ),
}
