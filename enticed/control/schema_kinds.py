"""Of what the records of the control API are made, as JSON Schema."""

from __future__ import annotations

from typing import Any

from enticed.limits import ORDER_KEY_MAX_CHARS, ORDER_TERM_MAX_S
from protocol.limits import LABEL_MAX_CHARS, NAME_MAX_CHARS, NAME_PATTERN_MAX_CHARS, REMOTE_KEY_MAX_CHARS

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
