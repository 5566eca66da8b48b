"""The transfer layer alone: from one peer over TLS into a verified file, beside nginx + curl, which verify nothing.

Both ends are processes on this machine and the source is in the page cache. The two are run in turns, so that a drift
of the machine falls on both. What whole daemons do is measured by pull_one_peer.py.

    python bench/transfer_layer.py
    python bench/transfer_layer.py --size-gib 1 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import uvloop
from blake3 import blake3

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import NginxCurl
from enticed.identity.host import load_identity
from enticed.landing import Landing
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Consignment, Event, PeerUp
from protocol.identifiers import NodeId
from protocol.limits import REQUEST_MAX_SIZE_BYTES
from protocol.manifest import Fragments, Root, decode_pages, encode_manifest
from protocol.messages import Busy, FragmentsRequest, Refusal, Refused, Request
from tests.clusters import make_cluster, state_dir

GIB = 1 << 30
FRAGMENT_SIZE_BYTES = 30 * 4096
IN_FLIGHT_COUNT = 8
TARGET_RATIO = 0.6


@dataclass(frozen=True)
class Outcome:
    seconds: float
    cpu_s: float
    resident_mib: float


def outcome_since(started_s: float, cpu_s: float) -> Outcome:
    seconds, cpu = time.perf_counter() - started_s, time.process_time() - cpu_s
    return Outcome(seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def make_source(folder: Path, size_bytes: int) -> None:
    """A file of random bytes, its root and its pages."""
    count = size_bytes // FRAGMENT_SIZE_BYTES
    digests = bytearray()
    with open(folder / "source", "wb") as source:
        for _ in range(count):
            source.write(fragment := os.urandom(FRAGMENT_SIZE_BYTES))
            digests += blake3(fragment).digest()
    offsets = np.arange(count, dtype=np.int64) * FRAGMENT_SIZE_BYTES
    rows = np.frombuffer(bytes(digests), np.uint8).reshape(count, 32)
    fragments = Fragments(offsets, np.full(count, FRAGMENT_SIZE_BYTES, np.int32), rows)
    root, pages = encode_manifest(count * FRAGMENT_SIZE_BYTES, fragments)
    (folder / "root").write_bytes(root.encoded)
    (folder / "pages").write_bytes(pages)


class OneFile:
    """A warehouse of one image, with a slot for everybody."""

    def __init__(self, folder: Path) -> None:
        self.root = Root.decode((folder / "root").read_bytes())
        self.fragments = decode_pages(self.root, (folder / "pages").read_bytes())
        self._fd = os.open(folder / "source", os.O_RDONLY)

    async def open(self, node: NodeId, request: Request) -> Consignment | Busy | Refused:
        if not isinstance(request, FragmentsRequest):
            return Refused(Refusal.NOT_HELD)
        first = int(self.root.first_fragments[request.piece]) + request.first
        wanted = self.fragments[first : first + request.count]
        sizes = wanted.sizes_bytes.astype(np.int64)
        return Consignment(self._fd, wanted.offsets_bytes, sizes, 0, lambda sent, error: None)

    def requests(self) -> list[tuple[FragmentsRequest, Fragments]]:
        """Everything, in requests of at most a MiB."""
        most, found = REQUEST_MAX_SIZE_BYTES // FRAGMENT_SIZE_BYTES, []
        for piece, count in enumerate(self.root.fragment_counts.tolist()):
            start = int(self.root.first_fragments[piece])
            for first in range(0, count, most):
                size = min(most, count - first)
                wanted = self.fragments[start + first : start + first + size]
                found.append((FragmentsRequest(self.root.image_id, piece, first, size), wanted))
        return found


async def serve(folder: Path, pipe: Connection) -> Outcome:
    identity, warehouse = load_identity(state_dir(folder, 0)), OneFile(folder)
    network = PeerNetwork(identity, listen=["127.0.0.1:0"], warehouse=warehouse, on_event=lambda event: None)
    await network.start()
    started_s, cpu_s = time.perf_counter(), time.process_time()
    pipe.send((identity.node, network.listening))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
    await stop.wait()
    await network.close()
    return outcome_since(started_s, cpu_s)


async def pull(folder: Path, node: NodeId, addresses: tuple[str, ...]) -> Outcome:
    warehouse, up = OneFile(folder), asyncio.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, PeerUp):
            up.set()

    identity = load_identity(state_dir(folder, 1))
    network = PeerNetwork(identity, listen=["127.0.0.1:0"], warehouse=warehouse, on_event=on_event)
    await network.start()
    requests = iter(warehouse.requests())
    fd = os.open(folder / "sink", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    started_s, cpu_s = time.perf_counter(), time.process_time()
    os.truncate(fd, warehouse.root.virtual_size_bytes)
    network.dial(node, addresses)
    await up.wait()

    async def ask() -> None:
        for request, fragments in requests:
            await network.fetch(node, request, Landing.of(fd, fragments))

    await asyncio.gather(*(ask() for _ in range(IN_FLIGHT_COUNT)))
    outcome = outcome_since(started_s, cpu_s)
    os.close(fd)
    await network.close()
    return outcome


def server_process(folder: Path, pipe: Connection) -> None:
    pipe.send(uvloop.run(serve(folder, pipe)))


def client_process(folder: Path, node: NodeId, addresses: tuple[str, ...], pipe: Connection) -> None:
    pipe.send(uvloop.run(pull(folder, node, addresses)))


def run_ours(folder: Path) -> tuple[Outcome, Outcome]:
    """The client's and the server's outcome."""
    spawn = multiprocessing.get_context("spawn")
    server_pipe, theirs = spawn.Pipe()
    server = spawn.Process(target=server_process, args=(folder, theirs), daemon=True)
    server.start()
    node, addresses = server_pipe.recv()
    client_pipe, theirs = spawn.Pipe()
    client = spawn.Process(target=client_process, args=(folder, node, addresses, theirs), daemon=True)
    client.start()
    pulled: Outcome = client_pipe.recv()
    server_pipe.send("stop")
    served: Outcome = server_pipe.recv()
    client.join()
    server.join()
    return pulled, served


def run_nginx(other: NginxCurl) -> tuple[Outcome, Outcome]:
    fetched = other.fetch("source", "sink")
    return (
        Outcome(fetched.seconds, fetched.client_cpu_s, fetched.client_resident_mib),
        Outcome(fetched.seconds, fetched.server_cpu_s, fetched.server_resident_mib),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="where the files go (removed at the end)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        folder = Path(name)
        make_cluster(folder, 2)
        make_source(folder, int(args.size_gib * GIB))
        size_bytes = (folder / "source").stat().st_size
        runs: dict[str, list[tuple[Outcome, Outcome]]] = {"enticed": [], "nginx + curl": []}
        other = NginxCurl(folder)
        for _ in range(args.rounds):
            for who, run in (("enticed", run_ours), ("nginx + curl", lambda _: run_nginx(other))):
                runs[who].append(run(folder))
                subprocess.run(["cmp", folder / "source", folder / "sink"], check=True)
                (folder / "sink").unlink()
                os.sync()
        rates = {}
        for who, outcomes in runs.items():
            rates[who] = statistics.median(size_bytes / 1e6 / client.seconds for client, _ in outcomes)
            cpu = statistics.median(client.cpu_s + server.cpu_s for client, server in outcomes) * GIB / size_bytes
            memory = max(one.resident_mib for pair in outcomes for one in pair)
            print(
                f"{who:14} {rates[who]:6.0f} MB/s  {cpu:5.2f} CPU s/GiB (both ends)  {memory:4.0f} MiB resident at most"
            )
        print(f"ratio {rates['enticed'] / rates['nginx + curl']:.2f} (wanted: {TARGET_RATIO} or more)")


if __name__ == "__main__":
    main()
