"""What it costs a publisher that hundreds of hosts dial it at once, ask for an image, and are kept or sent to others.

Each member is a real one, with a certificate of its own: it shakes hands, says hello, subscribes, and waits for a
have-map or a goodbye. All of them share this machine's processors with the daemon: its processor time counts, and not
how long it takes.

    python bench/crowd.py
    python bench/crowd.py --members 1000
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import processor_seconds
from bench.publishing import publish
from bench.rows import Row, benchmark
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, HostKeys, identity_files, load_identity, new_identity
from enticed.identity.tls import client_context
from enticed.transfer.addresses import HostPort
from enticed.transfer.limits import HANDSHAKES_PER_SOURCE_MAX_COUNT as AT_ONCE
from protocol.enrolment import request_certificate
from protocol.framing import FrameReader, encode_frame
from protocol.identifiers import ImageId
from protocol.messages import ALPN_CONTROL, CONTROL, Goodbye, HaveMap, Hello, Subscribe
from protocol.token import parse_token
from simnet.testbed import Testbed
from simnet.testbed.disks import MIB

KEPT = "kept"


def enrol(authority: Authority, state: Path) -> HostIdentity:
    """A member that has no daemon."""
    token, keys = parse_token(authority.issue_token("127.0.0.1:1")), HostKeys.generate()
    given = authority.enrol(token.token, token.secret, request_certificate(keys.node, keys.sealing_key), "", "", ())
    with new_identity(state) as draft:
        draft.publish(identity_files(keys, given.certificate, given.authority, given.trust, ()))
    return load_identity(state)


def ask(member: HostIdentity, address: HostPort, image: ImageId, stack: ExitStack) -> str:
    """Dial and subscribe; what comes of it. Who is kept stays until the stack closes it."""
    sock = socket.create_connection(address.sockaddr, timeout=60)
    secured = stack.enter_context(client_context(member, [ALPN_CONTROL]).wrap_socket(sock))
    for message in (Hello(1, 1, (), 1, (str(address),)), Subscribe(image)):
        secured.sendall(encode_frame(CONTROL.encode(message)))
    came = answer(secured)
    if came != KEPT:
        secured.close()
    return came


def answer(secured: ssl.SSLSocket) -> str:
    reader = FrameReader()
    while data := secured.recv(65536):
        reader.feed(data)
        for message in map(CONTROL.decode, reader.frames()):
            if isinstance(message, HaveMap):
                return KEPT
            if isinstance(message, Goodbye):
                return "sent to others" if "are named" in message.reason else "refused"
    return "refused"


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    with Testbed() as testbed, ExitStack() as stack:
        publisher = testbed.new_host()
        publisher.must("init", "--state", publisher.state, "--listen", publisher.address)
        authority = Authority.load(publisher.state)
        members = [enrol(authority, testbed.directory / f"member{number}") for number in range(arguments.members)]
        publisher.start()
        disk = testbed.directory / "image.raw"
        disk.write_bytes(np.random.default_rng(1).bytes(4 * MIB))
        image = ImageId.from_hex(publish(publisher, disk, "crowd:1")["image_id"])
        assert publisher.process is not None
        address, pool = HostPort.parse(publisher.address), stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        since = time.monotonic()
        with processor_seconds([publisher.process.pid]) as taken:
            answers = Counter(pool.map(lambda member: ask(member, address, image, stack), members))
        said = ", ".join(f"{count} {what}" for what, count in sorted(answers.items()))
        yield Row(
            "crowd",
            f"{len(members)} members dial a publisher, {AT_ONCE} at once: its processor time for each",
            f"{said}; the last was answered after {time.monotonic() - since:.1f} s",
            value=1000 * taken[0] / len(members),
            unit="ms",
        )


if __name__ == "__main__":
    sys.exit(benchmark(measure, ("--members", {"type": int, "default": 300})))
