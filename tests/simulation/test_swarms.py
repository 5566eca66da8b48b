"""Swarms in which nothing goes wrong: all complete, fast, with little from the publisher, the same way each time."""

from itertools import pairwise

import numpy as np
import pytest

from enticed.core.events import DemandRaised
from enticed.core.orders import Failure, OrderState, Priority
from enticed.core.vocabulary import Stretch
from protocol.limits import MIB
from simnet.checkers import LivenessChecker, SafetyChecker
from simnet.host import HANDSHAKE_S
from simnet.images import SimImage
from simnet.network import Link
from simnet.world import World
from tests.simulation.swarms import PATIENCE_S, Swarm, swarm


@pytest.mark.parametrize(("hosts", "mib", "most_of_bound"), [(1, 64, 1.15), (8, 128, 1.5), (32, 64, 3.5)])
def test_all_complete(hosts: int, mib: int, most_of_bound: float) -> None:
    run = swarm(hosts, mib)
    assert run.world.run_until_ready(60)
    assert run.seconds <= most_of_bound * run.bound_s
    assert all(host.disk.file(run.image).sealed for host in run.hosts)


def test_a_slow_host_holds_nobody_up() -> None:
    """Of four hosts one has half the link of the others, and owns a quarter of the pieces."""
    world = World(1)
    world.watchers += [SafetyChecker(books_every=4), LivenessChecker(PATIENCE_S)]
    image, link = world.add_image(SimImage("image", 64 * MIB)), Link(6 * MIB)
    world.add_host("publisher", link=link).publish(image)
    started_at, slow = world.now, world.add_host("slow", link=Link(3 * MIB))
    others = [world.add_host(f"h{number}", link=link) for number in range(3)]
    for host in (slow, *others):
        host.order("order", image)
    assert world.run_until_ready(60)
    seconds = max(host.ready_at["order"] for host in others) - started_at
    assert seconds <= 1.5 * image.size_bytes / link.bytes_per_s
    assert slow.ready_at["order"] - started_at >= 1.9 * image.size_bytes / link.bytes_per_s


def test_about_one_copy_leaves_the_publisher() -> None:
    run = swarm(8, 512)
    run.world.watchers.clear()  # the books were checked in smaller swarms
    assert run.world.run_until_ready(60)
    assert run.copies_published <= 1.35


def test_about_one_copy_enters_each_rack() -> None:
    run = swarm(12, 96, racks=3)
    assert run.world.run_until_ready(60)
    assert run.copies_published <= 1.6


def test_a_host_shakes_hands_with_one_after_another() -> None:
    run = swarm(30, 4, racks=31)
    seen: list[int] = []
    while max(seen, default=0) < len(run.hosts):
        run.world.let_pass(HANDSHAKE_S)
        seen.append(len(run.publisher.sessions))
    assert all(later - earlier <= 2 for earlier, later in pairwise(seen))


def fingerprint(run: Swarm) -> list[tuple[object, ...]]:
    return [
        (host.contact.node, sorted(host.effects_seen.items()), host.ready_at, host.sent_bytes)
        for host in run.world.hosts.values()
    ]


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    runs = [swarm(6, 24, racks=2, seed=seed) for seed in (5, 5, 6)]
    for run in runs:
        assert run.world.run_until_ready(60)
    first, again, other = map(fingerprint, runs)
    assert first == again
    assert first != other


def test_a_local_relative_is_used_before_anybody_is_asked() -> None:
    run = swarm(4, 64)
    run.world.watchers.append(SafetyChecker())
    half = run.hosts[:2]
    for host in half:
        host.disk.relatives[run.image.image] = 0.5
    assert run.world.run_until_ready(60)
    for host in run.hosts:
        assert host.received_bytes <= run.image.size_bytes * (0.5 if host in half else 1.0) + 2 * MIB
        progress = host.core.progress(run.image.image)
        assert progress is not None
        assert progress.done_bytes == run.image.size_bytes
        assert sum(progress.bytes_from.values()) == run.image.size_bytes


def test_a_relative_of_all_of_it_leaves_nothing_to_fetch() -> None:
    run = swarm(1, 16)
    run.hosts[0].disk.relatives[run.image.image] = 1.0
    assert run.world.run_until_ready(10)
    assert run.hosts[0].received_bytes == 0


def test_an_image_of_zeros_needs_a_manifest_only() -> None:
    run = swarm(2, 0)
    assert run.world.run_until_ready(10)
    assert [host.received_bytes for host in run.hosts] == [0, 0]


def two_images(first: dict[str, object], second: dict[str, object]) -> tuple[World, float, float]:
    """One host orders two images of 64 MiB from one publisher; when each is ready, in seconds."""
    world = World(3)
    world.watchers.append(SafetyChecker())
    images = [world.add_image(SimImage(name, 64 * MIB)) for name in ("a", "b")]
    publisher, host = world.add_host("publisher"), world.add_host("host")
    started_at = world.now
    for image, terms in zip(images, (first, second), strict=True):
        publisher.publish(image)
        host.order(image.name, image, **terms)  # type: ignore[arg-type]
    assert world.run_until_ready(60)
    return world, host.ready_at["a"] - started_at, host.ready_at["b"] - started_at


def test_the_earliest_due_date_comes_first() -> None:
    _, a, b = two_images({"due_at": 2_000_000.0}, {"due_at": 1_000_100.0})
    assert b < a


def test_prewarming_yields_to_a_host_that_waits() -> None:
    _, a, b = two_images({"priority": Priority.PREWARM, "due_at": 1_000_001.0}, {})
    assert b < 0.75
    assert a > 1.2


def test_a_reader_gets_its_range_long_before_the_rest() -> None:
    run = swarm(2, 256)
    host = run.hosts[0]
    assert run.world.run(lambda: host.core.image(run.image.image) is not None, 5)
    asked_at = run.world.now
    sizes_bytes = tuple(run.image.fragment_sizes_bytes.tolist())
    wanted = tuple(Stretch(piece, 0, sizes_bytes) for piece in range(100, 116))
    host.tell(DemandRaised(7, run.image.image, wanted, asked_at + 10))
    assert run.world.run_until_ready(60)
    assert host.demands_met[7] - asked_at < 0.7
    assert host.ready_at["order"] - asked_at > 2


def test_what_nobody_has_is_not_found() -> None:
    world = World()
    host = world.add_host("host")
    host.order("order", SimImage("nothing", MIB))
    assert world.run_until_ended(10)
    assert host.orders["order"].failure is Failure.NOT_FOUND


def test_stock_at_hand_makes_an_order_ready_at_once() -> None:
    run = swarm(0, 16)
    run.publisher.order("mine", run.image)
    assert run.world.run_until_ready(1)
    assert run.publisher.orders["mine"].state is OrderState.READY
    assert np.isclose(run.publisher.ready_at["mine"], run.started_at + 0.01)
