"""What `entice doctor` finds, on real daemons: nothing where all is well, and each thing that is made wrong."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from enticed.config_sources import Sources
from enticed.core import events as ev
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from enticed.limits import SCRUB_PERIOD_S
from enticed.operating import health
from enticed.operating.diagnosis import Area, Finding, Verdict, diagnose
from enticed.operating.live_settings import LiveSettings
from protocol.identifiers import DiscoveryKey
from tests.engine.swarm import disk, publish, pull, run, swarm, until
from tests.engine.test_scrub import overwrite


def settings_of(engine: DaemonEngine) -> LiveSettings:
    """As if it had been started with what its files say."""
    sources = Sources(engine.parts.identity.directory.parent)
    return LiveSettings(sources.load(), sources)


async def found(engine: DaemonEngine, name: str) -> Finding:
    """What is said about it, in one line, with what helps."""
    (finding,) = [one for one in await diagnose(engine, engine.parts, settings_of(engine)) if one.name == name]
    assert finding.said
    assert "\n" not in finding.said
    assert finding.to_do or finding.verdict is Verdict.GOOD
    return finding


async def bad(engine: DaemonEngine) -> set[str]:
    return {
        one.name for one in await diagnose(engine, engine.parts, settings_of(engine)) if one.verdict is not Verdict.GOOD
    }


def test_nothing_is_wrong_with_what_is_well(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, disk(1, 4), "a:1", tmp_path)
            await pull(host, "a:1")
            assert await bad(founder) == await bad(host) == set()
            assert {one.area for one in await diagnose(host, host.parts, settings_of(host))} == set(Area)

    run(main())


def test_files_with_which_the_daemon_would_not_start_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            settings, file = settings_of(engine), engine.parts.identity.directory.parent / "enticed.toml"

            async def said() -> tuple[Verdict, str]:
                found = await diagnose(engine, engine.parts, settings)
                (finding,) = [one for one in found if one.name == "settings"]
                return finding.verdict, finding.said

            assert (await said())[0] is Verdict.GOOD
            file.write_text("log_level = 'debug'\n")
            verdict, line = await said()
            assert (verdict, "log_level" in line) == (Verdict.HINT, True)
            file.write_text("[log\n")
            verdict, line = await said()
            assert (verdict, "would not start again" in line) == (Verdict.WRONG, True)

    run(main())


def test_a_store_that_cannot_be_written_to_and_orders_that_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            await publish(engine, disk(1, 4), "a:1", tmp_path)
            engine.parts.driver.tell(ev.StoreTroubled("Read-only file system"))
            assert (await found(engine, "store")).verdict is Verdict.WRONG
            assert "Read-only file system" in (await found(engine, "store")).said

    run(main())


def test_orders_that_failed_and_an_image_that_cannot_be_healed(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            await publish(engine, disk(1, 4), "a:1", tmp_path)
            await engine.place_order("lost", OrderTerms("ab" * 32))
            await until(engine, "lost", lambda order: order.state.value == "failed")
            finding = await found(engine, "failed_orders")
            assert finding.said.startswith("1 have failed, the latest: no host that could be reached has image")
            assert finding.to_do == "entice why lost"
            (stored,) = engine.parts.store.images()
            overwrite(stored.path, 5, b"rot")
            await engine.verify("a:1", lambda done, total: None)
            await until(engine, f"heal-{stored.image}", lambda order: order.state.value == "failed")
            assert (await found(engine, "unhealed")).verdict is Verdict.WRONG
            assert (await found(engine, "rot")).verdict is Verdict.HINT

    run(main())


def test_a_failure_that_a_later_order_has_made_good_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            for key, name in (("early", "a:1"), ("other", "b:1")):
                await engine.place_order(key, OrderTerms(name))
                await until(engine, key, lambda order: order.state.value == "failed")
            finding = await found(engine, "failed_orders")
            assert (finding.said[:14], finding.to_do) == (
                "2 have failed,",
                "entice why other; all: entice orders --state failed",
            )
            await publish(engine, disk(1, 4), "a:1", tmp_path)
            await engine.place_order("late", OrderTerms("a:1"))
            await until(engine, "late", lambda order: order.state.value == "ready")
            finding = await found(engine, "failed_orders")
            assert (finding.said[:14], finding.to_do) == ("1 have failed,", "entice why other")

    run(main())


def test_disks_of_guests_that_are_not_seen(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            file, guests = engine.parts.identity.directory.parent / "enticed.toml", tmp_path / "guests"
            assert "guests" not in {one.name for one in await diagnose(engine, engine.parts, settings_of(engine))}
            file.write_text(f"[store]\nguest_directories = ['{guests}']\n")
            assert (await found(engine, "guests")).verdict is Verdict.WRONG
            assert f"{guests} (No such file or directory)" in (await found(engine, "guests")).said
            guests.mkdir()
            assert (await found(engine, "guests")).verdict is Verdict.GOOD
            qcow2 = b"QFI\xfb" + bytes([0, 0, 0, 3]) + (104).to_bytes(8, "big") + (4).to_bytes(4, "big")
            (guests / "vm.qcow2").write_bytes(qcow2.ljust(104, b"\0") + b"gone")
            said = f"1 of their files are not seen: {guests}/vm.qcow2 (No such file or"
            assert said in (await found(engine, "guests")).said

    run(main())


def test_a_clock_that_was_set_and_a_store_that_was_not_read_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            await publish(engine, disk(1, 4), "a:1", tmp_path)
            for step_s in (86400.0, -86400.0, 3653 * 86400.0):
                now = time.time() + step_s
                with monkeypatch.context() as patched:
                    patched.setattr("enticed.operating.diagnosis.time.time", lambda now=now: now)
                    assert f"{step_s:+.0f} s" in (await found(engine, "clock")).said
            engine.started_at -= SCRUB_PERIOD_S + 60
            assert (await found(engine, "scrub")).verdict is Verdict.HINT

    run(main())


def test_a_certificate_that_expires_soon(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            soon = engine.parts.identity.credential.not_after - 5 * 86400.0
            later = DaemonEngine(replace(engine.parts, clock=lambda: soon))
            expires = await found(later, "certificate_expires")
            assert "only 5 days" in expires.said
            assert "entice trust renew" in expires.to_do, "it is the founding host"

    run(main())


def test_hosts_that_answer_over_udp_and_take_no_connections(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            (engine,) = await stack.enter_async_context(swarm(tmp_path, 1))
            with closing(socket.create_server(("127.0.0.1", 0))) as listening:
                reached = f"127.0.0.1:{listening.getsockname()[1]}"
                with closing(socket.create_server(("127.0.0.1", 0))) as closed:
                    silent = f"127.0.0.1:{closed.getsockname()[1]}"
                await asyncio.to_thread(engine.parts.store.remember_addresses, (reached, silent))
                tcp = await found(engine, "tcp")
                assert (tcp.verdict, silent in tcp.said) == (Verdict.HINT, True)
                assert "1 of 2 hosts" in tcp.said
            assert (await found(engine, "tcp")).verdict is Verdict.WRONG, "none of them now"
            await asyncio.to_thread(engine.parts.store.remember_addresses, ("192.0.2.1:7400",))
            assert (await found(engine, "advertise")).verdict is Verdict.WRONG, "its own is of this host alone"

    run(main())


def test_a_host_that_was_revoked_says_so_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, disk(1, 4), "a:1", tmp_path)
            await pull(host, "a:1")  # they have a session, over which it hears of it
            heard = asyncio.Event()
            host.parts.identity.watch(heard.set)
            await founder.parts.trust.revoke(host.parts.identity.node.hex())
            await heard.wait()
            assert (await found(host, "trust")).verdict is Verdict.WRONG
            assert "trust" not in await bad(founder)
            assert [check.name for check in health.checks(host.parts) if not check.is_ok][:1] == ["trust"]
            assert "move STATE/identity away" in (await found(host, "trust")).to_do

    run(main())


def test_a_host_that_was_revoked_and_has_not_heard_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            said = f"host {founder.status().node.short} says that this host was revoked"
            await host.parts.overlay.ready()
            await founder.parts.trust.revoke(host.status().node.hex())
            await host.parts.network.greet(founder.status().listen[0])
            assert (await found(host, "trust")).verdict is Verdict.GOOD, "another answers, as far as is known"
            assert (await found(host, "disowned")).said == said
            assert "that host lies" in (await found(host, "disowned")).to_do
            while host.parts.overlay.contacts:
                await host.parts.overlay.find(DiscoveryKey.of_name("never:1"))
            trust = await found(host, "trust")
            assert (trust.verdict, said in trust.said, "that host lies" in trust.to_do) == (Verdict.WRONG, True, True)
            assert "disowned" not in await bad(host), "it is said once"

    run(main())
