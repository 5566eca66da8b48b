"""Descriptors that take as long to close as who sent them likes: they hold up nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from enticed.control import handoff
from enticed.control.access import Caller
from enticed.control.server import handoff_path
from enticed.limits import HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT
from tests.control.running import Running, serve

LINGER_S = 8
AT_MOST_S = LINGER_S / 2
SO_PASSRIGHTS = 83
GIVE = b'{"op": "give"}'
STRANGER = Caller(1, 65534, 65534)


@dataclass
class Lingering:
    """A TCP connection, all of whose buffers are full: whoever closes it last waits until it is let go."""

    ours: socket.socket
    peer: socket.socket

    def send(self, connection: socket.socket, message: bytes = GIVE) -> None:
        """Send it, and keep none."""
        socket.send_fds(connection, [message], [self.ours.fileno()])
        self.ours.close()

    def let_go(self) -> None:
        self.peer.close()


@contextmanager
def lingering() -> Iterator[Lingering]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
    ours.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_S))
    with ours, peer:
        yield Lingering(ours, peer)


def connected(held: ExitStack, path: Path) -> socket.socket:
    client = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    client.connect(os.fspath(handoff_path(path)))
    return client


async def goes_on(control: Running, since: float) -> None:
    """The event loop has not waited: it has come round often enough to do whatever it had to."""
    for _ in range(50):
        assert (await control.ask("GET", "/v1/status"))[0] == 200
    assert time.monotonic() - since < AT_MOST_S


def sent(held: ExitStack, path: Path, slow: Lingering) -> socket.socket:
    client = connected(held, path)
    slow.send(client)
    return client


def sent_behind_another_message(held: ExitStack, path: Path, slow: Lingering) -> socket.socket:
    client = connected(held, path)
    client.send(b"{}")
    slow.send(client)
    return client


def sent_where_there_is_no_place(held: ExitStack, path: Path, slow: Lingering) -> socket.socket:
    for _ in range(HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT):
        connected(held, path)
    return sent(held, path, slow)


@pytest.mark.parametrize("who", [STRANGER, None], ids=["stranger", "operator"])
@pytest.mark.parametrize("send", [sent, sent_behind_another_message, sent_where_there_is_no_place])
def test_what_takes_long_to_close_holds_up_nobody(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    who: Caller | None,
    send: Callable[[ExitStack, Path, Lingering], socket.socket],
) -> None:
    if who is not None:
        monkeypatch.setattr(handoff, "caller_of", lambda connection: who)

    async def test(control: Running) -> None:
        with ExitStack() as held, lingering() as slow:
            since = time.monotonic()
            client = send(held, control.path, slow)
            await goes_on(control, since)
            slow.let_go()
            with suppress(ConnectionResetError):  # what stood behind it was not read
                answer = await asyncio.to_thread(client.recv, 4096)
                kind = json.loads(answer)["error"]["kind"] if answer else ""
                assert kind == ("" if not answer else "denied" if who else "usage")

    serve(tmp_path, test)


def test_what_takes_long_to_close_has_a_place_until_then_and_the_daemon_ends_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, "caller_of", lambda connection: STRANGER)
    ended = float("inf")
    with ExitStack() as held:

        async def test(control: Running) -> None:
            nonlocal ended
            since = time.monotonic()
            for _ in range(HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT):
                sent(held, control.path, held.enter_context(lingering()))
            await goes_on(control, since)
            turned = connected(held, control.path)
            assert await asyncio.to_thread(turned.recv, 1) == b""
            ended = time.monotonic()

        serve(tmp_path, test)
        assert time.monotonic() - ended < AT_MOST_S


def test_over_http_nobody_sends_a_descriptor_where_the_kernel_sees_to_that(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
            is_seen_to = True
        except OSError:
            is_seen_to = False

    async def test(control: Running) -> None:
        request = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as client, lingering() as slow:
            client.connect(os.fspath(control.path))
            if is_seen_to:
                with pytest.raises(PermissionError):
                    slow.send(client, request)
            client.send(request)
            assert (await asyncio.to_thread(client.recv, 4096)).startswith(b"HTTP/1.1 200")

    serve(tmp_path, test)
