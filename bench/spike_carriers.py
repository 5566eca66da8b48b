"""The two ways of carrying bulk bytes that spike_bulk_transport.py compares.

Threads: a thread for each connection on both sides, blocking, a few requests written ahead; it receives, hashes and
writes a fragment while its bytes are in the processor's cache. Loop: TLS of asyncio or uvloop, a BufferedProtocol that
receives into reused buffers, a thread pool that hashes and writes.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import cast

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

Ranges = Iterator[tuple[int, int]]
HEADER = struct.Struct("<QI")  # offset, length: of a request, and again in front of the response's bytes
FRAGMENT_BYTES = 30 * 4096  # the mean fragment, in whole blocks
REQUEST_MAX_BYTES = 64 * FRAGMENT_BYTES


@dataclass(frozen=True)
class Case:
    """One way of carrying the bytes."""

    name: str
    kind: str = "threads"  # threads | uvloop | asyncio | nginx | idle
    connections: int = 1
    depth: int = 4  # requests written ahead on a connection
    fragments: int = 8  # fragments in a request: 8 is just below 1 MiB
    sink: str = "file"  # file | verify (no write) | memory (no hash either)
    per_fragment: bool = True  # receive, hash and write each fragment; else the whole response
    send_bytes: int = REQUEST_MAX_BYTES  # the server reads and sends this much at a time
    writer_thread: bool = False  # hash and write in a second thread, two buffers
    nice: int = 0  # of the bulk threads, not of the loop's
    switch_interval_s: float = 0.005
    rcvbuf_bytes: int = 0  # 0: the kernel tunes it
    timeout_s: float | None = None
    ciphersuite: str = ""  # through OPENSSL_CONF: Python < 3.15 has no call for those of TLS 1.3
    direct: bool = False  # O_DIRECT
    finish: str = ""  # fdatasync | dontneed (fdatasync, then posix_fadvise)


def make_certificate(folder: Path) -> None:
    """Write cert.pem and key.pem: both ends show this one certificate and trust nothing else."""
    key, now = Ed25519PrivateKey.generate(), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    (folder / "cert.pem").write_bytes(builder.sign(key, None).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def tls_context(folder: Path, server: bool, alpn: str = "bulk") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["bulk", "control"] if server else [alpn])
    if server:
        context.num_tickets = 0  # sessions are long: no resumption, and no bytes that nobody reads
    return context


def ranges(case: Case, size_bytes: int) -> Ranges:
    step = case.fragments * FRAGMENT_BYTES
    return iter([(at, min(step, size_bytes - at)) for at in range(0, size_bytes, step)])


class Sink:
    """Verify fragments against their digests and write them; may be called from several threads."""

    def __init__(self, case: Case, folder: Path, size_bytes: int) -> None:
        self.case, self.digests = case, (folder / "digests").read_bytes()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | (os.O_DIRECT if case.direct else 0)
        self.fd = os.open(folder / "sink", flags, 0o600)
        os.truncate(self.fd, size_bytes)

    def put(self, view: memoryview, offset: int) -> None:
        for at in range(0, len(view) if self.case.sink != "memory" else 0, FRAGMENT_BYTES):
            index = (offset + at) // FRAGMENT_BYTES
            if blake3(view[at : at + FRAGMENT_BYTES]).digest() != self.digests[32 * index : 32 * index + 32]:
                raise ValueError(f"corrupt fragment {index}")
        if self.case.sink == "file" and os.pwrite(self.fd, view, offset) != len(view):
            raise OSError("short write")

    def finish(self) -> None:
        if self.case.finish:
            os.fdatasync(self.fd)
        if self.case.finish == "dontneed":
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(self.fd)


# --- threads: one per connection, blocking ----------------------------------------------------------------------------


def fill(sock: ssl.SSLSocket, view: memoryview) -> bool:
    """Fill the view, a TLS record at a time; False at the end of the stream."""
    got = 0
    while got < len(view):
        if (n := sock.recv_into(view[got:])) == 0:
            return False
        got += n
    return True


def become_bulk(case: Case) -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), case.nice)  # on Linux of this thread alone


def serve_connection(raw: socket.socket, context: ssl.SSLContext, case: Case, fd: int) -> None:
    become_bulk(case)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = memoryview(bytearray(HEADER.size))
    buffer = memoryview(bytearray(case.send_bytes))
    with context.wrap_socket(raw, server_side=True) as sock:
        while fill(sock, request):
            at, length = HEADER.unpack(request)
            sock.sendall(request)
            while length:
                n = os.preadv(fd, [buffer[: min(length, case.send_bytes)]], at)
                sock.sendall(buffer[:n])
                at, length = at + n, length - n


def accept_forever(listener: socket.socket, context: ssl.SSLContext, case: Case, fd: int) -> None:
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=serve_connection, args=(raw, context, case, fd), daemon=True).start()


def receive(sock: ssl.SSLSocket, case: Case, work: Ranges, sink: Sink, pool: ThreadPoolExecutor) -> None:
    """Requests written ahead, responses in order, all in this thread (the pool is for `writer_thread` alone)."""
    unit_bytes = FRAGMENT_BYTES * (1 if case.per_fragment else case.fragments)
    header = memoryview(bytearray(HEADER.size))
    buffers = [memoryview(mmap(-1, unit_bytes)) for _ in range(2)]  # aligned, as O_DIRECT wants them
    writing: list[Future[None]] = []
    ahead = [HEADER.pack(*following) for _, following in zip(range(case.depth), work, strict=False)]
    sock.sendall(b"".join(ahead))
    outstanding = len(ahead)
    while outstanding and fill(sock, header):
        offset, length = HEADER.unpack(header)
        for at in range(0, length, unit_bytes):
            view = buffers[0][: min(unit_bytes, length - at)]
            if not fill(sock, view):
                raise EOFError("closed in the middle")
            if not case.writer_thread:
                sink.put(view, offset + at)
                continue
            if writing:
                writing.pop().result()
            writing.append(pool.submit(sink.put, view, offset + at))
            buffers.reverse()
        outstanding -= 1
        if (following := next(work, None)) is not None:
            sock.sendall(HEADER.pack(*following))
            outstanding += 1
    for future in writing:
        future.result()


async def pull_threads(case: Case, port: int, context: ssl.SSLContext, sink: Sink, work: Ranges) -> None:
    def connection() -> None:
        become_bulk(case)
        raw = socket.socket()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if case.rcvbuf_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, case.rcvbuf_bytes)
        raw.connect(("127.0.0.1", port))
        with context.wrap_socket(raw, server_hostname="localhost") as sock, ThreadPoolExecutor(1) as writer:
            sock.settimeout(case.timeout_s)
            receive(sock, case, work, sink, writer)

    with ThreadPoolExecutor(case.connections) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, connection) for _ in range(case.connections)))


# --- the event loop's own TLS -----------------------------------------------------------------------------------------


class LoopServer(asyncio.Protocol):
    """Reads in a thread, writes from the loop at the pace that the transport allows."""

    def __init__(self, fd: int) -> None:
        self.fd, self.rest, self.writable = fd, b"", asyncio.Event()
        self.requests: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.writable.set()
        self.pause_writing, self.resume_writing = self.writable.clear, self.writable.set  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.task = asyncio.create_task(self.answer(cast(asyncio.Transport, transport)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while len(self.rest) >= HEADER.size:
            self.requests.put_nowait(HEADER.unpack_from(self.rest))
            self.rest = self.rest[HEADER.size :]

    async def answer(self, transport: asyncio.Transport) -> None:
        while True:
            offset, length = await self.requests.get()
            data = await asyncio.to_thread(os.pread, self.fd, length, offset)  # fresh: the transport may keep it
            transport.writelines([HEADER.pack(offset, length), data])
            await self.writable.wait()


class LoopClient(asyncio.BufferedProtocol):
    """Receives into reused buffers; asks only when a buffer is free for the answer; verifies and writes in a pool."""

    def __init__(self, case: Case, work: Ranges, sink: Sink, pool: ThreadPoolExecutor) -> None:
        self.work, self.sink, self.pool = work, sink, pool
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.free = [memoryview(bytearray(case.fragments * FRAGMENT_BYTES)) for _ in range(case.depth + 1)]
        self.header = memoryview(bytearray(HEADER.size))
        self.body: memoryview | None = None
        self.got = self.outstanding = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        for _ in self.free:
            self.ask()

    def ask(self) -> None:
        if (following := next(self.work, None)) is not None:
            self.outstanding += 1
            self.transport.write(HEADER.pack(*following))
        elif self.outstanding == 0 and not self.done.done():
            self.done.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return (self.header if self.body is None else self.body)[self.got :]

    def buffer_updated(self, nbytes: int) -> None:
        self.got += nbytes
        if self.body is None and self.got == HEADER.size:
            (self.offset, length), self.got = HEADER.unpack(self.header), 0
            self.buffer = self.free.pop()
            self.body = self.buffer[:length]
        elif self.body is not None and self.got == len(self.body):
            job, buffer = self.pool.submit(self.sink.put, self.body, self.offset), self.buffer
            job.add_done_callback(lambda job: self.loop.call_soon_threadsafe(self.landed, job, buffer))
            self.body, self.got = None, 0

    def landed(self, job: Future[None], buffer: memoryview) -> None:
        if (error := job.exception()) is not None and not self.done.done():
            self.done.set_exception(error)
        self.free.append(buffer)
        self.outstanding -= 1
        self.ask()


async def pull_loop(case: Case, port: int, context: ssl.SSLContext, sink: Sink, work: Ranges) -> None:
    with ThreadPoolExecutor(2) as pool:
        opened = [
            await asyncio.get_running_loop().create_connection(
                lambda: LoopClient(case, work, sink, pool), "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            for _ in range(case.connections)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in opened))
        for transport, _ in opened:
            transport.close()
