"""What a process has open, each kind counted: so that what is too much has a name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

PEERS = "connections over TCP"
_LISTENING, _TCP_LISTENING = 1 << 16, "0A"
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


def open_descriptors(pid: int) -> Counter[str]:
    """By kind: paths as they are, but for images' ids; sockets by family and what they do; all else as /proc has it.
    One that is closed while this looks may be missing."""
    sockets = _sockets(pid)
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        kind, _, number = target.partition(":[")
        kinds[sockets.get(number[:-1], "sockets") if kind == "socket" else _IMAGE_ID.sub("IMAGE", kind)] += 1
    return kinds


def _sockets(pid: int) -> dict[str, str]:
    """Of each inode of the process' network, what it is."""
    kinds: dict[str, str] = {}
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            is_peer = name.startswith("tcp") and fields[3] != _TCP_LISTENING
            kinds[fields[9]] = PEERS if is_peer else f"{name} listening"
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        kinds[fields[6]] = "unix listening" if int(fields[3], 16) & _LISTENING else "unix connected"
    return kinds
