"""nginx and curl over TLS 1.3, with certificates on both sides: the figure beside ours for whatever moves bytes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.spike_carriers import make_certificate
from simnet.testbed.processes import family

NGINX = """daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/error.log; events {{}}
http {{ access_log off; sendfile on; client_body_temp_path {d}; proxy_temp_path {d}; fastcgi_temp_path {d};
  uwsgi_temp_path {d}; scgi_temp_path {d}; server {{ listen 127.0.0.1:{p} ssl; root {d}; ssl_protocols TLSv1.3;
  ssl_verify_client on; ssl_client_certificate {d}/cert.pem; ssl_certificate {d}/cert.pem;
    ssl_certificate_key {d}/key.pem; }} }}
"""


@dataclass(frozen=True)
class Fetched:
    """Seconds until the last of the clients was done, and what both ends took of the machine."""

    seconds: float
    client_cpu_s: float
    server_cpu_s: float
    client_resident_mib: float
    server_resident_mib: float


class NginxCurl:
    """Serves and fetches files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        make_certificate(folder)
        (folder / "nginx.conf").write_text(NGINX.format(d=folder, p=self._port))

    def fetch(self, source: str, *sinks: str) -> Fetched:
        """Fetch a file into as many others at once; `RuntimeError` where curl fails."""
        folder = self._folder
        identity = ["--cacert", f"{folder}/cert.pem", "--cert", f"{folder}/cert.pem", "--key", f"{folder}/key.pem"]
        url = f"https://localhost:{self._port}/{source}"
        nginx = subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"])
        try:
            while socket.socket().connect_ex(("127.0.0.1", self._port)) and nginx.poll() is None:
                time.sleep(0.01)  # nginx in the foreground has no other way to say that it listens
            started = time.perf_counter()
            clients = [
                subprocess.Popen(["curl", "-4sSf", "--tlsv1.3", *identity, "-o", folder / sink, url]) for sink in sinks
            ]
            ends = [os.wait4(client.pid, 0) for client in clients]
            seconds = time.perf_counter() - started
        finally:
            nginx.terminate()
            _, _, server = os.wait4(nginx.pid, 0)
            nginx.returncode = 0
        for client, (_, status, _) in zip(clients, ends, strict=True):
            client.returncode = status
            if status:
                raise RuntimeError("curl failed")
        usages = [usage for _, _, usage in ends]
        return Fetched(
            seconds,
            sum(usage.ru_utime + usage.ru_stime for usage in usages),
            server.ru_utime + server.ru_stime,
            max(usage.ru_maxrss for usage in usages) / 1024,
            server.ru_maxrss / 1024,
        )


@contextmanager
def processor_seconds(pids: list[int]) -> Iterator[list[float]]:
    """A list that holds, after the block, the processor seconds of each of these and its children meanwhile."""
    before = [_processor_s(pid) for pid in pids]
    taken: list[float] = []
    yield taken
    taken += [_processor_s(pid) - since for pid, since in zip(pids, before, strict=True)]


def _processor_s(pid: int) -> float:
    # Of itself and of children that have ended, and the same of each child that has not.
    stats = (Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in family(pid))
    return sum(int(ticks) for fields in stats for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
