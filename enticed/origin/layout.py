"""What stands where under an origin's prefix; normative in SPEC.md, "Origin"."""

from __future__ import annotations

from protocol.identifiers import Digest, ImageId

ROOT = "root"
STATEMENTS = "statements"
PAGES = "pages"
RAW = "raw"


def object_of(image: ImageId, part: str) -> str:
    return f"{image}/{part}"


def object_of_name(name: str) -> str:
    """By its hash: a name may hold what an object's, or a file's, may not."""
    return f"names/{Digest.of(name.encode())}"
