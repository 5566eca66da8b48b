"""Swarms in which something goes wrong: what can be completed is, within a bound; what cannot fails soon, with why."""

import pytest

from enticed.core.effects import Say
from enticed.core.events import PieceRotten
from enticed.core.orders import Failure, OrderState
from protocol.limits import MIB
from protocol.messages import Charge
from simnet.checkers import BrokenError, LivenessChecker, SafetyChecker
from simnet.faults import Trouble
from simnet.images import SimImage
from simnet.world import World
from tests.simulation.swarms import swarm


def test_the_publisher_stops_when_one_copy_is_spread() -> None:
    run = swarm(6, 64, seed=2)
    assert run.world.run(lambda: run.spread == 1.0, 60)
    assert not all(host.ready_at for host in run.hosts)
    run.publisher.stop()
    assert run.world.run_until_ready(60)


def test_the_publisher_stops_too_early_and_returns() -> None:
    run = swarm(4, 64)
    run.world.watchers = [SafetyChecker()]
    assert run.world.run(lambda: run.spread > 0.5, 60)
    run.publisher.stop()
    stopped_at = run.world.now
    assert run.world.run(lambda: run.world.now > stopped_at + 3, 60)
    run.publisher.start()
    assert run.world.run_until_ready(30)


def test_the_publisher_stops_too_early_for_good() -> None:
    run = swarm(4, 64)
    assert run.world.run(lambda: run.spread > 0.5, 60)
    run.publisher.stop()
    stopped_at = run.world.now
    assert run.world.run_until_ended(15)
    for host in run.hosts:
        order = host.orders["order"]
        assert order.failure is Failure.UNAVAILABLE
        assert "of 64 pieces (" in order.reason
        assert run.publisher.contact.node.short in order.reason
        assert order.image == run.image.image
    assert run.world.now - stopped_at < 15
    run.publisher.start()
    for host in run.hosts:
        host.order("again", run.image)
    assert run.world.run(lambda: all("again" in host.ready_at for host in run.hosts), 30)
    assert all(host.received_bytes < 1.1 * run.image.size_bytes for host in run.hosts)


def test_nobody_holds_the_image() -> None:
    world = World()
    world.watchers += [SafetyChecker(), LivenessChecker(15)]
    image = world.add_image(SimImage("image", 8 * MIB))
    host = world.add_host("host")
    host.order("order", image)
    assert world.run_until_ended(15)
    order = host.orders["order"]
    assert (order.state, order.failure) == (OrderState.FAILED, Failure.UNAVAILABLE)
    assert image.image.short in order.reason
    assert "asked: nobody" in order.reason


def test_a_host_corrupts_all_that_it_sends() -> None:
    run = swarm(5, 64)
    run.hosts[0].condition.begin(Trouble.CORRUPT)
    told: list[Say] = []
    run.world.watchers.append(
        lambda host, event, effects: told.extend(
            effect for effect in effects if isinstance(effect, Say) and isinstance(effect.message, Charge)
        )
    )
    honest = run.hosts[1:]
    assert run.world.run(lambda: all(host.ready_at for host in honest), 60)
    assert run.world.now - run.started_at < 6
    assert {effect.node for effect in told} == {run.hosts[0].contact.node}


def test_the_only_holder_corrupts() -> None:
    run = swarm(1, 8)
    run.publisher.condition.begin(Trouble.CORRUPT)
    assert run.world.run_until_ended(15)
    order = run.hosts[0].orders["order"]
    assert order.failure is Failure.INTEGRITY
    assert "corrupt" in order.reason


def test_a_silent_host_costs_seconds_not_minutes() -> None:
    run = swarm(5, 64)
    run.hosts[0].condition.begin(Trouble.SILENT)
    assert run.world.run_until_ready(60)
    assert run.seconds < 20


def test_a_host_that_falls_silent_before_the_manifest() -> None:
    run = swarm(0, 16)
    silent, host = run.world.add_host("silent", rack="rack"), run.world.add_host("host", rack="rack")
    silent.publish(run.image)
    silent.condition.begin(Trouble.SILENT)
    host.order("order", run.image)
    assert run.world.run_until_ready(60)
    assert run.world.now - run.started_at < 5


