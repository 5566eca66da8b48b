"""What web servers do wrong: each is one of three errors, in one line, soon."""

from __future__ import annotations

import datetime
import logging
import ssl
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from enticed.origin.errors import ObjectAbsentError, OriginFaultError, OriginLostError
from enticed.origin.retry import PatientOrigin
from enticed.origin.web import WebOrigin
from protocol.limits import KIB, MIB
from simnet.testbed.origins import free_port
from tests.origin.rogue import Behaviour, Handler, RogueServer, in_turn, rogue


def origin_of(server: RogueServer, silent_s: float = 5.0) -> WebOrigin:
    return WebOrigin(server.url, lambda name: f"{server.url}/{name}?secret", silent_s)


def ask_for_range(origin: WebOrigin) -> bytes:
    stream = origin.open("id/raw", 1000, 500)
    try:
        data = bytearray(500)
        stream.fill(memoryview(data))
        return bytes(data)
    finally:
        stream.close()


def right(asked: Handler) -> None:
    first, last = asked.range
    asked.answer(206, bytes(last + 1 - first), Content_Range=f"bytes {first}-{last}/9999")


def cut_off(asked: Handler) -> None:
    first, last = asked.range
    asked.answer(206, bytes(99), Content_Length="500", Content_Range=f"bytes {first}-{last}/9999")
    asked.close_connection = True


def breaks_off(asked: Handler) -> None:
    asked.close_connection = True


def talks_something_else(asked: Handler) -> None:
    asked.wfile.write(b"220 ready\r\n" * 3)
    asked.close_connection = True


FAULTS: list[tuple[Behaviour, type[Exception], str]] = [
    (lambda asked: asked.answer(302, Location="http://127.0.0.1:1/"), OriginFaultError, "redirect is not followed"),
    (lambda asked: asked.answer(200, bytes(9999)), OriginFaultError, "must serve ranges"),
    (lambda asked: asked.answer(200, b"x", Content_Encoding="gzip"), OriginFaultError, "encoded"),
    (lambda asked: asked.answer(206, bytes(500), Content_Range="bytes 0-499/9999"), OriginFaultError, "another range"),
    (lambda asked: asked.answer(206, bytes(500)), OriginFaultError, "another range"),
    (lambda asked: asked.answer(416), OriginFaultError, "shorter"),
    (lambda asked: asked.answer(418), OriginFaultError, "418"),
    (lambda asked: asked.answer(404), ObjectAbsentError, "has no id/raw"),
    (lambda asked: asked.answer(404, b"<Code>NoSuchBucket</Code>"), ObjectAbsentError, "NoSuchBucket"),
    (lambda asked: asked.answer(403, b"<Code>ExpiredToken</Code>"), ObjectAbsentError, "ExpiredToken.*credentials"),
    (lambda asked: asked.answer(503), OriginLostError, "503"),
    (lambda asked: asked.answer(429), OriginLostError, "429"),
    (cut_off, OriginLostError, "breaks the connection off"),
    (breaks_off, OriginLostError, "breaks the connection off"),
    (talks_something_else, OriginLostError, "breaks the connection off"),
    (lambda asked: asked.wait(), OriginLostError, "does not answer in time"),
]


@pytest.mark.parametrize(("behaviour", "kind", "says"), FAULTS)
def test_a_fault_is_told_in_one_line(
    behaviour: Behaviour, kind: type[Exception], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with rogue(behaviour) as server:
        origin = origin_of(server, silent_s=0.2)
        with pytest.raises(kind, match=says) as raised:
            ask_for_range(origin)
        origin.close()
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value) + caplog.text, "addresses of a bucket are signed"


def test_a_connection_is_used_again() -> None:
    ports = set()

    def noted(asked: Handler) -> None:
        ports.add(asked.client_address[1])
        right(asked)

    with rogue(noted) as server:
        origin = origin_of(server)
        assert [ask_for_range(origin) for _ in range(5)] == [bytes(500)] * 5
        origin.close()
    assert len(ports) == 1


