"""Servers that an origin can be, as processes on loopback: nginx before a directory, and an S3 service in memory."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simnet.testbed.processes import TestbedError, end

START_TIMEOUT_S = 30.0
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What reaches an S3 service of this module."""

_NGINX = """daemon off; master_process off; pid {own}/nginx.pid; error_log {own}/error.log; events {{}}
http {{ log_format bytes '$request_method $uri $status $body_bytes_sent'; access_log {own}/access.log bytes;
  sendfile on; keepalive_requests 1000000; client_body_temp_path {own}; proxy_temp_path {own};
  fastcgi_temp_path {own}; uwsgi_temp_path {own}; scgi_temp_path {own};
  server {{ listen 127.0.0.1:{port}; root {served}; limit_rate {rate}; }} }}
"""
_LOGGED = re.compile(r"GET (\S+) (\d+) (\d+)")


@dataclass(frozen=True)
class Nginx:
    """A web server. `url`: of the directory that it serves."""

    url: str
    log: Path

    def sent_bytes(self, ending: str = "") -> int:
        """What it has sent of objects whose path ends so."""
        logged = _LOGGED.findall(self.log.read_text()) if self.log.exists() else []
        return sum(int(size) for path, _, size in logged if path.endswith(ending))

    def requests(self, ending: str = "") -> int:
        logged = _LOGGED.findall(self.log.read_text()) if self.log.exists() else []
        return sum(path.endswith(ending) for path, _, _ in logged)


@contextmanager
def nginx(served: Path, own: Path, bytes_per_s: int = 0) -> Iterator[Nginx]:
    """Serve a directory. own: an empty directory for its files. bytes_per_s: of each connection; 0: no limit."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    served.mkdir(exist_ok=True)
    own.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (own / "nginx.conf").write_text(_NGINX.format(own=own, served=served, port=port, rate=bytes_per_s))
    with _running([program, "-e", str(own / "error.log"), "-c", str(own / "nginx.conf")], port, own / "said.log"):
        yield Nginx(f"http://127.0.0.1:{port}", own / "access.log")


@contextmanager
def s3_service(own: Path) -> Iterator[str]:
    """An S3 service, for development, with nothing in it; the address of its endpoint."""
    port = free_port()
    own.mkdir(parents=True, exist_ok=True)
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, own / "s3.log"):
        yield f"http://127.0.0.1:{port}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TestbedError(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)  # neither has another way to say that it listens
        yield
    finally:
        end(process)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
