"""What a person writes for an origin: `https://…`, `http://…`, `s3://bucket/prefix` or `file:///directory`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from enticed.limits import ORIGIN_URL_MAX_CHARS
from protocol.errors import LocalError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/-]*")


@dataclass(frozen=True, slots=True)
class Prefix:
    """Where objects stand. label: the whole, for people, without a slash at the end; it holds no secret.

    place: a bucket, a host with its port, or empty for a file. path: within it, no slash at either end (a file's:
    absolute).
    """

    scheme: str
    place: str
    path: str

    @property
    def label(self) -> str:
        return f"{self.scheme}://{self.place}" + (f"/{self.path}" if self.path and self.place else self.path)


def parse_prefix(text: str) -> Prefix:
    """`LocalError`, in one line that does not repeat a secret, for what can be none."""
    if len(text) > ORIGIN_URL_MAX_CHARS or not text.isprintable() or not text.isascii() or " " in text:
        raise LocalError(f"an origin is at most {ORIGIN_URL_MAX_CHARS} printable ASCII characters without spaces")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise LocalError(f"an origin is like https://host/prefix or s3://bucket/prefix: {error}") from error
    if "@" in parts.netloc:
        raise LocalError("an origin's address holds no user or password: those of S3 are found in AWS's usual ways")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise LocalError("an origin's address has no ? and no #: it is a prefix")
    path = unquote(parts.path)
    if ".." in path.split("/"):
        raise LocalError("an origin's address has no .. in it")
    match parts.scheme:
        case "http" | "https" if parts.hostname:
            return Prefix(parts.scheme, parts.netloc, parts.path.strip("/"))
        case "s3" if _BUCKET.fullmatch(parts.netloc) and _PREFIX.fullmatch(path):
            return Prefix("s3", parts.netloc, path.strip("/"))
        case "file" if parts.netloc in ("", "localhost") and path.startswith("/"):
            return Prefix("file", "", path.rstrip("/") or "/")
    raise LocalError("an origin is like https://host/prefix, s3://bucket/prefix or file:///directory")
