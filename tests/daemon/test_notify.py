"""What reaches the service manager, read from a real datagram socket in its place."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from enticed.notify import STATUS_MAX_CHARS, Manager, Notifier

PID = 4711


class Listener:
    """The service manager's end of the line."""

    def __init__(self, address: str | bytes, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(10)

    def received(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    if request.param == "path":
        path = str(tmp_path / "notify")
        listening = Listener(path, path)
    else:
        name = f"enticed-test-{os.getpid()}"
        listening = Listener(b"\0" + name.encode(), "@" + name)
    yield listening
    listening.close()


def manager(environment: dict[str, str]) -> Manager | None:
    return Manager.from_environment(environment, PID)


def test_tells_start_status_life_and_end(listener: Listener) -> None:
    with Notifier(manager({"NOTIFY_SOCKET": listener.name})) as notifier:
        notifier.ready("3 images")
        assert listener.received() == "READY=1\nSTATUS=3 images"
        notifier.status("4 images")
        assert listener.received() == "STATUS=4 images"
        notifier.alive()
        assert listener.received() == "WATCHDOG=1"
        notifier.stopping("saying goodbye")
        assert listener.received() == "STOPPING=1\nSTATUS=saying goodbye"


def test_a_status_stays_one_line_and_short(listener: Listener) -> None:
    with Notifier(manager({"NOTIFY_SOCKET": listener.name})) as notifier:
        notifier.status("name\nMAINPID=1 " + "x" * 1000)
        sent = listener.received()
    assert sent.startswith("STATUS=name MAINPID=1 xxx")
    assert "\n" not in sent
    assert len(sent) == len("STATUS=") + STATUS_MAX_CHARS


def test_nothing_is_sent_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    assert manager({}) is None
    assert manager({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1000"}) is None
    with Notifier(None) as notifier:
        notifier.ready("")
        notifier.alive()
        assert notifier.watchdog_interval_s is None
    assert not caplog.records


def test_a_manager_that_has_gone_is_logged_and_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Notifier(Manager(str(tmp_path / "gone"), None)) as notifier:
        notifier.alive()
    assert "does not listen" in caplog.text


def test_a_manager_that_does_not_read_never_blocks_the_daemon(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with Notifier(manager({"NOTIFY_SOCKET": listener.name})) as notifier:
        while not caplog.records:
            notifier.alive()
    assert listener.received() == "WATCHDOG=1"


def test_outside_its_context_nothing_is_sent(listener: Listener) -> None:
    notifier = Notifier(manager({"NOTIFY_SOCKET": listener.name}))
    notifier.alive()
    with notifier:
        notifier.status("inside")
    notifier.alive()
    assert listener.received() == "STATUS=inside"


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 15.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environment: dict[str, str], interval_s: float | None) -> None:
    notifier = Notifier(manager({"NOTIFY_SOCKET": "/run/notify", **environment}))
    assert notifier.watchdog_interval_s == interval_s


@pytest.mark.parametrize(
    "environment",
    [
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "0"},
    ],
)
def test_a_unit_set_up_wrongly_is_seen_at_start(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"NOTIFY_SOCKET|WATCHDOG_USEC"):
        manager(environment)
