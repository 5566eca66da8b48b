"""How bulk bytes travel between two daemons: the event loop's TLS, or blocking TLS sockets in threads?

Two processes on loopback, TLS 1.3 with Ed25519 certificates on both sides. The server has a file of random bytes in the
page cache; the client asks for ranges, checks the BLAKE3 of every fragment and writes a sparse file. Both run an
event loop with a light tick beside the transfer, whose lag is measured. nginx + curl is the reference.

    python bench/spike_bulk_transport.py                                     # every table
    python bench/spike_bulk_transport.py --group main --size-gib 2 --rounds 5
    python bench/spike_bulk_transport.py --check                             # only: does a loop adopt an SSLSocket?
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from blake3 import blake3

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.spike_carriers import (
    FRAGMENT_BYTES,
    Case,
    LoopServer,
    Sink,
    accept_forever,
    fill,
    make_certificate,
    pull_loop,
    pull_threads,
    ranges,
    tls_context,
)

TICK_S = 0.005


@dataclass(frozen=True)
class Outcome:
    seconds: float
    cpu_s: float
    lag_ms: list[float]


async def tick(lag_ms: list[float]) -> None:
    """Stand for the daemon's other work: wake often, do a little, note how late the wake-up was."""
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        lag_ms.append((time.perf_counter() - due) * 1e3)
        sum(range(2000))


async def serve(case: Case, folder: Path, conn: Connection) -> None:
    """Say the port, serve until the other end of the pipe speaks or closes."""
    loop, stop, context = asyncio.get_running_loop(), asyncio.Event(), tls_context(folder, server=True)
    fd, listener = os.open(folder / "source", os.O_RDONLY), socket.create_server(("127.0.0.1", 0))
    if case.kind == "threads":
        threading.Thread(target=accept_forever, args=(listener, context, case, fd), daemon=True).start()
    else:
        await loop.create_server(lambda: LoopServer(fd), sock=listener, ssl=context)
    conn.send(listener.getsockname()[1])
    loop.add_reader(conn.fileno(), stop.set)
    await stop.wait()


async def pull(case: Case, folder: Path, port: int) -> None:
    context, size_bytes = tls_context(folder, server=False), (folder / "source").stat().st_size
    sink, carry = Sink(case, folder, size_bytes), pull_threads if case.kind == "threads" else pull_loop
    await (asyncio.sleep(2) if case.kind == "idle" else carry(case, port, context, sink, ranges(case, size_bytes)))
    sink.finish()


def child(case: Case, folder: Path, port: int, conn: Connection) -> None:
    """Entry of both processes; port 0 makes it the server. Ends by sending an Outcome."""

    async def measured() -> None:
        lag_ms: list[float] = []
        ticking, started, cpu = asyncio.create_task(tick(lag_ms)), time.perf_counter(), time.process_time()
        await (pull(case, folder, port) if port else serve(case, folder, conn))
        conn.send(Outcome(time.perf_counter() - started, time.process_time() - cpu, lag_ms))
        ticking.cancel()

    sys.setswitchinterval(case.switch_interval_s)
    (asyncio.run if case.kind == "asyncio" else uvloop.run)(measured())
    os._exit(0)  # ends a thread blocked in accept


def run_pair(case: Case, folder: Path) -> tuple[Outcome, Outcome]:
    """Client's and server's outcome."""
    (folder / "openssl.cnf").write_text(
        f"openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nCiphersuites={case.ciphersuite}\n"
    )
    os.environ["OPENSSL_CONF"] = str(folder / "openssl.cnf") if case.ciphersuite else ""
    spawn, port, ends = multiprocessing.get_context("spawn"), 0, []
    for _ in ("server", "client"):
        mine, theirs = spawn.Pipe()
        spawn.Process(target=child, args=(case, folder, port, theirs), daemon=True).start()
        theirs.close()
        ends.append(mine)
        port = port or mine.recv()
    client = ends[1].recv()
    ends[0].send("stop")
    return client, ends[0].recv()


NGINX = """daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/error.log; events {{}}
http {{ access_log off; sendfile on; client_body_temp_path {d}; proxy_temp_path {d}; fastcgi_temp_path {d};
  uwsgi_temp_path {d}; scgi_temp_path {d}; server {{ listen 127.0.0.1:{p} ssl; root {d}; ssl_protocols TLSv1.3;
  ssl_verify_client on; ssl_client_certificate {d}/cert.pem; ssl_certificate {d}/cert.pem;
    ssl_certificate_key {d}/key.pem; }} }}
"""


