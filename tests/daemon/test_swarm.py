"""Four hosts and a publisher, real daemons: what each of them ends up with is the original, bit for bit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from simnet.testbed import Testbed
from simnet.testbed.disks import MIB, change_bytes, make_disk, same_bytes, same_image
from tests.daemon.pulls import cluster, flip_bytes, is_one_line, is_pulled, new_disk, newest_order, pull_on_all
from tests.programs import need

pytestmark = pytest.mark.slow
DATA_MIB = 96
FIELDS = {"image_id", "name", "virtual_size_bytes", "data_bytes", "fragments", "seconds"}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    with cluster(hosts=4) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def disk(swarm: Testbed) -> Path:
    """Published as `base:1` and pulled on all four at once."""
    path = new_disk(swarm, "base.raw", DATA_MIB, seed=1)
    published = swarm.founder.json("publish", path, "base:1", "--digests")
    assert published.keys() >= FIELDS
    assert published["data_bytes"] == DATA_MIB * MIB
    results = pull_on_all(swarm.daemons[1:], "base:1")
    assert all(is_pulled(done, path) for done in results)
    return path


def test_four_hosts_pull_at_once(swarm: Testbed, disk: Path) -> None:
    orders = [newest_order(host) for host in swarm.daemons[1:]]
    for order in orders:
        assert order is not None
        sources = order["bytes_from"]
        assert (sources["peers"], sources["zero"]) == (DATA_MIB * MIB, 3 * DATA_MIB * MIB)
    sent = swarm.founder.control.get("/v1/status")["sent_bytes"]
    assert sent < 2 * DATA_MIB * MIB, "the publisher sent what the hosts could have had from each other"


def test_an_image_is_pulled_by_its_id_and_by_its_digest(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[1]
    shown = host.json("show", "base:1")
    by_id = host.json("pull", shown["image_id"])
    by_digest = host.json("pull", f"sha512:{shown['digests']['raw_sha512']}")
    assert by_id.keys() == FIELDS | {"bytes_from", "path"}
    assert (by_id["image_id"], by_id["path"]) == (by_digest["image_id"], by_digest["path"])
    assert by_id["name"] == "base:1"


def test_a_relative_saves_what_it_shares(swarm: Testbed, disk: Path) -> None:
    changed = swarm.directory / "changed.raw"
    change_bytes(disk, changed, share=0.1)
    new_bytes = swarm.founder.json("publish", changed, "base:2", "--relative", "base:1")["new_bytes"]
    assert 0 < new_bytes < DATA_MIB * MIB // 4

    plan = swarm.daemons[1].json("plan", "base:2")
    assert plan["missing_bytes"] == 0
    assert plan["bytes_from"]["peers"] <= 1.1 * new_bytes
    assert sum(plan["bytes_from"].values()) == plan["virtual_size_bytes"]

    for done in pull_on_all(swarm.daemons[1:], "base:2"):
        assert is_pulled(done, changed)
        sources = done.json["bytes_from"]
        assert sources["peers"] <= 1.1 * new_bytes
        assert sources["relatives"] + sources["peers"] == done.json["data_bytes"]


def test_the_publisher_is_killed_after_one_copy(swarm: Testbed) -> None:
    disk = new_disk(swarm, "orphan.raw", 2 * DATA_MIB, seed=2)
    swarm.founder.json("publish", disk, "orphan:1")
    hosts = swarm.daemons[1:]

    def kill_once_spread() -> None:
        while not any(_is_spread(newest_order(host)) for host in hosts):
            pass  # each look is a request that the daemon answers
        swarm.founder.kill()

    results = pull_on_all(hosts, "orphan:1", kill_once_spread)
    swarm.founder.start()
    assert all(is_pulled(done, disk) for done in results)


def _is_spread(order: dict[str, object] | None) -> bool:
    if order is None or order["image"] != "orphan:1":
        return False
    copies = order["copies"]
    return order["state"] == "ready" or (isinstance(copies, int) and copies >= 2)


def test_a_third_of_the_hosts_go_and_the_others_find_all_the_same(swarm: Testbed, disk: Path) -> None:
    gone, host = swarm.daemons[3:], swarm.daemons[1]
    host.must("rm", "base:1")
    for one in gone:
        one.kill()
    pulled = host.json("pull", "base:1", "--deadline", "30")
    for one in gone:
        one.start()
    assert same_bytes(disk, Path(pulled["path"]))


def test_qcow2_in_and_qcow2_out(swarm: Testbed) -> None:
    need("mkfs.ext4")
    qemu_img = need("qemu-img")
    raw, source = swarm.directory / "guest.raw", swarm.directory / "guest.qcow2"
    make_disk(raw, 96 * MIB, 24 * MIB)
    subprocess.run([qemu_img, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, source], check=True)
    published = swarm.founder.json("publish", source, "guest:1")
    assert published["virtual_size_bytes"] == 96 * MIB

    host = swarm.daemons[2]
    as_qcow2, as_raw = swarm.directory / "out.qcow2", swarm.directory / "out.raw"
    pulled = host.json("pull", "guest:1", "--output", as_qcow2, "--format", "qcow2")
    assert pulled["path"] == str(as_qcow2)
    assert as_qcow2.read_bytes()[:4] == b"QFI\xfb"
    assert same_image(source, as_qcow2)
    host.json("pull", "guest:1", "--output", as_raw)
    assert same_bytes(raw, as_raw)


def test_what_is_leased_is_not_removed(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[4]
    host.control.place_order("lease", "base:1")
    refused = host.entice("rm", "base:1")
    assert refused.exit_code == 1
    assert is_one_line(refused)
    assert "lease" in refused.stderr
    host.control.delete("/v1/orders/lease")
    host.must("rm", "base:1")
    assert host.entice("show", "base:1").exit_code == 4


def test_rot_is_found_withdrawn_and_mended(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[1]
    path = Path(host.json("pull", "base:1")["path"])
    assert host.entice("verify", "base:1").exit_code == 0
    assert flip_bytes(path, 0, path.stat().st_size // 8) > 0

    found = host.entice("verify", "base:1")
    assert found.exit_code == 5
    assert re.fullmatch(r"entice: base:1: \d+ of \d+ pieces are wrong: [\d, ]+\n", found.stderr)

    # Nobody has to ask for it again.
    image = host.json("show", "base:1")["image_id"]
    mended = host.control.wait_for_order(f"heal-{image}")
    assert mended["state"] == "ready", mended["reason"]
    sources = mended["bytes_from"]
    assert sources["on_hand"] > sources["relatives"] + sources["peers"] > 0, "only what was wrong is fetched again"
    assert same_bytes(disk, Path(mended["path"]))


def test_orders_survive_a_restart(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[2]
    host.control.place_order("kept", "base:1", keep_s=3600)
    before = host.control.wait_for_order("kept", "ready")
    assert host.stop() == 0
    host.start()
    after = host.control.wait_for_order("kept", "ready")
    assert {**after, "bytes_from": None} == {**before, "bytes_from": None}
    host.control.delete("/v1/orders/kept")


def test_an_order_is_cancelled_and_its_image_may_go(swarm: Testbed) -> None:
    host = swarm.daemons[1]
    swarm.founder.json("publish", new_disk(swarm, "small.raw", 1, seed=3), "small:1")
    host.control.place_order("vm-1", "small:1", keep_s=3600)
    host.control.wait_for_order("vm-1", "ready")
    kept = host.entice("rm", "small:1")
    assert (kept.exit_code, "cancel it first (entice cancel vm-1)" in kept.stderr) == (1, True), kept
    assert host.must("cancel", "vm-1") == "the order vm-1 for small:1 is cancelled\n"
    assert host.json("cancel", "vm-1")["state"] == "cancelled", "once more is no error"
    host.must("rm", "small:1")
    unknown = host.entice("cancel", "vm-2")
    assert (unknown.exit_code, is_one_line(unknown)) == (4, True), unknown
