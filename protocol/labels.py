"""Labels: what an operator says of a host when it joins, `key=value`, so that schedulers can choose hosts by it.

They stand in the host's certificate, like zone and rack: other hosts need not take its word for them every time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from protocol.codec import Between
from protocol.errors import MalformedError
from protocol.identifiers import NodeId
from protocol.limits import LABEL_KEY_MAX_CHARS, LABEL_MAX_CHARS, LABEL_SHARDS_COUNT, LABELS_MAX_CHARS, LABELS_MAX_COUNT

ZONE, RACK, HOST = "zone", "rack", "host"
"""Keys with a meaning: the first two have fields of their own, `host` is what people call the host."""
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VALUE = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, order=True)
class HostLabel:
    key: Annotated[str, Between(1, LABEL_KEY_MAX_CHARS)]
    value: Annotated[str, Between(1, LABEL_MAX_CHARS)]

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


HostLabels = Annotated[tuple[HostLabel, ...], Between(0, LABELS_MAX_COUNT)]


def shard_of(label: HostLabel, node: NodeId) -> int:
    """Which of the label's keys in the DHT a host announces itself under: what only one host has needs but one key."""
    return 0 if label.key == HOST else node[0] % LABEL_SHARDS_COUNT


def shards_of(label: HostLabel) -> int:
    return 1 if label.key == HOST else LABEL_SHARDS_COUNT


def parse_label_text(text: str) -> HostLabel:
    """`key=value`, as people write it; also of zone and rack. `MalformedError` for anything else."""
    key, equals, value = text.partition("=")
    if not equals:
        raise MalformedError("a label is written key=value")
    label = HostLabel(key, value)
    check_label(label)
    return label


def check_label(label: HostLabel) -> None:
    """`MalformedError` for a key or a value that no label has."""
    if not _KEY.fullmatch(label.key) or len(label.key) > LABEL_KEY_MAX_CHARS:
        raise MalformedError(
            f"a label's key is 1 to {LABEL_KEY_MAX_CHARS} lower-case letters, digits, '.', '_' and '-', "
            "and begins with a letter or digit"
        )
    if not _VALUE.fullmatch(label.value) or len(label.value) > LABEL_MAX_CHARS:
        raise MalformedError(f"a label's value is 1 to {LABEL_MAX_CHARS} letters, digits, '.', '_' and '-'")


def parse_labels(labels: Iterable[HostLabel]) -> tuple[HostLabel, ...]:
    """A host's labels in their one order, by key. `MalformedError` for a bad one, a key twice, or too much."""
    ordered = tuple(sorted(labels))
    for label in ordered:
        check_label(label)
        if label.key in (ZONE, RACK):
            raise MalformedError(f"{label.key} is no label of its own: a host has one already")
    if len({label.key for label in ordered}) != len(ordered):
        raise MalformedError("a label's key stands twice")
    if len(ordered) > LABELS_MAX_COUNT or sum(len(str(label)) for label in ordered) > LABELS_MAX_CHARS:
        raise MalformedError(f"a host has at most {LABELS_MAX_COUNT} labels and {LABELS_MAX_CHARS} characters of them")
    return ordered
