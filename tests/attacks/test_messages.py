"""What is said between hosts: who may say it at all, what no message has room for, and what is no message."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import tracemalloc
import typing
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from enticed.identity.host import HostIdentity
from enticed.transfer.addresses import HostPort
from enticed.transfer.ports import PeerDown, PeerUp
from enticed.transfer.timing import Timing
from protocol.addresses import split_address
from protocol.codec import unpack_record
from protocol.credentials import Role
from protocol.dht import DHT
from protocol.enrolment import JoinAnswer, JoinRequest
from protocol.errors import MalformedError
from protocol.framing import encode_frame
from protocol.limits import FRAME_MAX_SIZE_BYTES
from protocol.messages import ALPN_BULK, ALPN_CONTROL, BULK, CONTROL, BulkHello, Hello
from protocol.statement import StatementSet
from tests.attacks import certificates
from tests.gateway.clients import Shown
from tests.transfer.hosts import host, run
from tests.transfer.rogue import Frames, connect, until_closed

PATIENT = Timing()
WORDS = {"control": CONTROL, "bulk": BULK, "dht": DHT}


# --- who may say anything ---


def intrude(shown: Shown | None, founder: HostIdentity, address: str, alpn: str) -> bytes:
    """Connect with a certificate, or none, say hello and listen: what the host answers before it hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=founder.authority_der)
    context.set_alpn_protocols([alpn])
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    hello = CONTROL.encode(Hello(1, 1, (), 1, ())) if alpn == ALPN_CONTROL else BULK.encode(BulkHello(1, ()))
    heard = b""
    sockaddr = HostPort.parse(address).sockaddr
    try:
        with context.wrap_socket(socket.create_connection(sockaddr, timeout=10)) as sock:
            sock.sendall(encode_frame(hello))
            while data := sock.recv(65536):
                heard += data
    except (ssl.SSLError, ConnectionError):
        pass
    return heard


@pytest.mark.parametrize("role", [None, *(role for role in Role if role is not Role.NODE)])
def test_only_nodes_have_sessions_and_say_anything(
    cluster: list[HostIdentity], tmp_path: Path, role: Role | None
) -> None:
    """No word of any other role is heard: the connection ends with its handshake, and nothing is answered."""
    founder = cluster[0]
    shown = None
    if role is not None:
        shown = certificates.of_role(founder.directory.parent, founder.authority_der, role, tmp_path)

    async def scenario() -> None:
        async with host(cluster[1], timing=PATIENT) as victim:
            for alpn in (ALPN_CONTROL, ALPN_BULK):
                heard = await asyncio.to_thread(intrude, shown, founder, victim.network.listening[0], alpn)
                assert heard == b""
            assert not victim.told.events
            assert victim.shelf.asked == []

    run(scenario())


# --- what no message has room for ---

PLACES = {"Hello.addresses", "Alternative.addresses", "JoinAnswer.bootstrap"}
"""Fields of addresses: `host:port`, numeric, dialled within `dial_networks`."""
WORDS_FOR_PEOPLE = {
    "Hello.capabilities", "BulkHello.capabilities", "Goodbye.reason", "PlaceOrder.key", "PlaceOrder.owner",
    "CancelOrder.key", "OrderNews.key", "OrderNews.reason", "JoinRequest.zone", "JoinRequest.rack", "HostLabel.key",
    "HostLabel.value", "Renewal.reason",
}  # fmt: skip
"""Fields of text that is compared, shown or logged, and never opened, dialled or run."""


