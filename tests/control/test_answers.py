"""What programs rely on in answers: the fields on record stay as they are, and what is told is what the schema says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enticed.control.answers import json_of
from enticed.control.schemas import RECORDS
from enticed.core.campaigns.campaign import Campaign, Placement, Run, Stage
from enticed.core.orders import Failure, OrderState, Priority, Promise
from enticed.engine.campaigns.views import campaign_view
from enticed.engine.port import BytesFrom, Grant, ImageView, OrderView, PlanView, RecallReport, RecallView, Receipt, Why
from enticed.engine.retention.port import FloorView, GoingView, RoomView
from protocol.identifiers import ImageId, NodeId, PublisherKey
from protocol.labels import HostLabel
from protocol.statement import Relative
from tests.control.engine import MemoryEngine

ON_RECORD = Path(__file__).with_name("answers.json")
IMAGE, OTHER = ImageId(b"i" * 32), ImageId(b"o" * 32)
ORDER = OrderView(
    key="vm-17",
    target="debian:12",
    image=IMAGE,
    state=OrderState.PAUSED,
    failure=Failure.NO_SPACE,
    reason="the disk is full",
    priority=Priority.BOOT,
    created_at=1.5,
    due_at=None,
    keep_until=None,
    ready_at=None,
    late=False,
    percent=12.5,
    virtual_size_bytes=4096,
    data_bytes=2048,
    done_bytes=256,
    fragments=3,
    bytes_from=BytesFrom(zero=2048, peers=256),
    bytes_per_s=0.0,
    estimate_s=None,
    path=None,
    promise=Promise.LATE,
    owner="scheduler nova",
)
VIEW = ImageView(
    image=IMAGE,
    names=("debian:12", "debian:latest"),
    virtual_size_bytes=4096,
    data_bytes=2048,
    fragments=3,
    pieces=1,
    pieces_held=1,
    ready=True,
    leased=False,
    created_at=1.5,
    source_format="qcow2",
    relatives=(Relative(OTHER, 1024),),
    digests={"raw_sha256": "00"},
    recalled=RecallView(PublisherKey(b"p" * 32), "broken", 3.0),
    last_used_at=2.5,
    pinned=True,
)


def answers() -> dict[str, dict[str, Any]]:
    """The fields of every record that is told, as the document has them."""
    told = {name: one for name, one in RECORDS.items() if "additionalProperties" not in one}
    return {name: one["properties"] for name, one in sorted(told.items())}


def test_the_fields_on_record_are_those_that_are_told() -> None:
    """Programs rely on them. A new one is added to the file; none is renamed, retyped or taken away."""
    assert answers() == json.loads(ON_RECORD.read_text())


def test_all_that_is_told_is_required() -> None:
    assert all(set(RECORDS[name]["required"]) == set(properties) for name, properties in answers().items())


def test_an_order_is_told_as_ever() -> None:
    assert json_of(ORDER) == {
        "key": "vm-17",
        "image": "debian:12",
        "image_id": "69" * 32,
        "state": "paused",
        "failure": "no_space",
        "reason": "the disk is full",
        "priority": "boot",
        "created_at": 1.5,
        "due_at": None,
        "keep_until": None,
        "ready_at": None,
        "late": False,
        "percent": 12.5,
        "virtual_size_bytes": 4096,
        "data_bytes": 2048,
        "done_bytes": 256,
        "fragments": 3,
        "bytes_from": {"zero": 2048, "on_hand": 0, "relatives": 0, "peers": 256, "origin": 0},
        "bytes_per_s": 0.0,
        "estimate_s": None,
        "path": None,
        "copies": None,
        "promise": "late",
        "owner": "scheduler nova",
    }


def test_an_image_is_told_as_ever() -> None:
    assert json_of(VIEW) == {
        "image_id": "69" * 32,
        "names": ["debian:12", "debian:latest"],
        "virtual_size_bytes": 4096,
        "data_bytes": 2048,
        "fragments": 3,
        "pieces": 1,
        "pieces_held": 1,
        "ready": True,
        "leased": False,
        "created_at": 1.5,
        "source_format": "qcow2",
        "relatives": [{"image_id": "6f" * 32, "shared_bytes": 1024}],
        "digests": {"raw_sha256": "00"},
        "private": False,
        "recalled": {"by": "70" * 32, "reason": "broken", "at": 3.0},
        "last_used_at": 2.5,
        "pinned": True,
        "pinned_until": None,
        "replicas": 0,
    }


def test_a_campaign_is_told_as_ever() -> None:
    """Of one in a list, the hosts are left out: there may be thousands."""
    node, label = NodeId(b"n" * 20), HostLabel("zone", "east")
    hosts = ("a", None), (node.hex(), node)
    campaign = Campaign("spread", "debian:12", IMAGE, 1.5, hosts, None, 60.0, (label,), is_complete=False)
    run = Run(campaign, 1.5)
    run.put(Placement("a", None, Stage.FAILED, None, Failure.BUSY, reason="no answer"))
    run.put(Placement("b", node, Stage.ORDERED, OrderState.FETCHING, None, 12.5, Promise.LATE, 3.0))
    told = json_of(view := campaign_view(run, {node: "host-b"}))
    assert told == json_of(view, without="hosts") | {
        "hosts": [
            {
                "host": "a",
                "name": "",
                "node_id": None,
                "state": "failed",
                "failure": "busy",
                "percent": 0.0,
                "promise": None,
                "estimate_s": None,
                "reason": "no answer",
            },
            {
                "host": "b",
                "name": "host-b",
                "node_id": "6e" * 20,
                "state": "fetching",
                "failure": None,
                "percent": 12.5,
                "promise": "late",
                "estimate_s": 3.0,
                "reason": "",
            },
        ]
    }
    assert json_of(view, without="hosts") == {
        "key": "spread",
        "image": "debian:12",
        "image_id": "69" * 32,
        "owner": "",
        "state": "running",
        "created_at": 1.5,
        "due_at": None,
        "keep_s": 60.0,
        "at_most_at_once": None,
        "labels": {"zone": "east"},
        "complete": False,
        "promise": "late",
        "hosts_ready": 0,
        "hosts_total": 2,
        "revision": 2,
    }
    assert set(told) == set(answers()["CampaignWithHosts"])


def test_a_plan_is_told_as_ever() -> None:
    going = GoingView(OTHER, ("old:1",), 4096)
    room = RoomView(True, 2048, 1024, (going,))
    shares = {"rack": 256, "zone": 0, "far": 0}
    plan = PlanView("debian:12", IMAGE, 4096, 2048, BytesFrom(zero=2048, peers=256), shares, 0, 0, None, 2, room)
    assert json_of(plan) == {
        "image": "debian:12",
        "image_id": "69" * 32,
        "virtual_size_bytes": 4096,
        "data_bytes": 2048,
        "bytes_from": {"zero": 2048, "on_hand": 0, "relatives": 0, "peers": 256, "origin": 0},
        "peers": {"rack": 256, "zone": 0, "far": 0},
        "missing_bytes": 0,
        "missing_pieces": 0,
        "estimate_s": None,
        "providers": 2,
        "room": {
            "fits": True,
            "needed_bytes": 2048,
            "short_bytes": 1024,
            "goes": [{"image_id": "6f" * 32, "names": ["old:1"], "size_bytes": 4096}],
            "trouble": None,
        },
    }


def test_a_recall_a_reason_a_floor_and_a_grant_are_told_as_ever() -> None:
    node, key = NodeId(b"n" * 20), PublisherKey(b"p" * 32)
    held = Receipt(node, ("10.0.0.1:7400",), whole=True)
    assert json_of(RecallReport(IMAGE, RecallView(key, "broken", 3.0), (held,), 2)) == {
        "image_id": "69" * 32,
        "recalled": {"by": "70" * 32, "reason": "broken", "at": 3.0},
        "holders": [{"id": "6e" * 20, "addresses": ["10.0.0.1:7400"], "whole": True}],
        "estimated_others": 2,
    }
    assert json_of(Why("vm-17", "debian:12", None, OrderState.FAILED, "nobody knows it")) == {
        "key": "vm-17",
        "image": "debian:12",
        "image_id": None,
        "state": "failed",
        "why": "nobody knows it",
    }
    assert json_of(FloorView(IMAGE, 3, key, 1.5, None, held_here=True)) == {
        "image_id": "69" * 32,
        "replicas": 3,
        "by": "70" * 32,
        "at": 1.5,
        "other_holders": None,
        "held_here": True,
    }
    assert json_of(Grant(b"certificate", b"authority", node, 1.5, ("10.0.0.1:7401",))) == {
        "certificate": "Y2VydGlmaWNhdGU=",
        "authority": "YXV0aG9yaXR5",
        "id": "6e" * 20,
        "expires_at": 1.5,
        "api": ["10.0.0.1:7401"],
    }


def test_what_is_told_is_what_the_schema_has(tmp_path: Path) -> None:
    engine = MemoryEngine(tmp_path)
    (peer,) = engine.peers()
    told = {
        "Order": json_of(ORDER),
        "Image": json_of(VIEW),
        "Peer": json_of(peer),
        "Status": json_of(engine.status()) | {"may_change": True},
    }
    assert {name: set(one) for name, one in told.items()} == {name: set(answers()[name]) for name in told}
