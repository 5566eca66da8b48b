"""Whose fault it is that a request brings nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enticed.core import events as ev
from enticed.core.vocabulary import Fault
from enticed.engine.port import OrderTerms
from enticed.engine.supply.purchasing import fault_of
from enticed.landing import LandingError
from enticed.origin.errors import OriginLostError
from enticed.transfer.errors import PeerLostError, PeerSilentError
from enticed.transfer.workers import Workers
from protocol.errors import EnticedError, ExhaustedError
from tests.engine.swarm import disk, publish, run, swarm


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ExhaustedError("no thread is left"), Fault.BUSY),
        (PeerLostError("it has hung up"), Fault.LOST),
        (PeerSilentError("it is silent"), Fault.SILENT),
        (OriginLostError("it does not answer"), Fault.LOST),
        (LandingError("the disk is full"), Fault.LOCAL),
    ],
)
def test_what_this_host_has_no_more_of_is_no_fault_of_a_peers(error: EnticedError, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_a_peer_is_not_struck_for_want_of_a_thread_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "free_count", 0)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            await publish(publisher, disk(1, 1), "a:1", tmp_path)
            driver, failed = host.parts.driver, asyncio.Queue[ev.ManifestFailed]()
            tell = driver.tell

            def tell_and_note(event: ev.Event) -> None:
                tell(event)
                if isinstance(event, ev.ManifestFailed):
                    failed.put_nowait(event)

            monkeypatch.setattr(driver, "tell", tell_and_note)
            await host.place_order("order", OrderTerms("a:1"))
            why = await failed.get()
            peer = driver.host.books.peers.get(why.node)
            assert peer is not None
            assert (why.fault, peer.strikes) == (Fault.BUSY, 0)
            assert (await failed.get()).node == why.node, "it is asked again"

    run(main())