def test_after_a_fault_the_next_answer_is_not_the_rest_of_the_last() -> None:
    with rogue(in_turn(lambda asked: asked.answer(200, b"\1" * 9999), right)) as server:
        origin = origin_of(server)
        for _ in range(3):
            with pytest.raises(OriginFaultError):
                ask_for_range(origin)
            assert ask_for_range(origin) == bytes(500)
        origin.close()


def test_nobody_there() -> None:
    port = free_port()
    origin = WebOrigin("the origin", lambda name: f"http://127.0.0.1:{port}/{name}")
    with pytest.raises(OriginLostError, match="no connection"):
        origin.read("id/root", 10)
    origin = WebOrigin("the origin", lambda name: f"http://no-such-host.invalid/{name}")
    with pytest.raises(OriginLostError, match="cannot be resolved"):
        origin.read("id/root", 10)


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "origin")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_tls_is_checked_against_the_authorities_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with rogue(right) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        origin = WebOrigin(url, lambda name: f"{url}/{name}")
        with pytest.raises(OriginFaultError, match=r"no TLS with it: .*self-signed"):
            origin.open("id/raw", 0, 100)
        origin.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        origin = WebOrigin(url, lambda name: f"{url}/{name}")
        stream = origin.open("id/raw", 0, 100)
        stream.fill(memoryview(bytearray(100)))
        stream.close()
        stream = origin.open("id/raw", 0, 100)
        stream.interrupt()
        with pytest.raises(OriginLostError):
            stream.fill(memoryview(bytearray(100)))
        stream.close()
        origin.close()


def test_an_object_without_end_is_read_no_further_than_its_limit() -> None:
    def endless(asked: Handler) -> None:
        asked.send_response(200)
        asked.send_header("Connection", "close")
        asked.end_headers()
        while not asked.server.over.is_set():
            asked.wfile.write(bytes(64 * KIB))

    with rogue(endless) as server:
        origin = origin_of(server)
        with pytest.raises(OriginFaultError, match="more than"):
            origin.read("id/root", MIB)
        origin.close()


def test_who_waits_for_a_silent_origin_can_be_interrupted() -> None:
    def stops(asked: Handler) -> None:
        first, last = asked.range
        asked.answer(206, bytes(10), Content_Length="500", Content_Range=f"bytes {first}-{last}/9999")
        asked.wait()

    with rogue(stops) as server:
        origin = origin_of(server, silent_s=60)
        stream = origin.open("id/raw", 0, 500)
        timer = threading.Timer(0.1, stream.interrupt)
        timer.start()
        began = time.monotonic()
        with pytest.raises(OriginLostError):
            stream.fill(memoryview(bytearray(500)))
        assert time.monotonic() - began < 10
        stream.close()
        timer.join()
        origin.close()


def test_small_objects_are_asked_for_again() -> None:
    pauses: list[float] = []
    behaviour = in_turn(breaks_off, lambda asked: asked.answer(503), lambda asked: asked.answer(200, b"here"))
    with rogue(behaviour) as server:
        origin = PatientOrigin(origin_of(server), pauses.append)
        assert origin.read("id/root", 100) == b"here"
        assert len(pauses) == 2
        assert pauses == sorted(pauses)
        origin.close()


def test_but_not_for_ever_and_not_what_is_absent() -> None:
    pauses: list[float] = []
    with rogue(lambda asked: asked.answer(503 if "root" in asked.path else 404)) as server:
        origin = PatientOrigin(origin_of(server), pauses.append)
        with pytest.raises(OriginLostError):
            origin.read("id/root", 100)
        assert len(server.asked) == 3
        with pytest.raises(ObjectAbsentError):
            origin.read("id/pages", 100)
        assert len(server.asked) == 4
        origin.close()