def texts_of(kind: type[Any]) -> Iterator[str]:
    """The fields of a record, and of the records in it, that hold text."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        arms = list(_parts(hints[field.name]))
        if str in arms:
            yield f"{kind.__name__}.{field.name}"
        for arm in arms:
            if is_dataclass(arm):
                yield from texts_of(arm)  # type: ignore[arg-type]


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in typing.get_args(annotation):
        yield from _parts(inner)


def test_no_message_carries_a_place_to_go() -> None:
    """No path, no URL, no host name: all text in messages is known to this list, and addresses are numeric."""
    kinds = [*(kind for words in WORDS.values() for kind in words.messages.values()), JoinRequest, JoinAnswer]
    assert {text for kind in kinds for text in texts_of(kind)} == PLACES | WORDS_FOR_PEOPLE
    for text in ("localhost:80", "metadata:80", "http://10.0.0.1:80", "/etc/passwd", "10.1:80", "0x7f000001:80"):
        with pytest.raises(MalformedError):
            split_address(text)


# --- what is no message ---

MEMORY_MAX_BYTES = 40 << 20
"""For a moment, on one thread at a time: msgpack makes room for the 4,096 entries that each of 1,024 arrays, one in the
other, may say to have. Everything else here takes less than 1 MiB."""
TIME_MAX_S = 5.0
"""For all that read it, while memory is traced, on a machine that does other things; milliseconds, without."""
GREEDY = {
    "an array of 4 Gi entries": b"\xdd\xff\xff\xff\xff",
    "a string of 4 GiB": b"\x92\x01\xdb\xff\xff\xff\xff",
    "bytes of 4 GiB": b"\x92\x01\xc6\xff\xff\xff\xff",
    "a map of 4 Gi entries": b"\x92\x01\xdf\xff\xff\xff\xff",
    "an extension of 4 GiB": b"\x92\x01\xc9\xff\xff\xff\xff\x01",
    "many arrays that each say much": b"\x92\x01" + b"\xdd\x00\x00\x0f\xff" * 12_000,
    "arrays 60,000 deep": b"\x91" * 60_000,
    "maps 60,000 deep": b"\x81\x01" * 30_000,
    "arrays in a field 60,000 deep": b"\x96\x01" + b"\x91" * 60_000 + b"\x01",
}


@pytest.mark.parametrize("data", GREEDY.values(), ids=GREEDY)
def test_what_declares_much_or_nests_deep_is_malformed_and_cheap(data: bytes) -> None:
    """In every vocabulary, and as every record: its one error, at once, and no more memory than is at hand."""
    tracemalloc.start()
    began_s = time.monotonic()
    try:
        for words in WORDS.values():
            with pytest.raises(MalformedError):
                words.decode(data)
        for record in (StatementSet, JoinRequest, JoinAnswer):
            with pytest.raises(MalformedError):
                unpack_record(record, data)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX_BYTES
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began_s < TIME_MAX_S


@pytest.mark.parametrize("data", GREEDY.values(), ids=GREEDY)
def test_a_session_that_sends_it_ends(cluster: list[HostIdentity], data: bytes) -> None:
    """From a member, on a real session; and a frame that says to be 4 GiB long. Others are heard as before."""
    frame = encode_frame(data) if len(data) <= FRAME_MAX_SIZE_BYTES else data

    async def scenario() -> None:
        async with host(cluster[1], timing=PATIENT) as victim, host(cluster[3], timing=PATIENT) as honest:
            await honest.meet(victim)

            def talk(stream: bytes) -> None:
                with connect(cluster[2], victim.network.listening[0], ALPN_CONTROL) as sock:
                    frames = Frames(sock, CONTROL)
                    frames.send(Hello(1, 1, (), 1, ()))
                    assert isinstance(frames.receive(), Hello)
                    with suppress(ssl.SSLError, ConnectionError):  # the victim need not read all of it to hang up
                        sock.sendall(stream)
                        until_closed(sock)

            for count, stream in enumerate((frame, b"\xff\xff\xff\xff" + data), start=1):
                await asyncio.to_thread(talk, stream)
                down = await victim.told.wait(PeerDown, cluster[2].node, count)
                assert isinstance(down.why, MalformedError)
            assert not victim.told.of(PeerDown, cluster[3].node)
            assert victim.told.of(PeerUp, cluster[3].node)

    run(scenario())