def run_nginx(case: Case, folder: Path) -> tuple[Outcome, Outcome]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "nginx.conf").write_text(NGINX.format(d=folder, p=port))
    nginx = subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"])
    while socket.socket().connect_ex(("127.0.0.1", port)) and nginx.poll() is None:
        time.sleep(0.01)  # nginx in the foreground has no other way to say that it listens
    tls = ["--tlsv1.3", "--cacert", f"{folder}/cert.pem", "--cert", f"{folder}/cert.pem", "--key", f"{folder}/key.pem"]
    started, target = time.perf_counter(), "/dev/null" if case.sink == "memory" else f"{folder}/sink"
    curl = subprocess.Popen(["curl", "-4sSf", *tls, "-o", target, f"https://localhost:{port}/source"])
    _, status, client = os.wait4(curl.pid, 0)
    seconds = time.perf_counter() - started
    nginx.terminate()
    _, _, server = os.wait4(nginx.pid, 0)
    if status:
        raise RuntimeError("curl failed")
    return Outcome(seconds, client.ru_utime + client.ru_stime, []), Outcome(0, server.ru_utime + server.ru_stime, [])


async def adopt(folder: Path) -> str:
    """Shake hands in a thread, then let the loop own the non-blocking SSLSocket; show the trap of pending()."""
    loop, message, listener = asyncio.get_running_loop(), os.urandom(1 << 24), socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        with tls_context(folder, server=True).wrap_socket(listener.accept()[0], server_side=True) as sock:
            sock.sendall(message[:16000])
            whole = memoryview(bytearray(len(message)))
            if sock.recv(1) and fill(sock, whole):
                sock.sendall(whole)

    def dial() -> ssl.SSLSocket:
        context = tls_context(folder, server=False, alpn="control")
        raw = socket.create_connection(listener.getsockname())
        tls: ssl.SSLSocket = context.wrap_socket(raw, server_hostname="localhost")
        return tls

    echoed = loop.run_in_executor(None, echo)
    with await loop.run_in_executor(None, dial) as sock:
        sock.setblocking(False)
        readable, writable, got, sent, want_writes = asyncio.Event(), asyncio.Event(), bytearray(), 0, 0
        loop.add_reader(sock, readable.set)
        await readable.wait()
        loop.remove_reader(sock)
        got += sock.recv(100)  # part of a record: the rest is inside OpenSSL, where no selector sees it
        readable, pending = asyncio.Event(), sock.pending()
        loop.add_reader(sock, readable.set)
        silent = not (await asyncio.wait([asyncio.create_task(readable.wait())], timeout=0.2))[0]
        got += sock.recv(pending)
        loop.add_writer(sock, writable.set)
        while sent < 1 + len(message):
            try:
                sent += sock.send(message[:1] if sent == 0 else memoryview(message)[sent - 1 :])
            except ssl.SSLWantWriteError:  # the next try must offer the same bytes, or more
                want_writes += 1
                writable.clear()
                await writable.wait()
        loop.remove_writer(sock)
        while len(got) < 16000 + len(message):
            try:
                got += sock.recv(1 << 16)
            except ssl.SSLWantReadError:
                readable.clear()
                await readable.wait()
        loop.remove_reader(sock)
        await echoed
        return (
            f"{type(loop).__module__}: {sock.selected_alpn_protocol()} adopted, bytes right: {got[16000:] == message}, "
            f"pending {pending} and selector silent: {silent}, want-writes {want_writes}"
        )


def shut_down(folder: Path) -> str:
    """A thread blocked in recv ends when another shuts the socket below the TLS layer down."""
    listener = socket.create_server(("127.0.0.1", 0))
    with ThreadPoolExecutor(2) as pool:
        accepted = pool.submit(
            lambda: tls_context(folder, server=True).wrap_socket(listener.accept()[0], server_side=True)
        )
        raw = socket.create_connection(listener.getsockname())
        with tls_context(folder, server=False).wrap_socket(raw, server_hostname="localhost") as sock:
            server = accepted.result()
            blocked = pool.submit(sock.recv, 1)
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # SSLSocket.shutdown would take the TLS layer off first
            with server:
                return f"recv of a thread whose socket another one shut down: {blocked.result(timeout=5)!r}"


