"""Who may do what: the kernel says who is at the other end of the socket."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from enticed.control.access import Access, Caller, caller_of
from enticed.limits import CONTROL_CONNECTIONS_PER_READER_MAX_COUNT, CONTROL_STREAMS_PER_READER_MAX_COUNT
from tests.control.engine import Goods
from tests.control.running import Running, serve
from tests.programs import need_root

STRANGER_UID = 54321
STRANGER_GID = 54322

# Another user's process: drops its rights for good, then speaks to the socket with nothing but the standard library.
CLIENT = """
import http.client, json, os, socket, sys
path, uid, gid, requests = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
answers = []
for method, target, body in requests:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(path)
    connection.request(method, target, body if body is None else json.dumps(body))
    response = connection.getresponse()
    answers.append((response.status, json.loads(response.read())))
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as handoff:
    handoff.settimeout(10)
    handoff.connect(path + ".fd")
    with open("/proc/self/exe", "rb") as file:
        socket.send_fds(handoff, [b'{"op": "give"}'], [file.fileno()])
    answers.append((0, json.loads(handoff.recv(4096))))
print(json.dumps(answers))
"""


async def as_user(path: Path, uid: int, gid: int, requests: list[tuple[str, str, Any]]) -> list[Any]:
    """What another user is answered to these requests, and at last to handing over a descriptor."""
    for directory in (path.parent, *path.parent.parents):
        if directory.stat().st_uid == os.getuid() and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o055)  # pytest's directories are closed to others
    arguments = [sys.executable, "-I", "-c", CLIENT, str(path), str(uid), str(gid), json.dumps(requests)]
    run = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True, cwd="/")
    answers: list[Any] = json.loads(run.stdout)
    return answers


@pytest.mark.needs_root
def test_others_may_read_and_change_nothing(tmp_path: Path) -> None:
    need_root()

    async def test(control: Running) -> None:
        control.engine.shelf["web:1"] = Goods(b"x" * 4096)
        reading = [("GET", f"/v1/{what}", None) for what in ("images", "orders", "peers", "plan?target=web:1")]
        changing = [
            ("PUT", "/v1/orders/a", {"image": "web:1"}),
            ("DELETE", "/v1/orders/a", None),
            ("DELETE", "/v1/images/a", None),
            ("POST", "/v1/images", {"ticket": "x", "name": "a"}),
            ("POST", "/v1/images/a/verify", None),
            ("POST", "/v1/tokens", {}),
        ]
        requests = [("GET", "/v1/status", None), *reading, *changing]
        status, *answers = await as_user(control.path, STRANGER_UID, STRANGER_GID, requests)
        assert (status[0], status[1]["may_change"]) == (200, False)
        assert [code for code, _ in answers] == [200] * len(reading) + [403] * len(changing) + [0]
        refused = [answer.get("error", answer)["kind"] for _, answer in answers[len(reading) :]]
        assert refused == ["denied"] * (len(changing) + 1)
        assert control.engine.orders() == ()

    serve(tmp_path, test)


@pytest.mark.needs_root
def test_the_group_may_change_things(tmp_path: Path) -> None:
    need_root()
    group = next(one for one in grp.getgrall() if one.gr_gid != 0)

    async def test(control: Running) -> None:
        control.engine.shelf["web:1"] = Goods(b"x" * 4096)
        requests = [("PUT", "/v1/orders/a", {"image": "web:1"}), ("GET", "/v1/status", None)]
        answers = await as_user(control.path, STRANGER_UID, group.gr_gid, requests)
        assert [code for code, _ in answers] == [200, 200, 0]
        assert answers[1][1]["may_change"]
        assert "ticket" in answers[2][1]

    serve(tmp_path, test, group=group.gr_name)


def test_membership_is_what_the_group_database_says() -> None:
    listed = [(one, member) for one in grp.getgrall() for member in one.gr_mem if member != "root"]
    if not listed:
        pytest.skip("no group has members here")
    group, member = listed[0]
    user = pwd.getpwnam(member)
    own_uid = os.geteuid()
    if user.pw_uid in (0, own_uid):
        pytest.skip("the only member is this user")

    async def test() -> None:
        assert await Access(group.gr_name).may_change(Caller(1, user.pw_uid, STRANGER_GID))
        assert not await Access(None).may_change(Caller(1, user.pw_uid, STRANGER_GID))

    asyncio.run(test())


def test_who_is_in_no_group_may_not() -> None:
    async def test() -> None:
        stranger = Caller(1, STRANGER_UID, STRANGER_GID)
        assert not await Access(None).may_change(stranger)
        assert not await Access("no-such-group-anywhere").may_change(stranger)
        assert not await Access(grp.getgrgid(0).gr_name).may_change(stranger)
        assert await Access(None).may_change(Caller(1, 0, 0))
        assert await Access(None).may_change(Caller(1, os.geteuid(), STRANGER_GID))
        in_group = Caller(1, STRANGER_UID, 0)
        assert await Access(grp.getgrgid(0).gr_name).may_change(in_group)

    asyncio.run(test())


def test_the_kernel_says_who_is_there() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        assert caller_of(here) == Caller(os.getpid(), os.geteuid(), os.getegid())
    with pytest.raises(ConnectionResetError):
        caller_of(None)


CROWD = """
import os, socket, sys
path, uid, count, target = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
crowd = []
for _ in range(count):
    one = socket.socket(socket.AF_UNIX); one.connect(path); one.settimeout(10); crowd.append(one)
request = f"GET {target} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode()
served = 0
for one in crowd:
    try:
        one.send(request)
        served += one.recv(12) == b"HTTP/1.1 200"
    except ConnectionError:
        pass
print(served, flush=True)
sys.stdin.read()
"""


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("target", "limit"),
    [
        ("/v1/peers", CONTROL_CONNECTIONS_PER_READER_MAX_COUNT),
        ("/v1/events", CONTROL_STREAMS_PER_READER_MAX_COUNT),
    ],
)
def test_a_reader_cannot_take_what_others_need(tmp_path: Path, target: str, limit: int) -> None:
    need_root()

    async def test(control: Running) -> None:
        await as_user(control.path, STRANGER_UID, STRANGER_GID, [])  # opens the way to the socket
        count = limit + 5
        crowd = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", CROWD, str(control.path), str(STRANGER_UID), str(count), target,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd="/",
        )  # fmt: skip
        assert crowd.stdout is not None
        served = int(await crowd.stdout.readline())
        assert served == limit
        async with control.session.get(f"http://localhost{target}") as answer:
            assert answer.status == 200
        await crowd.communicate(b"")

    serve(tmp_path, test)
