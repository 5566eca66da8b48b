"""Descriptors to and from the daemon, so that each side opens files with its own rights only."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from enticed.cli.client import connect, failure, no_daemon
from enticed.cli.failures import Exit, Failed
from enticed.limits import HANDOFF_MESSAGE_MAX_SIZE_BYTES

SUFFIX = ".fd"


def give(socket_path: str, fd: int) -> str:
    """Hand a file over to the daemon: the ticket by which a request names it."""
    answer, received = _converse(socket_path, {"op": "give"}, [fd])
    _close(received)
    return str(answer["ticket"])


def open_image(socket_path: str, image: str, part: str = "raw") -> int:
    """A read-only descriptor of an image's raw file in the store, or of its papers, the caller's to close."""
    _, received = _converse(socket_path, {"op": "open", "image": image, "part": part}, [])
    if len(received) != 1:
        _close(received)
        raise Failed(Exit.FAILED, "the daemon sent no file")
    return received[0]


def _converse(socket_path: str, message: dict[str, str], descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
    with connect(socket_path, socket.SOCK_SEQPACKET, SUFFIX) as connection:
        try:
            socket.send_fds(connection, [json.dumps(message).encode()], descriptors)
            connection.wait()
            data, received, _, _ = socket.recv_fds(
                connection, HANDOFF_MESSAGE_MAX_SIZE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise no_daemon(socket_path + SUFFIX, error) from error
    if not data:
        _close(received)
        raise Failed(Exit.TEMPORARY, "the daemon has no room for another file: try again in a while")
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        _close(received)
        raise failure(answer["error"])
    return answer, received


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
