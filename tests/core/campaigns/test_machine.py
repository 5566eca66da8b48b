"""Campaigns: whose turn it is, what becomes of hosts that are down, full, lost or slow, and that others do not care."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enticed.core.campaigns import events as ev
from enticed.core.campaigns.campaign import OVER, TIMED, Campaign, Stage, summary
from enticed.core.campaigns.policy import CampaignPolicy
from enticed.core.orders import Failure, OrderState, Promise
from tests.core.campaigns.world import OTHER, World, campaign, node

S = Stage


def placed(world: World, key: str = "c", hosts: int = 3, **terms: object) -> World:
    world.tell(ev.CampaignPlaced(campaign(key, hosts, **terms)))
    return world


def test_every_host_is_asked_and_followed_to_the_end() -> None:
    world = placed(World())
    assert world.stages() == [S.ORDERED] * 3
    assert isinstance(world.done[0], ev.SaveCampaign)
    for number in range(3):
        world.finish(number)
    run = world.machine.run("c")
    assert run is not None
    assert run.is_over
    assert world.machine.next_deadline(world.now) is None
    counted = summary(run.placements.values())
    assert (counted.ready, counted.total, counted.promises[Promise.ON_TIME]) == (3, 3, 3)


def test_at_most_so_many_at_once() -> None:
    world = placed(World(), hosts=7, at_most_at_once=2)
    for number in range(7):
        assert len(world.under_way()) == min(2, 7 - number)
        world.finish(number)
    assert world.most_at_once == 2
    assert world.stages() == [S.READY] * 7


def test_the_earliest_due_date_has_the_turns() -> None:
    world = World(CampaignPolicy(at_once_max=4))
    placed(world, "whenever", hosts=4, at_most_at_once=1)
    placed(world, "later", hosts=4, due_at=world.now + 200)
    placed(world, "sooner", hosts=4, due_at=world.now + 100)
    assert [sum(key == one for _, one in world.under_way()) for key in ("whenever", "later", "sooner")] == [1, 3, 0]
    for number in range(3):
        world.finish(number, "later")
    assert sum(key == "sooner" for _, key in world.under_way()) == 3
    assert sum(key == "later" for _, key in world.under_way()) == 0


def test_a_host_that_is_down_is_tried_until_the_due_date_and_harms_nobody() -> None:
    world = World(down={1})
    placed(world, due_at=world.now + 60, at_most_at_once=1)
    assert world.stages() == [S.ORDERED, S.WAITING, S.WAITING]
    world.finish(0)
    assert (world.placement(1).stage, world.placement(1).promise) == (S.RETRYING, Promise.INFEASIBLE)
    assert world.placement(1).reason == "connection refused"
    world.finish(2)
    world.wait(59)
    assert world.placement(1).stage is S.RETRYING
    world.wait(2)
    assert world.stages() == [S.READY, S.FAILED, S.READY]
    tries = sum(isinstance(effect, ev.Reach) and effect.host == "h1" for effect in world.done)
    assert 5 <= tries <= 8  # after 1, 2, 4, 8, ... seconds, and at the end


def test_a_host_that_comes_back_in_time() -> None:
    world = placed(World(down={1}), due_at=1060.0)
    world.wait(10)
    world.down.clear()
    world.wait(10)
    assert world.placement(1).stage is S.ORDERED


def test_without_a_due_date_a_host_is_given_up_after_a_while() -> None:
    world = placed(World(down={0}), hosts=1)
    world.wait(CampaignPolicy().give_up_s - 1)
    assert world.stages() == [S.RETRYING]
    world.wait(2)
    assert world.stages() == [S.FAILED]
    assert world.placement(0).promise is None


@pytest.mark.parametrize(
    ("failure", "stage"),
    [
        (Failure.NO_SPACE, S.FAILED),
        (Failure.DENIED, S.FAILED),
        (Failure.INTEGRITY, S.FAILED),
        (Failure.UNAVAILABLE, S.RETRYING),
        (Failure.BUSY, S.RETRYING),
    ],
)
def test_an_order_that_fails(failure: Failure, stage: Stage) -> None:
    world = placed(World(failing={1: failure}), due_at=1060.0)
    assert world.stages() == [S.ORDERED, stage, S.ORDERED]
    assert (world.placement(1).failure, world.placement(1).promise) == (failure, Promise.INFEASIBLE)
    world.failing.clear()
    world.wait(10)
    assert (world.placement(1).stage is S.ORDERED) == (stage is S.RETRYING)


def test_a_busy_host_is_asked_ever_less_often() -> None:
    world = placed(World(failing={0: Failure.BUSY}), hosts=1, due_at=2000.0)
    world.wait(100)
    assert sum(isinstance(effect, ev.Ask) for effect in world.done) <= 8


def test_a_host_that_never_answers() -> None:
    world = placed(World(deaf={0}), hosts=2, at_most_at_once=1, due_at=1060.0)
    assert world.stages() == [S.CALLING, S.WAITING]
    world.wait(11)
    assert world.placement(0).reason == "it does not answer"
    assert world.placement(1).stage is S.ORDERED


def test_a_host_that_restarts_keeps_its_turn() -> None:
    world = placed(World(), hosts=2, at_most_at_once=1)
    world.lose(0)
    assert world.stages() == [S.LOST, S.WAITING]
    world.down.clear()
    world.wait(2)
    assert world.stages() == [S.ORDERED, S.WAITING]
    world.finish(0)
    assert world.stages() == [S.READY, S.ORDERED]


def test_a_host_that_does_not_come_back_loses_its_turn() -> None:
    world = placed(World(), hosts=2, at_most_at_once=1, due_at=1060.0)
    world.lose(0)
    assert world.placement(0).promise is Promise.ON_TIME  # its order goes on without us, for all we know
    world.wait(15)
    assert world.stages() == [S.WAITING, S.ORDERED]  # behind the other, which has its turn now
    assert world.placement(0).promise is Promise.INFEASIBLE


def test_ready_is_ready_though_the_session_ends() -> None:
    world = placed(World(), hosts=1)
    world.finish(0)
    world.lose(0)
    world.wait(1000)
    assert world.stages() == [S.READY]


def test_two_names_of_one_host() -> None:
    world = World()
    world.tell(ev.CampaignPlaced(replace(campaign(hosts=1), hosts=(("h1", node(0)), ("h0", None)))))
    world.tell(ev.Reached("c", "h0", node(0)))
    assert world.placement(0).stage is S.FAILED
    assert world.placement(0).reason == "it is the same host as h1"


def test_asking_again_changes_nothing_that_is_well() -> None:
    world = placed(World(failing={2: Failure.NO_SPACE}), keep_s=100.0)
    world.finish(0)
    world.done.clear()
    world.failing.clear()
    placed(world, keep_s=100.0, due_at=1060.0)
    assert world.stages() == [S.READY, S.ORDERED, S.ORDERED]  # a failure is forgiven
    asked = [effect for effect in world.done if isinstance(effect, ev.Ask)]
    assert {(ask.node, ask.due_at) for ask in asked} == {(node(1), 1060.0), (node(2), 1060.0)}


def test_asking_again_renews_leases_that_have_aged() -> None:
    world = placed(World(), hosts=1, keep_s=100.0)
    world.finish(0)
    world.now += 20
    placed(world, hosts=1, keep_s=100.0)
    assert sum(isinstance(effect, ev.Ask) for effect in world.done) == 1
    world.now += 10
    placed(world, hosts=1, keep_s=100.0)
    assert sum(isinstance(effect, ev.Ask) for effect in world.done) == 2
    assert (world.stages(), world.placement(0).leased_at) == ([S.READY], world.now)


def test_hosts_that_are_not_named_any_more_are_let_go() -> None:
    world = placed(World())
    placed(world, hosts=1)
    assert world.stages() == [S.ORDERED]
    assert {effect.node for effect in world.done if isinstance(effect, ev.Drop)} == {node(1), node(2)}


def test_cancelling_reaches_everybody_who_has_an_order() -> None:
    world = placed(World(down={3}, failing={4: Failure.NO_SPACE}), hosts=6, at_most_at_once=3)
    world.finish(0)
    world.lose(0)
    world.tell(ev.CampaignCancelled("c"))
    assert world.under_way() == []
    assert world.placement(0).stage is S.RETRYING  # it holds a lease, and is to hear of it
    world.down.discard(0)
    world.wait(5)
    assert set(world.stages()) == {S.CANCELLED}
    assert world.orders == {}
    world.tell(ev.CampaignCancelled("c"))
    world.tell(ev.CampaignCancelled("none"))


def test_cancelling_gives_up_on_hosts_that_are_gone() -> None:
    world = placed(World(), hosts=1)
    world.lose(0)
    world.tell(ev.CampaignCancelled("c"))
    world.wait(60)
    assert world.stages() == [S.CANCELLED]
    assert world.orders  # its lease ends by itself


def test_a_cancelled_campaign_is_still_cancelled_after_a_restart() -> None:
    world = placed(World(), hosts=2)
    saved = next(effect.campaign for effect in world.done if isinstance(effect, ev.SaveCampaign))
    after = World(orders=dict(world.orders))
    after.tell(ev.CampaignPlaced(replace(saved, cancelled=True)))
    assert (after.orders, set(after.stages())) == ({}, {S.CANCELLED})


def test_after_a_restart_everybody_is_asked_again() -> None:
    world = placed(World())
    world.finish(0)
    saved = next(effect.campaign for effect in world.done if isinstance(effect, ev.SaveCampaign))
    after = World(orders=dict(world.orders))
    after.tell(ev.CampaignPlaced(saved))
    assert after.stages() == [S.READY, S.ORDERED, S.ORDERED]


def test_after_a_restart_nobody_is_given_up_at_once() -> None:
    """The due date has passed, and this host may not have found the others yet."""
    world = World(down={0})
    world.tell(ev.CampaignPlaced(campaign(hosts=1, due_at=world.now - 100), is_resumed=True))
    assert world.stages() == [S.RETRYING]
    world.down.clear()
    world.wait(5)
    assert world.stages() == [S.ORDERED]
    world.lose(0)
    world.wait(CampaignPolicy().resume_patience_s)
    assert world.stages() == [S.FAILED]


def last_saved(world: World) -> Campaign:
    return [effect.campaign for effect in world.done if isinstance(effect, ev.SaveCampaign)][-1]


def over(keep_s: float = 60.0) -> World:
    """A campaign of three hosts: one is ready in time, one too late, and one fails."""
    world = placed(World(failing={2: Failure.DENIED}), keep_s=keep_s, due_at=1010.0)
    world.finish(0)
    world.wait(20)
    world.tell(ev.Told(node(1), "c", OrderState.READY, promise=Promise.LATE, percent=100.0))
    return world


def test_after_a_restart_nobody_is_asked_for_what_was_over() -> None:
    before = over()
    after = World(now=before.now + 59.0)
    after.tell(ev.CampaignPlaced(last_saved(before), is_resumed=True))
    assert after.done == []
    assert after.machine.next_deadline(after.now) is None
    assert after.stages() == [S.READY, S.READY, S.FAILED]
    for number in range(3):
        one, was = after.placement(number), before.placement(number)
        assert (one.node, one.promise, one.failure) == (was.node, was.promise, was.failure)
        assert (one.reason, one.percent) == (was.reason, was.percent)
    run = after.machine.run("c")
    assert run is not None
    assert (run.is_over, run.holds_place(after.now), run.holds_place(after.now + 1.0)) == (True, True, False)


def test_after_a_restart_what_was_over_past_its_lease_is_forgotten() -> None:
    before = over()
    after = World(now=before.now + 60.0)
    after.tell(ev.CampaignPlaced(last_saved(before), is_resumed=True))
    assert after.done == [ev.ForgetCampaign("c")]
    assert after.machine.runs() == ()


def test_what_was_over_before_a_restart_can_be_asked_for_again() -> None:
    before = over()
    after = World(now=before.now + 30.0)
    after.tell(ev.CampaignPlaced(last_saved(before), is_resumed=True))
    placed(after, keep_s=60.0)
    assert after.stages() == [S.ORDERED] * 3
    assert last_saved(after).over_at is None


def test_what_was_over_before_a_restart_can_be_cancelled_everywhere() -> None:
    before = over()
    after = World(now=before.now + 30.0, orders=dict(before.orders))
    after.tell(ev.CampaignPlaced(last_saved(before), is_resumed=True))
    after.tell(ev.CampaignCancelled("c"))
    assert (after.orders, set(after.stages())) == ({}, {S.CANCELLED})
    again = World(now=after.now)
    again.tell(ev.CampaignPlaced(last_saved(after), is_resumed=True))
    assert (again.done, set(again.stages())) == ([], {S.CANCELLED})


def test_a_host_that_has_to_get_its_image_again_has_the_campaign_go_on() -> None:
    world = over()
    assert last_saved(world).over_at == world.now
    world.tell(ev.Told(node(0), "c", OrderState.FETCHING))
    assert (last_saved(world).over_at, last_saved(world).endings) == (None, ())
    world.wait(5)
    world.finish(0)
    assert last_saved(world).over_at == world.now


def test_another_image_under_a_key_is_another_campaign() -> None:
    world = placed(World(), hosts=1)
    world.finish(0)
    placed(world, hosts=1, image=OTHER)
    asks = [effect.image for effect in world.done if isinstance(effect, ev.Ask)]
    assert asks[-1] == OTHER


def test_hosts_that_another_campaign_of_the_key_does_not_name_are_let_go() -> None:
    world = placed(World(), hosts=3)
    for number in range(3):
        world.finish(number)
    world.down.add(1)
    placed(world, hosts=2, image=OTHER)
    assert set(world.orders) == {(0, "c"), (1, "c")}
    for number in range(3):
        world.lose(number)
    assert world.stages() == [S.READY, S.RETRYING]
    world.down.clear()
    world.tell(ev.CampaignCancelled("c"))
    world.wait(60)
    assert (world.orders, set(world.stages())) == ({}, {S.CANCELLED}), "what they had of the one before goes, too"


def test_the_oldest_that_are_over_are_forgotten() -> None:
    world = World(CampaignPolicy(campaigns_kept=2))
    for number in range(4):
        placed(world, str(number), hosts=1)
        if number != 1:
            world.finish(0, str(number))
    assert [run.campaign.key for run in world.machine.runs()] == ["1", "2", "3"] or len(world.machine.runs()) == 2
    assert world.machine.run("1") is not None  # it goes on
    assert any(isinstance(effect, ev.ForgetCampaign) for effect in world.done)


def test_what_comes_too_late_changes_nothing() -> None:
    world = placed(World(), hosts=1)
    before = world.placement(0)
    for event in (
        ev.Reached("c", "h0", node(0)), ev.Unreached("c", "h0", "late"), ev.Reached("none", "h0", node(0)),
        ev.Told(node(0), "none", OrderState.READY), ev.Told(node(9), "c", OrderState.READY), ev.Lost(node(9), "?"),
    ):  # fmt: skip
        world.tell(event)
    assert world.placement(0) == before


def test_a_host_that_says_it_was_cancelled_there() -> None:
    world = placed(World(), hosts=1)
    world.tell(ev.Told(node(0), "c", OrderState.CANCELLED))
    assert (world.stages(), world.placement(0).reason) == ([S.FAILED], "somebody on that host has cancelled the order")


def test_thousands_of_hosts_that_are_down() -> None:
    """No event looks at all of them: this would take minutes."""
    hosts = 10_000
    world = placed(World(down=set(range(hosts))), hosts=hosts, due_at=1010.0)
    world.wait(11)
    run = world.machine.run("c")
    assert run is not None
    assert run.count(S.FAILED) == hosts


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: bounds hold, nothing is stuck, and in the end every host has an end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(CampaignPolicy(at_once_max=6, campaigns_kept=3))

    keys = st.sampled_from("abc")
    numbers = st.integers(0, 7)

    @rule(key=keys, hosts=st.integers(1, 8), at_once=st.integers(0, 4), due_in_s=st.none() | st.floats(1, 100))
    def place(self, key: str, hosts: int, at_once: int, due_in_s: float | None) -> None:
        due_at = None if due_in_s is None else self.world.now + due_in_s
        placed(self.world, key, hosts, at_most_at_once=at_once, due_at=due_at, keep_s=10.0)

    @rule(key=keys)
    def cancel(self, key: str) -> None:
        self.world.tell(ev.CampaignCancelled(key))

    @rule(number=numbers)
    def goes_down(self, number: int) -> None:
        self.world.lose(number)

    @rule(number=numbers)
    def comes_back(self, number: int) -> None:
        self.world.down.discard(number)

    @rule(number=numbers, failure=st.none() | st.sampled_from(Failure))
    def fails(self, number: int, failure: Failure | None) -> None:
        self.world.failing.pop(number, None)
        if failure is not None:
            self.world.failing[number] = failure

    @precondition(lambda self: self.world.under_way())
    @rule(which=st.integers(0, 100))
    def finishes(self, which: int) -> None:
        under_way = self.world.under_way()
        self.world.finish(*under_way[which % len(under_way)])

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    @invariant()
    def bounds_hold(self) -> None:
        turns = 0
        for run in self.world.machine.runs():
            mine = run.count(S.CALLING, S.ORDERED, S.LOST)
            turns += mine
            assert sum(run.count(stage) for stage in Stage) == len(run.placements)
            timed = [one.turn_at for one in run.placements.values() if one.stage in TIMED]
            assert run.next_alarm() == min(timed, default=None)
        assert turns <= 6 + 8 * 3  # a campaign whose `at_most_at_once` shrinks takes no turn away

    @invariant()
    def what_is_over_is_saved_as_that(self) -> None:
        saved = {
            effect.campaign.key: effect.campaign for effect in self.world.done if isinstance(effect, ev.SaveCampaign)
        }
        for run in self.world.machine.runs():
            assert saved[run.campaign.key] == run.campaign
            assert (run.campaign.over_at is not None) == run.is_over

    def teardown(self) -> None:
        """All is well again: then every campaign comes to its end."""
        self.world.down.clear()
        self.world.failing.clear()
        for _ in range(40):
            for number, key in self.world.under_way():
                self.world.finish(number, key)
            self.world.wait(30)
        for run in self.world.machine.runs():
            assert {one.stage for one in run.placements.values()} <= OVER
        assert self.world.machine.next_deadline(self.world.now) is None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
