"""Campaigns over the control API: placed, followed, cancelled, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from enticed.limits import CAMPAIGN_HOSTS_MAX_COUNT, REMOTE_LEASE_MAX_S
from protocol.identifiers import NodeId
from protocol.limits import REMOTE_KEY_MAX_CHARS
from tests.control.running import Running, serve

PATH = "/v1/campaigns/c"
TERMS: dict[str, Any] = {"image": "web:1", "hosts": ["h1", "h2", "h3"], "deadline_s": 60}


def test_a_campaign_is_placed_followed_and_cancelled(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.hold = {"h2"}
        status, campaign = await control.ask("PUT", PATH, TERMS)
        assert (status, campaign["state"], campaign["hosts_ready"], campaign["hosts_total"]) == (200, "running", 2, 3)
        assert campaign["promise"] == "on_time"
        states = {host["host"]: (host["state"], host["percent"]) for host in campaign["hosts"]}
        assert states == {"h1": ("ready", 100.0), "h2": ("fetching", 50.0), "h3": ("ready", 100.0)}

        waiting = asyncio.create_task(control.ask("GET", f"{PATH}?after={campaign['revision']}&wait_s=20"))
        await asyncio.sleep(0)
        control.engine.release("c", "h2")
        status, newer = await waiting
        assert (status, newer["state"], newer["hosts_ready"]) == (200, "ready", 3)
        assert newer["revision"] > campaign["revision"]
        status, same = await control.ask("GET", f"{PATH}?after={newer['revision']}&wait_s=0.01")
        assert same == newer

        _, listed = await control.ask("GET", "/v1/campaigns")
        assert [(one["key"], one["state"], "hosts" in one) for one in listed["campaigns"]] == [("c", "ready", False)]
        status, cancelled = await control.ask("DELETE", PATH)
        assert (status, cancelled["state"]) == (200, "cancelled")

    serve(tmp_path, test)


def test_who_waits_for_news_is_answered_when_the_server_ends(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.hold = {"h2"}
        _, campaign = await control.ask("PUT", PATH, TERMS)
        waiting = asyncio.create_task(control.ask("GET", f"{PATH}?after={campaign['revision']}&wait_s=30"))
        assert await asyncio.to_thread(control.engine.awaited.wait, 10)
        async with asyncio.timeout(2):
            await control.server.close()
            assert await waiting == (200, campaign), "as it is: whoever wants to know more asks again"

    serve(tmp_path, test)


def test_by_labels(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        status, campaign = await control.ask("PUT", PATH, {"image": "web:1", "labels": {"zone": "a"}})
        assert (status, campaign["hosts_total"], campaign["labels"]) == (200, 5, {"zone": "a"})

    serve(tmp_path, test)


def test_a_long_list_of_hosts(tmp_path: Path) -> None:
    """Longer than what bodies may be elsewhere."""

    async def test(control: Running) -> None:
        hosts = [str(NodeId(number.to_bytes(20, "big"))) for number in range(CAMPAIGN_HOSTS_MAX_COUNT)]
        status, campaign = await control.ask("PUT", PATH, {"image": "web:1", "hosts": ["h1", *hosts[1:]]})
        assert (status, campaign["hosts_total"]) == (200, CAMPAIGN_HOSTS_MAX_COUNT)
        status, problem = await control.ask("PUT", PATH, {"image": "web:1", "hosts": ["h1", *hosts]})
        assert (status, problem["kind"]) == (400, "usage")

    serve(tmp_path, test)


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("PUT", PATH, {**TERMS, "image": "nowhere:1"}, 404, "no name 'nowhere:1'"),
    ("PUT", PATH, {**TERMS, "hosts": ["nobody"]}, 404, "no host called nobody"),
    ("PUT", PATH, {"image": "web:1", "labels": {"zone": "b"}}, 404, "no host has the labels"),
    ("PUT", PATH, {**TERMS, "hosts": []}, 400, "a campaign of no hosts"),
    ("PUT", PATH, {"image": "web:1", "labels": {}}, 400, "a campaign of no hosts"),
    ("PUT", PATH, {"image": "web:1"}, 400, "hosts or labels"),
    ("PUT", PATH, {**TERMS, "labels": {"zone": "a"}}, 400, "not both"),
    ("PUT", PATH, {**TERMS, "hosts": ["no host"]}, 400, "neither the id nor the name"),
    ("PUT", PATH, {**TERMS, "hosts": "h1"}, 400, "hosts is a list"),
    ("PUT", PATH, {"image": "web:1", "labels": {"Zone": "a"}}, 400, "labels: a label's key"),
    ("PUT", PATH, {"image": "web:1", "labels": {"zone": 1}}, 400, "labels is an object"),
    ("PUT", PATH, {**TERMS, "deadline_s": 0}, 400, "in the past"),
    ("PUT", PATH, {**TERMS, "deadline_s": -1}, 400, "in the past"),
    ("PUT", PATH, {**TERMS, "at_most_at_once": 0}, 400, "at_most_at_once is a number"),
    ("PUT", PATH, {**TERMS, "keep_s": REMOTE_LEASE_MAX_S + 1}, 400, "keep_s is at most"),
    ("PUT", PATH, {**TERMS, "priority": "boot"}, 400, "no field is called 'priority'"),
    ("PUT", f"/v1/campaigns/{'k' * (REMOTE_KEY_MAX_CHARS + 1)}", TERMS, 400, "a campaign's key"),
    ("GET", PATH, None, 404, "there is no campaign"),
    ("GET", f"{PATH}?after=1", None, 404, "there is no campaign"),
    ("GET", f"{PATH}?after=x", None, 404, "there is no campaign"),
    ("GET", f"{PATH}?after=1&wait_s=x", None, 400, "wait_s is seconds"),
    ("GET", f"{PATH}?after=1&wait_s=nan", None, 400, "wait_s is seconds"),
    ("GET", f"{PATH}?after=1&wait_s=99", None, 400, "wait_s is seconds"),
    ("DELETE", PATH, None, 404, "there is no campaign"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), REFUSED)
def test_what_is_refused(tmp_path: Path, method: str, path: str, body: Any, status: int, says: str) -> None:
    async def test(control: Running) -> None:
        answered, problem = await control.ask(method, path, body)
        assert (answered, says in problem["detail"]) == (status, True), problem
        assert (await control.ask("GET", "/v1/campaigns"))[1] == {"campaigns": []}

    serve(tmp_path, test)
