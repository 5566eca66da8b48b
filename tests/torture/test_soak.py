"""What a long run would call a leak: whatever is open beyond what was, by its name."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

from tests.torture.descriptors import PEERS, open_descriptors
from tests.torture.soak import Usage


def test_whatever_is_opened_is_seen_for_what_it_is(tmp_path: Path) -> None:
    before = open_descriptors(os.getpid())
    image = tmp_path / ("0f" * 32)
    with (
        image.open("wb"),
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as local,
    ):
        datagrams.bind(("127.0.0.1", 0))
        local.bind(str(tmp_path / "sock"))
        local.listen()
        opened = open_descriptors(os.getpid()) - before
    kinds = (f"{tmp_path}/IMAGE", "tcp listening", PEERS, "udp listening", "unix listening")
    assert opened == Counter(dict.fromkeys(kinds, 1))
    assert open_descriptors(os.getpid()) == before


def test_one_of_anything_more_than_before_is_too_much() -> None:
    fresh = Usage(1.0, 21.0, 0.0, Counter({"pipe": 4}))
    assert Usage(2.0, 20.0, 0.0, Counter({"pipe": 4})).beyond(fresh) == []
    more = Usage(2.0, 22.0, 7.0, Counter({"pipe": 5, PEERS: 1}))
    assert more.beyond(fresh) == [
        "pipe: 1 too many",
        f"{PEERS}: 1 too many",
        "22 tasks, and 21 before",
        "7 bytes are promised to nobody",
    ]
