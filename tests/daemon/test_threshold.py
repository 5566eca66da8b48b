"""Where it takes two publishers: what one has signed is had by nobody, not even partly, until the other signs too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simnet.testbed import Daemon, Testbed
from tests.daemon.pulls import cluster, is_one_line, is_pulled, new_disk, pull_on_all
from tests.daemon.test_trust import go_by, trust, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    """The founding host publishes, the next may sign all names too, of another only some; it takes two."""
    with cluster(hosts=3) as testbed:
        for host, name, pattern in ((testbed.daemons[1], "second", "*"), (testbed.daemons[2], "team", "team:*")):
            key = host.json("trust", "key", "--state", host.state)["key"]
            testbed.founder.must("grant", "publisher", name, "--names", pattern, "--key", key)
            host.stop()
            host.start()
        refused = testbed.founder.entice("trust", "threshold", "4")
        assert (refused.exit_code, is_one_line(refused)) == (1, True)
        testbed.founder.must("trust", "threshold", "2")
        wait_until(go_by(testbed.daemons, trust(testbed.founder)["serial"]))
        yield testbed


def has_nothing(host: Daemon) -> bool:
    status = host.control.get("/v1/status")
    return (status["images"], status["used_bytes"], status["received_bytes"]) == (0, 0, 0)


def test_an_image_signed_by_one_is_fetched_by_nobody_until_another_signs(swarm: Testbed) -> None:
    founder, second, team, other = swarm.daemons
    disk = new_disk(swarm, "base.raw", 4, seed=21)
    published = founder.json("publish", disk, "base:1", "--digests")
    image = published["image_id"]
    assert published["signatures_needed"] == 2
    denied = other.entice("pull", image, "--deadline", "5")
    assert (denied.exit_code, "not 2 trusted publishers" in denied.stderr) == (6, True)
    assert other.entice("pull", "base:1").exit_code == 4
    assert founder.entice("plan", "base:1").exit_code == 4
    assert has_nothing(other)

    looked = second.json("sign", "base:1", "--look")
    assert (looked["image_id"], looked["signed_by"], looked["needed"]) == (image, ["founder"], 2)
    assert len(looked["names"]) == 3
    wrong = second.entice("sign", "base:1", "--expect", "0" * 64)
    assert (wrong.exit_code, is_one_line(wrong)) == (1, True)
    not_its_name = team.entice("sign", "base:1")
    assert (not_its_name.exit_code, "team:*" in not_its_name.stderr) == (6, True)
    assert other.entice("pull", "base:1").exit_code == 4

    signed = second.json("sign", "base:1", "--expect", image)
    assert (signed["signed_by"], signed["told"]) == (["founder", "second"], 1)
    assert all(one["signed_by"] == ["founder", "second"] for one in signed["names"])
    assert all(is_pulled(done, disk) for done in pull_on_all([second, team], "base:1"))
    assert is_pulled(pull_on_all([other], f"sha512:{_sha512(other, image)}")[0], disk)
    assert second.json("show", image)["digests"]


def _sha512(host: Daemon, image: str) -> str:
    """By the statement, of the founding host's daemon or any other that has it."""
    return str(host.json("pull", image)["image_id"]) and str(host.json("show", image)["digests"]["raw_sha512"])


def test_digests_count_only_of_who_may_sign_them(swarm: Testbed) -> None:
    """An image may be had by its id whoever has signed it; but what it is called, not everybody may say."""
    founder, _, team, other = swarm.daemons
    disk = new_disk(swarm, "team.raw", 4, seed=22)
    image = team.json("publish", disk, "team:1", "--digests")["image_id"]
    founder.json("sign", "team:1")
    assert is_pulled(pull_on_all([other], image)[0], disk)
    assert other.json("show", image)["digests"] == {}
    assert other.entice("pull", "team:1").exit_code == 0


def test_what_is_signed_stays_so_after_restarts_and_a_rotated_key(swarm: Testbed) -> None:
    founder, second, _, other = swarm.daemons
    disk = new_disk(swarm, "kept.raw", 4, seed=23)
    founder.json("publish", disk, "kept:1")
    founder.stop()
    founder.start()
    second.json("sign", "kept:1")
    founder.must("trust", "rotate", "publisher")
    founder.must("trust", "rotate", "publisher", "--finish")
    wait_until(go_by([second, other], trust(founder)["serial"]))
    wait_until(lambda: other.entice("pull", "kept:1").exit_code == 0)


def test_who_revokes_a_publisher_that_is_needed_is_told_what_that_means(swarm: Testbed) -> None:
    founder, _, _, other = swarm.daemons
    assert len(founder.must("revoke", "team").splitlines()) == 1
    said = founder.must("revoke", "second").splitlines()
    assert said[1].startswith("2 publishers have to sign, and 1 is left: no host fetches anything until")
    assert said[1] in founder.must("trust", "show").splitlines()
    (wrong,) = [one for one in founder.call_json("doctor").wait().json["findings"] if one["name"] == "publishers"]
    assert wrong["verdict"] == "wrong"
    assert len(founder.must("trust", "threshold", "1").splitlines()) == 1
    wait_until(go_by([other], trust(founder)["serial"]))
    disk = new_disk(swarm, "alone.raw", 4, seed=24)
    founder.json("publish", disk, "alone:1")
    assert is_pulled(pull_on_all([other], "alone:1")[0], disk)
