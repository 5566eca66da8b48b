"""From a prefix to an origin that is read, or a depot that is written."""

from __future__ import annotations

from pathlib import Path

from enticed.origin.folder import FolderDepot, FolderOrigin
from enticed.origin.port import Depot, Origin
from enticed.origin.prefix import Prefix
from protocol.errors import LocalError


def open_origin(prefix: Prefix, endpoint: str | None = None) -> Origin:
    """Nothing is asked of it yet. endpoint: of an S3 service that is not Amazon's. `LocalError` where S3 is not
    configured."""
    match prefix.scheme:
        case "s3":
            from enticed.origin.s3 import s3_origin

            return s3_origin(prefix.label, prefix.place, _with_slash(prefix.path), endpoint)
        case "file":
            return FolderOrigin(prefix.label, Path(prefix.path))
        case _:
            from enticed.origin.web import WebOrigin

            base = f"{prefix.label}/"
            return WebOrigin(prefix.label, lambda name: base + name)


def open_depot(prefix: Prefix, endpoint: str | None = None) -> Depot:
    """As `open_origin`; `LocalError` for a web server too, which is filled by exporting to its directory."""
    match prefix.scheme:
        case "s3":
            from enticed.origin.s3 import S3Depot

            return S3Depot(prefix.label, prefix.place, _with_slash(prefix.path), endpoint)
        case "file":
            return FolderDepot(prefix.path, Path(prefix.path))
        case _:
            raise LocalError("nothing is exported to a web server: export to the directory that it serves, or to s3://")


def _with_slash(path: str) -> str:
    return f"{path}/" if path else ""
