"""libtorrent, seeding or fetching one file in a process of its own: the other side of pull_libtorrent.py.

    torrent.py make FILE TORRENT
    torrent.py seed TORRENT DIRECTORY          prints its port, serves until its standard input ends
    torrent.py fetch TORRENT DIRECTORY PORT    ends when the file is whole

Tuned as its manual proposes for fast links: many requests and large buffers, no limits, no encryption, TCP only. It
verifies every piece (SHA-1, or SHA-256 for version 2), as it always does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import libtorrent

PIECE_SIZE_BYTES = 2 << 20
SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,  # pe_disabled
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "max_out_request_queue": 2000,
    "max_allowed_in_request_queue": 4000,
    "send_buffer_watermark": 16 << 20,
    "send_buffer_low_watermark": 1 << 20,
    "send_buffer_watermark_factor": 150,
    "recv_socket_buffer_size": 4 << 20,
    "send_socket_buffer_size": 4 << 20,
    "max_queued_disk_bytes": 64 << 20,
    "aio_threads": 4,
    "hashing_threads": 2,
    "alert_mask": libtorrent.alert.category_t.status_notification | libtorrent.alert.category_t.error_notification,
}


def make(file: Path, torrent: Path) -> None:
    files = libtorrent.list_files(str(file))
    created = libtorrent.create_torrent(files, PIECE_SIZE_BYTES, libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(created, str(file.parent))
    torrent.write_bytes(libtorrent.bencode(created.generate()))


def add(torrent: Path, directory: Path, *, whole: bool) -> tuple[Any, Any]:
    session = libtorrent.session(SETTINGS)
    wanted = libtorrent.add_torrent_params()
    wanted.ti = libtorrent.torrent_info(str(torrent))
    wanted.save_path = str(directory)
    if whole:
        wanted.flags |= libtorrent.torrent_flags.seed_mode
    return session, session.add_torrent(wanted)


def seed(torrent: Path, directory: Path) -> None:
    session, _ = add(torrent, directory, whole=True)
    print(session.listen_port(), flush=True)
    sys.stdin.read()


def fetch(torrent: Path, directory: Path, port: int) -> None:
    session, handle = add(torrent, directory, whole=False)
    handle.connect_peer(("127.0.0.1", port))
    while not handle.status().is_seeding:
        session.wait_for_alert(100)
        session.pop_alerts()


def main() -> None:
    what, torrent, directory, *rest = sys.argv[1:]
    if what == "make":
        make(Path(torrent), Path(directory))
    elif what == "seed":
        seed(Path(torrent), Path(directory))
    else:
        fetch(Path(torrent), Path(directory), int(rest[0]))


if __name__ == "__main__":
    main()
