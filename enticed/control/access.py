"""Who is at the other end of a unix socket, and what they may do: root, the daemon's own user and one group may change
things, everybody else who can reach the socket may read.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Any, Protocol

_CREDENTIALS = struct.Struct("=iII")


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that connected, as the kernel vouches for it; `gid` is its primary group at that time."""

    pid: int
    uid: int
    gid: int


class _Optioned(Protocol):
    """A socket, or what an event loop gives for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def caller_of(connection: _Optioned | Any) -> Caller:
    """Raises `OSError` for what is not a connected unix socket: also for None, of a connection that is gone."""
    if connection is None:
        raise ConnectionResetError("the client is gone")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Caller(*_CREDENTIALS.unpack(raw))


class Access:
    """The rule. group: its members may change things; None, or the name of a group that is not there: nobody does."""

    def __init__(self, group: str | None) -> None:
        self.group = group

    @staticmethod
    def is_own(caller: Caller) -> bool:
        """Whether it is root or the daemon's own user."""
        return caller.uid in (0, os.geteuid())

    async def may_change(self, caller: Caller) -> bool:
        """Asks the group database anew each time, in a thread: it may be on the network, and people leave groups."""
        if self.is_own(caller):
            return True
        return self.group is not None and await asyncio.to_thread(_is_member, caller, self.group)


def _is_member(caller: Caller, group: str) -> bool:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    if caller.gid == gid:
        return True
    try:
        user = pwd.getpwuid(caller.uid)
    except KeyError:
        return False
    return gid in os.getgrouplist(user.pw_name, user.pw_gid)
