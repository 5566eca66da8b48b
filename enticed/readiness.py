"""Waiting for sockets on the event loop, so that whoever is cancelled meanwhile loses nothing that has come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to read, or to accept."""
    loop = asyncio.get_running_loop()
    await _ready(sock.fileno(), loop.add_reader, loop.remove_reader)


async def writable(sock: socket.socket) -> None:
    """Wait until something can be written."""
    loop = asyncio.get_running_loop()
    await _ready(sock.fileno(), loop.add_writer, loop.remove_writer)


async def accept(listening: socket.socket) -> tuple[socket.socket, Any]:
    """The next connection, non-blocking, and the address it comes from. `OSError` where none can be had.

    `loop.sock_accept` would leave a connection open that has come in the turn in which its caller is cancelled.
    """
    while True:
        await readable(listening)
        try:
            sock, address = listening.accept()
        except BlockingIOError:  # whoever came is gone again
            continue
        sock.setblocking(False)
        return sock, address


async def _ready(fd: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
    # The descriptor stays known: who closes the socket while somebody waits has it taken off all the same.
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)