B1, B2 = Case("B 1 connection"), Case("B 2 connections", connections=2, depth=2)
CASES: dict[str, list[Case]] = {
    "main": [
        Case("idle", kind="idle"),
        Case("A uvloop", kind="uvloop"),
        Case("A asyncio", kind="asyncio"),
        B1,
        B2,
        replace(B1, name="B 1, nice 10", nice=10),
        replace(B2, name="B 2, nice 10", nice=10),
        Case("nginx + curl", kind="nginx"),
    ],
    "memory": [
        Case("A uvloop", kind="uvloop", sink="memory"),
        *(replace(c, sink="memory") for c in (B1, B2)),
        Case("nginx + curl", kind="nginx", sink="memory"),
    ],
    "shape": [
        B1,
        replace(B1, name="whole responses", per_fragment=False),
        replace(B1, name="writer thread", writer_thread=True),
        replace(B1, name="server sends 128 KiB", send_bytes=1 << 17),
        replace(B1, name="server sends 256 KiB", send_bytes=1 << 18),
    ],
    "options": [
        B1,
        replace(B1, name="settimeout(30)", timeout_s=30.0),
        replace(B1, name="O_DIRECT", direct=True, per_fragment=False),
        *(replace(B1, name=f, finish=f) for f in ("fdatasync", "dontneed")),
    ],
    "depth": [replace(c, name=f"{c.name}, depth {n}", depth=n, sink="verify") for c in (B1, B2) for n in (1, 2, 4, 8)],
    "request": [replace(B1, name=f"{n * 120} KiB", fragments=n, sink="verify") for n in (2, 8, 34)],
    "switch": [
        replace(c, name=f"{c.name}, {t * 1e3:g} ms", switch_interval_s=t, sink="verify")
        for c in (B1, B2)
        for t in (5e-3, 1e-3, 1e-4)
    ],
    "rcvbuf": [replace(B1, name=f"{n} KiB", rcvbuf_bytes=n << 10, sink="verify") for n in (0, 256, 1024, 4096)],
    "cipher": [
        replace(B1, name=n, ciphersuite=n, sink="verify")
        for n in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
    ],
}


def measure(cases: list[Case], rounds: int, folder: Path, size_bytes: int) -> None:
    results: dict[Case, list[tuple[Outcome, Outcome]]] = {case: [] for case in cases}
    for _ in range(rounds):  # A B A B: a drift of the machine falls on all of them
        for case in cases:
            results[case].append((run_nginx if case.kind == "nginx" else run_pair)(case, folder))
            (folder / "sink").unlink(missing_ok=True)
            os.sync()
    for case, pairs in results.items():
        rate = statistics.median(size_bytes / 1e6 / client.seconds for client, _ in pairs) * (case.kind != "idle")
        cpu = [statistics.median(pair[end].cpu_s for pair in pairs) * (1 << 30) / size_bytes for end in (0, 1)]
        lags = [sorted(lag for pair in pairs for lag in pair[end].lag_ms) or [0.0] for end in (0, 1)]
        p99 = "".join(f"{lag[len(lag) * 99 // 100]:8.1f}" for lag in lags)
        print(
            f"{case.name:30}{rate:8.0f}{cpu[0]:8.2f}{cpu[1]:8.2f}{sum(cpu):8.2f}{p99}{max(map(max, lags)):8.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default=",".join(CASES), help="comma-separated: " + ", ".join(CASES))
    parser.add_argument("--size-gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="no measurement")
    parser.add_argument("--directory", help="of the temporary files")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        folder = Path(name)
        make_certificate(folder)
        print(uvloop.run(adopt(folder)), asyncio.run(adopt(folder)), shut_down(folder), sep="\n")
        if args.check:
            return
        count = int(args.size_gib * (1 << 30)) // FRAGMENT_BYTES
        with open(folder / "source", "wb") as source, open(folder / "digests", "wb") as digests:
            for _ in range(count):
                source.write(fragment := os.urandom(FRAGMENT_BYTES))
                digests.write(blake3(fragment).digest())
        print(f"{ssl.OPENSSL_VERSION}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, {args.size_gib} GiB")
        print(f"{'':30}    MB/s   CPU s/GiB: client, server, both   lag ms: p99 of both, max")
        for group in args.group.split(","):
            print(f"-- {group}")
            measure(CASES[group], args.rounds, folder, count * FRAGMENT_BYTES)


if __name__ == "__main__":
    main()
