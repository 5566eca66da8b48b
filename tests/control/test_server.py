"""The API as a client sees it: shapes, errors, orders, work with progress."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from enticed.control.schemas import RECORDS
from enticed.core.orders import Failure
from enticed.problems import CONTENT_TYPE, STATUS
from protocol.errors import CorruptError
from tests.control.engine import Goods
from tests.control.running import Running, hand_over, serve

DATA = os.urandom(3 * 4096) + bytes(5 * 4096)


def fields(record: str) -> set[str]:
    """What the API's document says is in a record."""
    return set(RECORDS[record]["properties"])


def image_file(directory: Path, data: bytes = DATA) -> int:
    path = directory / "disk.raw"
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


async def publish(control: Running, directory: Path, name: str = "ubuntu:24.04", **more: Any) -> list[dict[str, Any]]:
    fd = image_file(directory)
    try:
        return await control.lines("/v1/images", {"ticket": await control.give(fd), "name": name, **more})
    finally:
        os.close(fd)


def test_publishes_lists_shows_and_removes(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        *progress, last = await publish(control, tmp_path)
        assert {"progress": {"done_bytes": len(DATA), "total_bytes": len(DATA)}} in progress
        result = last["result"]
        assert set(result) == {
            "image_id", "name", "name_version", "virtual_size_bytes", "data_bytes", "fragments", "new_bytes", "seconds",
            "signatures_needed",
        }  # fmt: skip
        assert (result["name"], result["virtual_size_bytes"], result["data_bytes"]) == (
            "ubuntu:24.04",
            len(DATA),
            12288,
        )

        status, listed = await control.ask("GET", "/v1/images")
        assert status == 200
        assert set(listed["images"][0]) == fields("Image")
        for target in ("ubuntu%3A24.04", result["image_id"], result["image_id"].upper()):
            assert await control.ask("GET", f"/v1/images/{target}") == (200, listed["images"][0])

        assert await control.ask("DELETE", "/v1/images/ubuntu%3A24.04") == (200, listed["images"][0])
        assert await control.ask("GET", "/v1/images") == (200, {"images": []})

    serve(tmp_path, test)


def test_what_is_published_is_what_was_handed_over(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        (*_, last) = await publish(
            control,
            tmp_path,
            source_format="qcow2",
            relatives=["ubuntu:22.04"],
            digests=True,
            source_sha256="ab" * 32,
            source_sha512="cd" * 64,
        )
        assert last["error"]["kind"] == "not_found"  # the relative is unknown
        what = control.engine.published[0]
        assert (what.virtual_size_bytes, what.source_format, what.relatives) == (len(DATA), "qcow2", ("ubuntu:22.04",))
        assert (what.digests, what.source_sha256, what.source_sha512) == (True, b"\xab" * 32, b"\xcd" * 64)
        with pytest.raises(OSError):
            os.fstat(what.fd)

    serve(tmp_path, test)


def test_a_name_with_slashes_is_one_part_of_the_path(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        await publish(control, tmp_path, "team/web/app:v1.2")
        quoted = quote("team/web/app:v1.2", safe="")
        status, image = await control.ask("GET", f"/v1/images/{quoted}")
        assert (status, image["names"]) == (200, ["team/web/app:v1.2"])
        (last,) = [line for line in await control.lines(f"/v1/images/{quoted}/verify") if "result" in line]
        assert last["result"] == {"image_id": image["image_id"], "pieces": 1, "wrong_pieces": [], "missing_pieces": []}

    serve(tmp_path, test)


def test_publishing_without_room_says_so(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.room_bytes = 1
        (error,) = await publish(control, tmp_path)
        assert error["error"]["kind"] == "no_space"

    serve(tmp_path, test)


def test_publishing_ends_when_its_client_goes_away(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.may_publish.clear()
        asking = asyncio.create_task(publish(control, tmp_path))
        await control.engine.publishing.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await control.session.close()
        async with asyncio.timeout(5):
            await control.engine.publishing_cancelled.wait()

    serve(tmp_path, test)


def test_verification_finds_what_is_wrong(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        await publish(control, tmp_path)
        control.engine.damage("ubuntu:24.04", 5000)
        *_, last = await control.lines("/v1/images/ubuntu:24.04/verify")
        assert last["result"]["wrong_pieces"] == [0]
        status, error = await control.ask("POST", "/v1/images/absent/verify")
        assert (status, error["kind"]) == (404, "not_found")

    serve(tmp_path, test)


def test_an_order_is_placed_followed_renewed_and_cancelled(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.shelf["web:1"] = Goods(DATA)
        asked = {"image": "web:1", "deadline_s": 60, "priority": "boot", "keep_s": 3600}
        status, order = await control.ask("PUT", "/v1/orders/vm-7", asked)
        assert (status, set(order), set(order["bytes_from"])) == (200, fields("Order"), fields("BytesFrom"))
        assert (order["key"], order["image"], order["priority"]) == ("vm-7", "web:1", "boot")
        await control.engine.ended("vm-7")

        status, ready = await control.ask("GET", "/v1/orders/vm-7")
        assert (ready["state"], Path(ready["path"]).read_bytes()) == ("ready", DATA)
        assert ready["keep_until"] == pytest.approx(ready["ready_at"] + 3600)
        status, refused = await control.ask("DELETE", "/v1/images/web:1")
        assert (status, refused["kind"]) == (409, "failed")
        assert "vm-7" in refused["detail"]

        _, renewed = await control.ask("PUT", "/v1/orders/vm-7", asked | {"keep_s": 7200})
        assert renewed["keep_until"] > ready["keep_until"] + 3000
        assert (renewed["state"], renewed["created_at"]) == ("ready", ready["created_at"])
        assert [one["key"] for one in (await control.ask("GET", "/v1/orders?state=ready"))[1]["orders"]] == ["vm-7"]
        assert (await control.ask("GET", "/v1/orders?state=failed"))[1] == {"orders": []}

        status, cancelled = await control.ask("DELETE", "/v1/orders/vm-7")
        assert (status, cancelled["state"]) == (200, "cancelled")
        assert (await control.ask("DELETE", "/v1/images/web:1"))[0] == 200
        assert (await control.ask("DELETE", "/v1/orders/other"))[0] == 404

    serve(tmp_path, test)


def test_an_order_that_failed_says_why(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.shelf["web:1"] = Goods(DATA, failure=Failure.UNAVAILABLE)
        await control.ask("PUT", "/v1/orders/a", {"image": "web:1"})
        await control.engine.ended("a")
        _, order = await control.ask("GET", "/v1/orders/a")
        assert (order["state"], order["failure"], order["priority"]) == ("failed", "unavailable", "prewarm")
        assert order["reason"] == "piece 7 is missing; asked 2 hosts"

    serve(tmp_path, test)


def test_plan_peers_status_and_token(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        control.engine.shelf["web:1"] = Goods(DATA)
        status, plan = await control.ask("GET", "/v1/plan?target=web:1")
        assert status == 200
        assert set(plan) == fields("Plan")
        _, peers = await control.ask("GET", "/v1/peers")
        assert set(peers["peers"][0]) == fields("Peer")
        _, state = await control.ask("GET", "/v1/status")
        assert (set(state), state["may_change"]) == (fields("Status"), True)
        _, token = await control.ask("POST", "/v1/tokens", {"uses": 3, "ttl_s": 60})
        assert token["token"].startswith("ENT1.")
        assert (token["uses"], token["ttl_s"]) == (3, 60)
        assert (await control.ask("POST", "/v1/tokens"))[1]["uses"] == 1
        status, error = await control.ask("POST", "/v1/tokens", {"uses": 1000})
        assert (status, error["kind"]) == (503, "temporary")
        control.engine.founder = False
        status, error = await control.ask("POST", "/v1/tokens", {})
        assert (status, error["kind"]) == (403, "denied")

    serve(tmp_path, test)


def test_the_configuration_is_shown_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "enticed.toml"
    file.write_text("log_level = 'debug'\n")

    async def test(control: Running) -> None:
        status, told = await control.ask("GET", "/v1/config")
        assert (status, told["state"], told["file"]) == (200, str(tmp_path), None)
        assert {"key": "log_level", "value": "debug", "origin": str(file)} in told["settings"]
        file.write_text("log_level = 'info'\n")
        status, reloaded = await control.ask("POST", "/v1/reload")
        changed = {"key": "log_level", "old": "debug", "new": "info", "origin": str(file)}
        assert (status, reloaded) == (200, {"applied": [], "restart": [changed]})
        file.write_text("log_level = 'loud'\n")
        status, error = await control.ask("POST", "/v1/reload")
        assert (status, error["kind"]) == (409, "failed")
        assert "everything stays as it was" in error["detail"]

    serve(tmp_path, test)


BAD_REQUESTS: list[tuple[str, str, Any, str]] = [
    ("PUT", "/v1/orders/a", {"image": "web:1", "keep": 1}, "no field is called 'keep'"),
    ("PUT", "/v1/orders/a", {}, "image is missing"),
    ("PUT", "/v1/orders/a", {"image": 5}, "image is a string"),
    ("PUT", "/v1/orders/a", {"image": "Bad Name"}, "neither a name nor an image id"),
    ("PUT", "/v1/orders/a", {"image": "web:1", "deadline_s": -1}, "deadline_s is seconds"),
    ("PUT", "/v1/orders/a", {"image": "web:1", "deadline_s": True}, "deadline_s is seconds"),
    ("PUT", "/v1/orders/a", {"image": "web:1", "deadline_s": math.nan}, "the body is not JSON: NaN is not JSON"),
    ("PUT", "/v1/orders/a", {"image": "web:1", "deadline_s": math.inf}, "the body is not JSON: Infinity is not JSON"),
    ("PUT", "/v1/orders/a", {"image": "web:1", "keep_s": "long"}, "keep_s is seconds"),
    ("PUT", "/v1/orders/a", {"image": "web:1", "priority": "now"}, "priority is one of boot, prewarm"),
    ("PUT", "/v1/orders/a%20b", {"image": "web:1"}, "an order's key"),
    ("PUT", f"/v1/orders/{'a' * 129}", {"image": "web:1"}, "an order's key"),
    ("PUT", f"/v1/orders/{'0a' * 20}:web", {"image": "web:1"}, "hosts place by themselves"),
    ("PUT", "/v1/orders/a?now=1", {"image": "web:1"}, "no parameter is called 'now'"),
    ("PUT", "/v1/orders/a", ["web:1"], "not a JSON object"),
    ("GET", "/v1/orders?state=done", None, "no state of an order"),
    ("GET", "/v1/plan", None, "target is missing"),
    ("GET", "/v1/images/no%20such", None, "neither a name"),
    ("POST", "/v1/images", {"name": "web:1"}, "ticket is missing"),
    (
        "POST",
        "/v1/images",
        {"name": "X Y", "ticket": "x"},
        "'X Y' is no name for an image: a name is like 'ubuntu:24.04'",
    ),
    ("POST", "/v1/images", {"name": "web:1", "ticket": "guess"}, "no such ticket"),
    ("POST", "/v1/images", {"name": "a" * 64, "ticket": "x"}, "not under an id or a digest"),
    ("POST", "/v1/images", {"name": "sha256:" + "a" * 64, "ticket": "x"}, "not under an id or a digest"),
    ("POST", "/v1/images", {"name": "web:1", "ticket": "x", "relatives": "a"}, "a list of at most"),
    ("POST", "/v1/images", {"name": "web:1", "ticket": "x", "source_sha256": "ab" * 32}, "come together"),
    ("POST", "/v1/images", {"name": "web:1", "ticket": "x", "digests": True, "source_sha256": "AB"}, "hex digits"),
    ("POST", "/v1/images", {"name": "web:1", "ticket": "x", "source_format": "../raw"}, "as qemu names it"),
    ("POST", "/v1/tokens", {"uses": 0}, "uses is a number from 1"),
    ("POST", "/v1/tokens", {"uses": 1, "ttl_s": 0}, "ttl_s is 1 to"),
]


def test_bad_requests_get_one_clear_line(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        for method, path, body, says in BAD_REQUESTS:
            status, answer = await control.ask(method, path, body)
            assert (status, answer["kind"]) == (400, "usage"), (path, body, answer)
            assert says in answer["detail"]
            assert "\n" not in answer["detail"]
        status, answer = await control.ask("GET", "/v1/events", headers={"Last-Event-ID": "x"})
        assert (status, answer["kind"]) == (400, "usage")

    serve(tmp_path, test)


@pytest.mark.parametrize(
    "body", [b"{", b'{"image": NaN}', b"[" * 20000, b"\xff", b'{"image": "web:1", "keep_s": 1e999}', b"1" * 5000]
)
def test_a_body_that_is_no_proper_json(tmp_path: Path, body: bytes) -> None:
    async def test(control: Running) -> None:
        async with control.session.put("http://localhost/v1/orders/a", data=body) as response:
            assert response.status == 400
            assert (await response.json(content_type=CONTENT_TYPE))["kind"] == "usage"

    serve(tmp_path, test)


def test_what_is_not_there_and_what_is_too_large(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        for method, path, body, status, kind in (
            ("GET", "/v2/status", None, 404, "not_found"),
            ("GET", "/v1/orders/none", None, 404, "not_found"),
            ("GET", "/v1/images/none", None, 404, "not_found"),
            ("GET", "/v1/plan?target=none", None, 404, "not_found"),
            ("PATCH", "/v1/status", None, 405, "usage"),
            ("PUT", "/v1/orders/a", {"image": "x" * 100_000}, 413, "usage"),
        ):
            answer = await control.ask(method, path, body)
            assert (answer[0], answer[1]["kind"]) == (status, kind)
        status, refused = await control.ask("PUT", "/v1/orders/a", {}, headers={"Expect": "tea"})
        assert (status, refused["kind"]) == (417, "usage")
        async with control.session.patch("http://localhost/v1/status") as response:
            assert response.headers["Allow"] == "GET,HEAD"

    serve(tmp_path, test)


@pytest.mark.parametrize(
    "said",
    [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / FTP\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n"],
)
def test_what_is_no_http_is_a_problem_too(tmp_path: Path, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test(control: Running) -> None:
        reader, writer = await asyncio.open_unix_connection(str(control.path))
        writer.write(said)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert re.match(rb"HTTP/1\.[01] 400 ", head)
        assert b"application/problem+json" in head
        assert json.loads(body)["kind"] == "usage"
        assert not [record for record in caplog.records if record.levelno >= logging.INFO]

    serve(tmp_path, test)


def test_each_kind_of_error_has_its_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(control: Running) -> None:
        control.engine.trouble = CorruptError("the catalogue\nis damaged\x1b[31m")
        status, answer = await control.ask("GET", "/v1/images")
        assert (status, answer) == (
            422,
            {
                "type": "urn:enticed:problem:integrity",
                "title": "Bytes or keys are not what they should be",
                "status": 422,
                "detail": "the catalogue is damaged [31m",
                "kind": "integrity",
            },
        )
        assert not caplog.records
        control.engine.trouble = ZeroDivisionError("secret detail")
        status, answer = await control.ask("GET", "/v1/images")
        assert (status, answer["kind"]) == (500, "failed")
        assert "secret" not in answer["detail"]
        assert "secret detail" in caplog.text

    serve(tmp_path, test)
    assert len(set(STATUS.values())) == len(STATUS)


def test_an_image_is_opened_for_reading_only(tmp_path: Path) -> None:
    async def test(control: Running) -> None:
        await publish(control, tmp_path)
        answer, received = await asyncio.to_thread(hand_over, control.path, {"op": "open", "image": "ubuntu:24.04"})
        assert answer == {"size_bytes": len(DATA)}
        try:
            assert os.pread(received[0], 2 * len(DATA), 0) == DATA
            with pytest.raises(OSError):
                os.pwrite(received[0], b"x", 0)
        finally:
            os.close(received[0])
        answer, received = await asyncio.to_thread(hand_over, control.path, {"op": "open", "image": "absent"})
        assert (answer["error"]["kind"], received) == ("not_found", [])

    serve(tmp_path, test)