def test_a_host_that_refuses_what_it_claims_to_have() -> None:
    run = swarm(4, 32)
    run.hosts[0].condition.begin(Trouble.REFUSING)
    assert run.world.run_until_ready(60)
    assert run.seconds < 10


def test_hosts_stop_and_return_with_what_was_durable() -> None:
    run = swarm(5, 128)
    run.world.watchers = [SafetyChecker()]
    stopping = run.hosts[:2]
    assert run.world.run(lambda: run.spread > 0.6, 60)
    for host in stopping:
        host.stop()
    stopped_at = run.world.now
    assert run.world.run(lambda: run.world.now >= stopped_at + 1, 60)
    for host in stopping:
        host.start()
    assert run.world.run_until_ready(60)


def test_a_crash_after_a_sync_fetches_only_the_rest() -> None:
    run = swarm(1, 512)
    run.world.watchers = [SafetyChecker()]
    host = run.hosts[0]
    assert run.world.run(lambda: host.disk.file(run.image).durable.mean() > 0.3, 60)
    unsynced_bytes = host.received_bytes - int(host.disk.file(run.image).durable.sum()) * run.image.piece_bytes
    host.stop()
    host.start()
    assert run.world.run_until_ready(60)
    assert host.received_bytes <= run.image.size_bytes + unsynced_bytes


@pytest.mark.parametrize(
    ("trouble", "failure"), [(Trouble.FAILING_DISK, Failure.DISK), (Trouble.FULL_DISK, Failure.NO_SPACE)]
)
def test_an_order_waits_for_its_disk_and_nobody_else_does(trouble: Trouble, failure: Failure) -> None:
    run = swarm(4, 32)
    host, others = run.hosts[0], run.hosts[1:]
    host.condition.begin(trouble)
    assert run.world.run(lambda: all(other.orders["order"].state is OrderState.READY for other in others), 60)
    order = host.orders["order"]
    assert (order.state, order.failure) == (OrderState.PAUSED, failure)
    over_at = run.world.now
    host.condition.end(trouble)
    assert run.world.run_until_ready(60)
    assert run.world.now < over_at + 1.5 * run.world.policy.disk_retry_last_s


def test_rot_in_a_leased_image_is_mended() -> None:
    run = swarm(2, 16)
    assert run.world.run_until_ready(60)
    host = run.hosts[0]
    file = host.disk.file(run.image)
    file.landed[3] = file.durable[3] = file.sealed = False
    received_bytes = host.received_bytes
    host.tell(PieceRotten(run.image.image, 3))
    assert host.orders["order"].state is not OrderState.READY
    assert run.world.run_until_ready(60)
    assert host.received_bytes == received_bytes + run.image.piece_bytes


def test_churn() -> None:
    """Every half second another host stops, and the one before comes back."""
    run = swarm(6, 128, seed=4)
    run.world.watchers = [SafetyChecker()]
    for number in range(6):
        pause_until = run.world.now + 0.5
        run.world.run(lambda until=pause_until: run.world.now >= until, 60)  # type: ignore[misc]
        run.hosts[number].stop()
        if number:
            run.hosts[number - 1].start()
    run.hosts[5].start()
    assert run.world.run_until_ready(60)


def test_the_liveness_checker_sees_a_standstill() -> None:
    run = swarm(1, 16)
    run.world.watchers = [LivenessChecker(15)]
    run.publisher.condition.begin(Trouble.SILENT)
    with pytest.raises(BrokenError, match="nothing has come"):
        run.world.run_until_ready(120)


def test_a_seed_whose_disk_fails_for_a_while_is_asked_again() -> None:
    run = swarm(2, 16)
    assert run.world.run(lambda: run.spread > 0.2, 60)
    run.publisher.condition.begin(Trouble.FAILING_DISK)
    run.world.after(1.0, lambda: run.publisher.condition.end(Trouble.FAILING_DISK))
    assert run.world.run_until_ready(60)
