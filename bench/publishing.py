"""Publishing as `entice publish` does it, but from this process: what benchmarks need many images for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from enticed.cli.client import Daemon as Client
from enticed.cli.handoff import give
from simnet.testbed import Daemon


def publish(host: Daemon, image: Path, name: str) -> dict[str, Any]:
    """Publish a raw disk; what the daemon says of it. `enticed.cli.failures.Failed` where it refuses."""
    fd = os.open(image, os.O_RDONLY)
    try:
        ticket = give(str(host.socket), fd)
        return Client(str(host.socket)).work("/v1/images", {"name": name, "ticket": ticket}, lambda *_: None)
    finally:
        os.close(fd)
