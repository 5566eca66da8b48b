"""What daemons write down: never a secret, and never a line that somebody else has made up."""

from __future__ import annotations

import http.client
import logging
import re
import socket
from pathlib import Path

import pytest

from simnet.testbed import DEFAULT_SETTINGS, Daemon, Testbed
from tests import secrets
from tests.daemon.pulls import new_disk

LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: |  )[^\x00-\x1f\x7f]*")
"""A record, or a line of a traceback beneath one."""
FORGED = "2030-01-01 00:00:00,000 CRITICAL enticed: all images are gone"
ODD = ("a\n" + FORGED, "b\r\n" + FORGED, "\x1b[2J\x1b[31mgone", "\u202egnp", "%s%n%d", "x" * 5000)


def test_a_secret_in_a_log_is_found() -> None:
    token = f"ENT1.10.0.0.1:7401.{'0f' * 32}.{'ab' * 8}.{'cd' * 24}"
    with pytest.raises(AssertionError, match="logs a secret"):
        logging.getLogger("enticed.x").error("join with %s", token)
    assert secrets.of("-----BEGIN PRIVATE KEY-----")
    assert not secrets.of("ENT1.<address>.<CA hash>.<id>.<secret>")


def speak(path: Path, method: str, target: bytes, body: bytes) -> int:
    """A request of raw bytes, as no client of ours would send it: the status, or 0 where it is hung up on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        head = b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        sock.sendall(head % (method.encode(), target, len(body)) + body)
        response = http.client.HTTPResponse(sock)
        try:
            response.begin()
        except http.client.HTTPException:
            return 0
        return response.status


def lines_of(daemon: Daemon) -> list[str]:
    return daemon.log.splitlines()


@pytest.mark.slow
def test_logs_hold_no_secret_and_no_forged_line() -> None:
    """At the level that says most, through everything that has a secret, with names that would be lines."""
    with Testbed() as testbed:
        founder = testbed.found()
        founder.stop()
        founder.start("--log-level", "debug")
        token = testbed.token()
        (host,) = testbed.join(1, settings=f'log_level = "debug"\n{DEFAULT_SETTINGS}')
        again = testbed.new_host()
        for wrong in (token, token[:-1] + "x", token.replace("ENT1", "ENT2")):
            again.entice("join", wrong, "--state", again.state, "--listen", again.address)
        granted = testbed.directory / "granted"
        granted.mkdir()
        founder.must("grant", "scheduler", "nova", "--output", granted)
        founder.json("publish", new_disk(testbed, "a.raw", 4, seed=71), "logs:1")
        assert host.call_json("pull", "logs:1").wait().exit_code == 0
        for odd in ODD:
            for method, target in (("PUT", f"/v1/orders/{odd}"), ("DELETE", f"/v1/images/{odd}"), ("GET", f"/{odd}")):
                speak(host.socket, method, target.encode(errors="surrogateescape"), b"{}")
            quoted = "".join(f"%{byte:02x}" for byte in odd.encode())
            for method in ("PUT", "DELETE", "GET"):
                speak(host.socket, method, f"/v1/orders/{quoted}".encode(), b'{"image": "logs:1"}')
            (host.state / "names" / odd.replace("/", "_")[:200]).write_bytes(b"?")
        host.stop()
        host.start("--log-level", "debug")
        secret = token.rpartition(".")[2]
        for daemon in (founder, host):
            assert secret not in daemon.log
            assert not secrets.of(daemon.log)
            keys = [file.read_text() for file in (daemon.state / "identity").glob("*.key")]
            bodies = ["".join(key.splitlines()[1:-1]) for key in keys]
            assert bodies
            assert not any(part in daemon.log for body in bodies for part in (body, body[:40]))
            assert [line for line in lines_of(daemon) if not LINE.fullmatch(line)] == []
            assert not [line for line in lines_of(daemon) if line.startswith("2030-")]
        assert "gone" in host.log, "what is odd was logged, in its own line"
