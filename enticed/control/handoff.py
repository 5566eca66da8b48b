"""Descriptors across the unix socket `<socket>.fd`: a client hands a file over, or is handed an image's.

So the daemon never opens a path that a client names, and a client writes its copy with its own rights. One message each
way on a SOCK_SEQPACKET connection, JSON, a descriptor beside it (SCM_RIGHTS):

    {"op": "give"} + descriptor      ->  {"ticket": "...", "expires_in_s": 30.0}
    {"op": "open", "image": "..."}   ->  {"size_bytes": n} + read-only descriptor of the raw file
    anything that goes wrong         ->  {"error": a problem document}

Anybody can connect and send a descriptor, and closing it may take as long as they like: that is done beside the loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from enticed.control.access import Access, Caller, caller_of
from enticed.control.beside import begin, beside
from enticed.control.fields import parse_object, parse_target
from enticed.control.sockets import ListeningSocket
from enticed.control.tickets import Tickets
from enticed.engine.port import Engine
from enticed.image.source import inspect
from enticed.limits import (
    ACCEPT_PAUSE_S,
    HANDOFF_CLOSE_TIMEOUT_S,
    HANDOFF_CONNECTIONS_MAX_COUNT,
    HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT,
    HANDOFF_MESSAGE_MAX_SIZE_BYTES,
    HANDOFF_TIMEOUT_S,
)
from enticed.problems import UsageError, problem_of
from enticed.readiness import accept, readable
from protocol.errors import DeniedError, LocalError

_log = logging.getLogger(__name__)


class HandoffServer:
    """Answers on `<socket>.fd` for as long as it is open; `tickets` are for whoever redeems them."""

    def __init__(self, engine: Engine, access: Access, path: Path) -> None:
        self.tickets = Tickets()
        self._engine = engine
        self._access = access
        self._path = path
        self._listening: ListeningSocket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._clients: dict[asyncio.Task[None], int] = {}
        """Per connection, until it is closed: whose it is."""
        self._turned: set[asyncio.Future[None]] = set()
        """Connections for which there was no place, until they are closed."""

    async def start(self) -> None:
        """`LocalError` where the socket cannot be had."""
        self._listening = ListeningSocket(self._path, socket.SOCK_SEQPACKET, takes_descriptors=True)
        self._accepting = asyncio.create_task(self._accept(self._listening.socket))

    async def close(self) -> None:
        """Close the socket, all that is under way, and the descriptors of every ticket; what takes long, goes on."""
        tasks = [*self._clients, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        under_way: list[asyncio.Future[None]] = [*tasks, *self._turned]
        if under_way:
            _, long = await asyncio.wait(under_way, timeout=HANDOFF_CLOSE_TIMEOUT_S)
            for future in long:
                future.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
        self.tickets.close()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            while len(self._turned) >= HANDOFF_CONNECTIONS_MAX_COUNT:
                await asyncio.wait(self._turned, return_when=asyncio.FIRST_COMPLETED)
            try:
                connection, _ = await accept(listening)
            except OSError as error:
                _log.warning("cannot accept at %s: %s", self._path, error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_S)  # for want of descriptors or memory: others must give some back
                continue
            if not self._has_room(connection):
                turned = asyncio.wrap_future(begin(connection.close))
                self._turned.add(turned)
                turned.add_done_callback(self._turned.discard)
                continue
            task = asyncio.create_task(self._serve(connection))
            self._clients[task] = caller_of(connection).uid
            task.add_done_callback(self._clients.pop)
            task.add_done_callback(partial(_close_unserved, connection))  # also of one that never gets to begin

    def _has_room(self, connection: socket.socket) -> bool:
        """Anybody can connect: so that no other user has all the places, even one who may do nothing here."""
        if len(self._clients) >= HANDOFF_CONNECTIONS_MAX_COUNT:
            return False
        caller = caller_of(connection)
        theirs = sum(uid == caller.uid for uid in self._clients.values())
        return self._access.is_own(caller) or theirs < HANDOFF_CONNECTIONS_PER_USER_MAX_COUNT

    async def _serve(self, connection: socket.socket) -> None:
        """A connection has its place until it is closed: with it, what it sent and nobody has taken."""
        try:
            with suppress(TimeoutError, OSError):  # the client is gone, or never said anything
                async with asyncio.timeout(HANDOFF_TIMEOUT_S):
                    await readable(connection)
                await self._answer(connection)
        finally:
            await beside(connection.close)

    async def _answer(self, connection: socket.socket) -> None:
        """One message in, one out; whatever was received is closed unless a ticket stands for it."""
        caller = caller_of(connection)
        try:
            if not await self._access.may_change(caller):
                raise DeniedError("only root, the daemon's user and members of its group may do this")
        except Exception as error:  # noqa: BLE001 - as below
            await beside(_refuse, connection, _told(error))
            return
        message, received, cut = _receive(connection)
        opened: list[int] = []
        try:
            if cut:
                raise UsageError("too large a message, or more than one descriptor")
            answer = await self._do(caller, message, received, opened)
        except Exception as error:  # noqa: BLE001 - the client is told, and what is no error of ours is logged
            answer = _told(error)
        finally:
            if received:
                await beside(_close, received)
        try:
            if message:
                socket.send_fds(connection, [json.dumps(answer).encode()], opened)
        finally:
            _close(opened)

    async def _do(self, caller: Caller, message: bytes, received: list[int], opened: list[int]) -> dict[str, Any]:
        """Carry out one message. Takes out of `received` what it keeps; what is to be sent goes into `opened`."""
        values = parse_object(message)
        op, image, part = values.pop("op", None), values.pop("image", None), values.pop("part", None)
        if values:
            raise UsageError(f"no field is called {next(iter(values))!r} here")
        if op == "give" and image is None and part is None:
            return self._give(caller, received)
        if op == "open" and isinstance(image, str) and not received:
            if part not in (None, "raw", "papers"):
                raise UsageError("part is raw or papers")
            open_part = self._engine.open_papers if part == "papers" else self._engine.open_image
            opened.append(await open_part(parse_target(image)))
            return {"size_bytes": os.fstat(opened[0]).st_size}
        raise UsageError("say {'op': 'give'} with a descriptor, or {'op': 'open', 'image': ...} without one")

    def _give(self, caller: Caller, received: list[int]) -> dict[str, Any]:
        if len(received) != 1:
            raise UsageError("one descriptor belongs to this")
        try:
            inspect(received[0])
        except LocalError as error:
            raise UsageError(str(error)) from error
        ticket = self.tickets.issue(received.pop(), caller.uid)
        return {"ticket": ticket, "expires_in_s": self.tickets.lifetime_s}


def _receive(connection: socket.socket) -> tuple[bytes, list[int], bool]:
    """One message, its descriptors, and whether some of it was cut off because it was too much."""
    message, received, flags, _ = socket.recv_fds(
        connection, HANDOFF_MESSAGE_MAX_SIZE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
    )
    return message, received, bool(flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC))


def _refuse(connection: socket.socket, answer: dict[str, Any]) -> None:
    """Take the message, so that the answer to it arrives, and close what came with it. Blocks as long as they like."""
    message, received, _ = _receive(connection)
    _close(received)
    if message:
        connection.send(json.dumps(answer).encode())


def _told(error: Exception) -> dict[str, Any]:
    return {"error": problem_of(error).document()}


def _close_unserved(connection: socket.socket, task: asyncio.Task[None]) -> None:
    if connection.fileno() >= 0:
        begin(connection.close)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
