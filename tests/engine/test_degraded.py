"""Whole daemons in one process whose own disk fails: they say so, serve what they have, and go on by themselves."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from enticed.core import events as ev
from enticed.core.orders import Priority
from enticed.daemon import _feed_watchdog
from enticed.engine.campaigns.port import CampaignTerms
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from enticed.notify import Notifier
from enticed.problems import Kind, kind_of
from enticed.store.files import DiskError, typed
from protocol.errors import ExhaustedError
from tests.engine.swarm import content_of, disk, publish, pull, recovery_of, run, swarm, until

SIZE_MIB = 24


def failing(code: int, of: DaemonEngine, times: list[int]) -> object:
    """A `fdatasync` that fails on the raw files of this host, and says in `times` how often it was asked to."""
    real, state = os.fdatasync, str(of.parts.identity.directory.parent)

    def fdatasync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{state}/images/"):
            times.append(fd)
            raise OSError(code, os.strerror(code))
        real(fd)

    return fdatasync


def test_after_failed_syncs_the_order_waits_and_then_the_image_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(1, SIZE_MIB)

    async def main() -> None:
        async with swarm(tmp_path, 3) as (founder, host, third):
            await publish(founder, content, "a:1", tmp_path)
            times: list[int] = []
            recovered = recovery_of(host)
            with monkeypatch.context() as broken:
                broken.setattr(os, "fdatasync", failing(errno.EIO, host, times))
                await host.place_order("order", OrderTerms("a:1", priority=Priority.BOOT))
                paused = await until(host, "order", lambda order: order.state.value == "paused")
                assert paused.failure is not None
                assert (paused.failure.value, "cannot sync" in paused.reason) == ("disk", True)
                assert "Input/output error" in str(host.status().degraded)
                assert host.status().degraded_since is not None
                with pytest.raises(ExhaustedError, match="takes no new orders"):
                    await host.place_order("other", OrderTerms("a:1"))
                assert len(times) < 20, "it is not tried again and again"
            await recovered.wait()
            ready = await until(host, "order", lambda order: order.state.value == "ready")
            assert content_of(ready) == content
            assert content_of(await pull(third, "a:1")) == content

    run(main())


def test_a_degraded_host_serves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = disk(2, SIZE_MIB), disk(3, SIZE_MIB)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, first, "first:1", tmp_path)
            recovered = recovery_of(founder)
            with monkeypatch.context() as broken:
                broken.setattr(os, "fdatasync", failing(errno.EROFS, founder, []))
                with pytest.raises(DiskError, match="Read-only file system"):
                    await publish(founder, second, "second:1", tmp_path)
                founder.parts.driver.tell(ev.StoreTroubled("Read-only file system"))
                assert founder.status().degraded
                with pytest.raises(ExhaustedError, match="nothing can be published here"):
                    await publish(founder, second, "second:1", tmp_path)
                assert content_of(await pull(host, "first:1")) == first
                assert founder.status().degraded, "the probe meets what others met"
            await recovered.wait()
            await publish(founder, second, "second:1", tmp_path)
            assert content_of(await pull(host, "second:1", "second")) == second

    run(main())


@pytest.mark.parametrize(("code", "failure"), [(errno.ENOSPC, "no_space"), (errno.EIO, "disk")])
def test_an_order_waits_until_its_name_can_be_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, failure: str
) -> None:
    content = disk(1, 1)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, content, "a:1", tmp_path)

            def broken(*_: object) -> None:
                raise typed(error := OSError(code, os.strerror(code)), "cannot write in /state") from error

            with monkeypatch.context() as patched:
                patched.setattr(host.parts.store, "save_name", broken)
                await host.place_order("order", OrderTerms("a:1"))
                paused = await until(host, "order", lambda order: order.state.value == "paused")
                assert paused.failure is not None
                assert (paused.failure.value, "cannot write in /state" in paused.reason) == (failure, True)
                assert bool(host.status().degraded) == (code == errno.EIO)
            ready = await until(host, "order", lambda order: order.state.value == "ready")
            assert content_of(ready) == content
            assert ready.image is not None
            assert host.parts.naming.names_of(ready.image) == ("a:1",)

    run(main())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_order_that_cannot_be_noted_is_refused_and_never_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    content = disk(1, 1)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, content, "a:1", tmp_path)
            await pull(host, "a:1", "before")

            def broken(*_: object) -> None:
                raise typed(error := OSError(code, os.strerror(code)), "cannot write in /state") from error

            recovered = recovery_of(host)
            with monkeypatch.context() as patched:
                patched.setattr(host.parts.store, "save_order", broken)
                with pytest.raises(ExhaustedError, match="takes no orders just now: cannot write in /state"):
                    await host.place_order("refused", OrderTerms("a:1"))
                assert host.order("refused").state.value == "cancelled"
                with pytest.raises(ExhaustedError, match="takes no orders just now: cannot write in /state"):
                    await host.place_order("before", OrderTerms("a:1"))
                assert host.order("before").state.value == "ready", "it was there before, and stays"
            await recovered.wait()
            await host.parts.ledger.saved()
            assert [order.key for order in host.parts.store.orders()] == ["before"]
            assert content_of(await pull(host, "a:1", "refused")) == content, "whoever asks again has it"

    run(main())


def test_a_campaign_that_cannot_be_noted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, disk(1, 1), "a:1", tmp_path)

            def broken(*_: object) -> None:
                raise typed(error := OSError(errno.ENOSPC, "full"), "cannot write in /state") from error

            with monkeypatch.context() as patched:
                patched.setattr(founder.parts.store, "save_campaign", broken)
                patched.setattr(founder.parts.store, "delete_campaign", broken)
                with pytest.raises(ExhaustedError, match="takes no campaigns just now: ") as refused:
                    await founder.place_campaign("web", CampaignTerms("a:1", (str(host.status().node),)))
                assert kind_of(refused.value) is Kind.TEMPORARY
                assert founder.campaign("web").state.value in ("cancelling", "cancelled")

    run(main())


def test_an_order_fails_where_there_are_as_many_names_as_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(1, 1)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, content, "a:1", tmp_path)
            monkeypatch.setattr("enticed.store.names.NAMES_MAX_COUNT", 0)
            await host.place_order("order", OrderTerms("a:1"))
            failed = await until(host, "order", lambda order: order.state.value in {"failed", "ready", "paused"})
            assert failed.failure is not None
            assert (failed.state.value, failed.failure.value) == ("failed", "no_space")
            assert "more than 0 names" in failed.reason

    run(main())


def test_one_descriptor_too_few_is_no_reason_never_to_dial_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(1, 4)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, content, "a:1", tmp_path)
            refused = list[int]()

            class Socket(socket.socket):
                def __init__(self, *arguments: Any, **more: Any) -> None:
                    if not refused:
                        refused.append(errno.EMFILE)
                        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                    super().__init__(*arguments, **more)

            monkeypatch.setattr("enticed.transfer.tls.socket.socket", Socket)
            ready = await pull(host, "a:1")
            assert refused
            assert content_of(ready) == content

    run(main())


@pytest.mark.parametrize(
    ("where", "trouble"),
    [
        ("enticed.store.files.PosixFiles.free_bytes", DiskError("cannot look at the file system: Stale file handle")),
        ("enticed.engine.engine.resident_bytes", OSError(errno.EMFILE, os.strerror(errno.EMFILE))),
    ],
)
def test_whatever_cannot_be_looked_at_leaves_the_watchdog_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, trouble: Exception
) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (host,):

            def fail(*_: object) -> int:
                raise trouble

            monkeypatch.setattr(where, fail)
            fed = asyncio.Event()

            class TwiceFed(Notifier):
                times = 0

                @property
                def watchdog_interval_s(self) -> float:
                    return 0.001

                def alive(self) -> None:
                    self.times += 1
                    if self.times == 2:
                        fed.set()

            feeding = asyncio.ensure_future(_feed_watchdog(TwiceFed(None), host))
            await fed.wait()
            feeding.cancel()

    run(main())
