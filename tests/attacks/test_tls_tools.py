"""Real daemons, seen by the tools that auditors bring: openssl, curl, nmap, with certificates that should not do."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enticed.identity.host import found_cluster, load_identity
from enticed.identity.pem import load_certificate
from protocol.credentials import Role, read_certificate
from protocol.framing import encode_frame
from protocol.messages import CONTROL, REVOKED, Goodbye
from simnet.testbed import Testbed
from tests.attacks import certificates
from tests.daemon.pulls import WAIT_S, cluster
from tests.gateway.clients import Shown
from tests.programs import need

pytestmark = pytest.mark.slow

API_PORT = 7401
ALPN = "enticed-control/1"


@dataclass(frozen=True)
class Wardrobe:
    """A cluster of real daemons, and certificates to show it. None: none at all."""

    testbed: Testbed
    ca: Path
    foreign_ca: Path
    shown: dict[str, Shown | None]

    @property
    def peers(self) -> str:
        return self.testbed.founder.address

    @property
    def api(self) -> str:
        return f"{self.peers.rpartition(':')[0]}:{API_PORT}"


@pytest.fixture(scope="module")
def wardrobe() -> Iterator[Wardrobe]:
    with cluster(hosts=1) as testbed:
        founder, directory = load_identity(testbed.founder.state), testbed.directory / "wardrobe"
        directory.mkdir()
        foreign = found_cluster(testbed.directory / "foreign", "", "", time.time())
        shown: dict[str, Shown | None] = {"none": None, "foreign": node_of(foreign.directory)}
        for role in Role:
            shown[role.name.lower()] = certificates.of_role(
                testbed.founder.state, founder.authority_der, role, directory
            )
        for role in (Role.NODE, Role.SCHEDULER):
            shown[f"expired-{role.name.lower()}"] = certificates.of_role(
                testbed.founder.state, founder.authority_der, role, directory, expired=True
            )
        for role in (Role.NODE, Role.SCHEDULER):
            gone = certificates.of_role(testbed.founder.state, founder.authority_der, role, directory, revoked=True)
            shown[f"revoked-{role.name.lower()}"] = gone
            node = read_certificate(load_certificate(gone.certificate)).node
            testbed.founder.must("revoke", node.hex())
        stolen = node_of(testbed.daemons[1].state / "identity")
        shown["stolen"] = Shown(stolen.certificate, directory / "node.key")  # without its key
        ca, foreign_ca = founder.directory / "ca.crt", foreign.directory / "ca.crt"
        yield Wardrobe(testbed, ca, foreign_ca, shown)


def node_of(directory: Path) -> Shown:
    return Shown(directory / "node.crt", directory / "node.key")


def s_client(wardrobe: Wardrobe, who: str, *arguments: str | Path) -> tuple[str, bytes]:
    """What `openssl s_client` says of the peers' port, and the first that it is sent there.

    Its input stays open: without a word from the host, it ends when the host hangs up.
    """
    shown = wardrobe.shown[who]
    files: list[str | Path] = [] if shown is None else ["-cert", shown.certificate, "-key", shown.key]
    command: list[str | Path] = [
        need("openssl"), "s_client", "-connect", wardrobe.peers, "-CAfile", wardrobe.ca, "-alpn", ALPN, "-quiet",
        *files, *arguments,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(WAIT_S, process.kill)
        watchdog.start()
        heard: bytes = process.stdout.read(4096) or b""
        watchdog.cancel()
        if heard:
            process.kill()
        else:
            assert process.wait() != -signal.SIGKILL, "the host neither speaks nor hangs up"
        return process.stderr.read().decode(errors="replace"), heard


def test_openssl_is_spoken_to_with_a_nodes_certificate(wardrobe: Wardrobe) -> None:
    """The host says hello first: only to whom it has verified."""
    errors, heard = s_client(wardrobe, "node")
    assert heard, errors
    assert "verify return:1" in errors


@pytest.mark.parametrize(
    "who", ["none", "foreign", "expired-node", "scheduler", "publisher", "expired-scheduler", "stolen"]
)
def test_openssl_hears_nothing_with_any_other(wardrobe: Wardrobe, who: str) -> None:
    errors, heard = s_client(wardrobe, who)
    assert heard == b"", errors


def test_openssl_hears_that_it_was_revoked_and_no_hello(wardrobe: Wardrobe) -> None:
    errors, heard = s_client(wardrobe, "revoked-node")
    assert heard == encode_frame(CONTROL.encode(Goodbye(REVOKED))), errors


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
def test_openssl_finds_no_older_tls(wardrobe: Wardrobe, version: str) -> None:
    errors, heard = s_client(wardrobe, "node", version)
    assert heard == b""
    assert re.search("protocol version|no protocols available|unsupported protocol|internal error", errors), errors


def curl(wardrobe: Wardrobe, who: str, path: str, *options: str, ca: Path | None = None) -> tuple[int, str]:
    """Exit code, and the HTTP status."""
    shown = wardrobe.shown[who]
    files = [] if shown is None else ["--cert", str(shown.certificate), "--key", str(shown.key)]
    command: list[str | Path] = [
        need("curl"), "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(ca or wardrobe.ca), *files,
        *options, f"https://{wardrobe.api}{path}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("who", "orders", "ca"),
    [
        ("none", "403", "200"),
        ("node", "403", "200"),
        ("publisher", "403", "200"),
        ("revoked-node", "403", "200"),
        ("revoked-scheduler", "403", "200"),
        ("scheduler", "200", "200"),
    ],
)
def test_curl_gets_what_its_role_may_have(wardrobe: Wardrobe, who: str, orders: str, ca: str) -> None:
    assert curl(wardrobe, who, "/v1/orders") == (0, orders)
    assert curl(wardrobe, who, "/v1/ca") == (0, ca)


@pytest.mark.parametrize("who", ["foreign", "expired-node", "expired-scheduler", "stolen"])
def test_curl_gets_nothing_with_a_bad_certificate(wardrobe: Wardrobe, who: str) -> None:
    """Not even what anybody may have without any."""
    for path in ("/v1/orders", "/v1/ca"):
        code, status = curl(wardrobe, who, path)
        assert code != 0
        assert status == "000"


def test_curl_trusts_no_other_ca_and_gets_no_other_protocol(wardrobe: Wardrobe) -> None:
    assert curl(wardrobe, "scheduler", "/v1/orders", ca=wardrobe.foreign_ca)[0] == 60  # the server is not verified
    assert curl(wardrobe, "scheduler", "/v1/orders", "--tls-max", "1.2")[0] != 0
    plain = subprocess.run(
        [need("curl"), "-sS", "-o", "/dev/null", f"http://{wardrobe.api}/v1/orders"],
        capture_output=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert plain.returncode != 0


def test_nmap_finds_tls_1_3_and_nothing_else(wardrobe: Wardrobe) -> None:
    """On both ports; and its probes, which no program of ours would send, leave the daemon as it is."""
    host, port = wardrobe.peers.split(":")
    done = subprocess.run(
        [need("nmap"), "-Pn", "-n", "-p", f"{port},{API_PORT}", "--script", "+ssl-enum-ciphers", host],
        capture_output=True, text=True, check=True, timeout=110,
    )  # fmt: skip
    for each in (port, str(API_PORT)):
        start = done.stdout.index(f"{each}/tcp")
        report = done.stdout[start : done.stdout.find("/tcp", start + len(each) + 5)]
        assert set(re.findall(r"(SSLv\d|TLSv1\.\d):", report)) == {"TLSv1.3"}, report
        ciphers = re.findall(r"(TLS_\w+|TLS_AKE\w+)", report)
        assert ciphers
        assert not [one for one in ciphers if not re.search("AES_(128|256)_GCM|CHACHA20_POLY1305", one)]
    assert wardrobe.testbed.founder.control.get("/v1/status")["images"] == 0
    assert "Traceback" not in wardrobe.testbed.founder.log
