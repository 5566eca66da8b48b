"""Many nodes under virtual time: joining, finding, dying, parting, growing."""

from __future__ import annotations

from functools import cache
from statistics import median

import pytest

from enticed.core.dht.events import Join, NameOffer, ProviderOffer
from enticed.core.dht.policy import DhtPolicy
from protocol.dht import FindNode, Store, StoreName
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.limits import PROVIDER_EXPIRY_S, PROVIDER_REFRESH_S
from protocol.providers import ProviderState
from tests.core.dht.harness import Host, LedgerNotary, World

WHOLE, PARTIAL = ProviderState.WHOLE, ProviderState.PARTIAL


@cache
def key(number: int) -> DiscoveryKey:
    return DiscoveryKey.of_image(ImageId.of(b"%d" % number))


def offer(number: int, state: ProviderState = WHOLE) -> ProviderOffer:
    return ProviderOffer(key(number), state)


def nodes(found: tuple[float, object]) -> set[NodeId]:
    return {record.node for record in found[1].providers}  # type: ignore[attr-defined]


def true_nearest(hosts: list[Host], to: DiscoveryKey, count: int = 8) -> set[NodeId]:
    position = int.from_bytes(to, "big")
    by_distance = sorted(hosts, key=lambda one: int.from_bytes(one.id, "big") ^ position)
    return {one.id for one in by_distance[:count]}


def holders(hosts: list[Host], of: DiscoveryKey) -> set[NodeId]:
    return {one.id for one in hosts if one.node.shelves.population(of)}


# --- joining ---


def test_the_first_is_ready_at_once_and_alone() -> None:
    world = World(1)
    host = world.host()
    host.tell(Join(()))
    assert host.joined == [(world.now, True)]
    assert host.look_up(key(1))[1].asked == 0


def test_nobody_answers_then_it_is_ready_all_the_same() -> None:
    world = World(1)
    host = world.host()
    started = world.now
    host.tell(Join((bytes(6), bytes([1] * 6))))
    world.run(5)
    ((at, alone),) = host.joined
    assert alone
    assert at - started == pytest.approx(host.node.policy.join_patience_s)


def test_a_host_that_finds_nobody_goes_on_looking() -> None:
    world = World(1)
    early, late = world.host(), world.host()
    early.bootstrap = (late.endpoint,)
    late.alive = False
    early.tell(Join(early.bootstrap))
    early.announce(offer(1))
    world.run(120)
    late.alive = True
    late.tell(Join(()))
    world.run(60 + 10)
    assert len(early.node.table) == len(late.node.table) == 1
    assert nodes(late.look_up(key(1))) == {early.id}


def test_everybody_joins_and_knows_its_neighbours() -> None:
    world = World(2)
    hosts = world.network(60)
    assert sum(alone for host in hosts for _, alone in host.joined) == 1
    known = [
        len({one.node for one in host.node.table} & (true_nearest(hosts, DiscoveryKey(host.id), 9) - {host.id})) / 8
        for host in hosts
    ]
    assert min(known) >= 0.75
    assert sum(known) / len(known) > 0.97
    sizes = [host.node.table.network_size() for host in hosts]
    assert 30 < median(sizes) < 120


def test_the_nearest_keep_the_record() -> None:
    world = World(3)
    hosts = world.network(60)
    for number in range(20):
        hosts[number].announce(offer(number))
    world.run(5)
    hosts[0].announce(offer(0))  # as it is already
    world.run(5)
    right = [len(holders(hosts, key(number)) & true_nearest(hosts, key(number))) / 8 for number in range(20)]
    assert sum(right) / len(right) > 0.97
    assert all(len(hosts[number].announced) == 1 for number in range(20))
    assert all(hosts[number].announced[0][1].replicas == 8 for number in range(20))


def test_the_same_seed_gives_the_same_run() -> None:
    def trace() -> list[tuple[float, int, int]]:
        world = World(7)
        hosts = world.network(30)
        hosts[3].announce(offer(1))
        world.run(30)
        seconds, answered = hosts[20].look_up(key(1))
        return [(seconds, answered.asked, world.datagrams), *((at, 0, 0) for host in hosts for at, _ in host.joined)]

    assert trace() == trace()


# --- a third of the hosts dies ---


def test_lookups_are_quick_and_right_after_a_third_has_died() -> None:
    world = World(4)
    hosts = world.network(120)
    for number in range(60):
        hosts[number].announce(offer(number))
    world.run(10)
    alive = [host.look_up(key(number)) for number, host in enumerate(reversed(hosts[60:]))]
    for host in world.dice.sample(hosts[60:], 40):
        host.alive = False
    askers = [host for host in hosts[60:] if host.alive]
    found = [askers[number % len(askers)].look_up(key(number)) for number in range(60)]
    right = [nodes(one) == {hosts[number].id} for number, one in enumerate(found)]
    assert all(nodes(one) == {hosts[number].id} for number, one in enumerate(alive))
    assert sum(right) >= 59
    seconds = sorted(one[0] for one in found)
    assert median(one[0] for one in alive) < 0.010
    assert median(seconds) < 0.035
    assert seconds[53] < 0.100
    assert seconds[-1] < 1.0


def test_the_dead_are_forgotten() -> None:
    world = World(5)
    hosts = world.network(45)
    dead = world.dice.sample(hosts, 15)
    for host in dead:
        host.alive = False
    world.run(900)
    gone = {host.id for host in dead}
    listed = [{one.node for one in host.node.table} for host in hosts if host.alive]
    assert all(not gone & table for table in listed)
    assert all(len(table) >= 20 for table in listed)


def test_records_of_the_dead_expire_and_those_of_the_living_do_not() -> None:
    world = World(6)
    hosts = world.network(40)
    hosts[1].announce(offer(1))
    hosts[2].announce(offer(1))
    world.run(10)
    hosts[1].alive = False
    world.run(PROVIDER_EXPIRY_S - 60)
    assert nodes(hosts[30].look_up(key(1))) == {hosts[1].id, hosts[2].id}
    world.run(120)
    seconds, answered = hosts[30].look_up(key(1))
    assert nodes((seconds, answered)) == {hosts[2].id}
    assert answered.population == 1
    assert len(hosts[2].announced) == 1
    assert 3 * 8 <= asked(hosts[2], Store) <= 4 * 8


def test_lost_datagrams_do_not_matter() -> None:
    world = World(8, loss=0.05)
    hosts = world.network(40)
    for number in range(30):
        hosts[number].announce(offer(number))
    world.run(60)
    right = [nodes(hosts[-1 - number].look_up(key(number))) == {hosts[number].id} for number in range(30)]
    assert sum(right) >= 29
    world.run(600)
    assert all(len(host.node.table) >= 20 for host in hosts)


# --- leaving, withdrawing ---


def test_goodbye_takes_all_records_along() -> None:
    world = World(9, measure=True)
    hosts = world.network(40)
    for number in range(5):
        hosts[7].announce(offer(number))
    world.run(10)
    hosts[7].leave()
    assert hosts[7].remembered
    world.run(1)
    assert all(not holders(hosts[:7] + hosts[8:], key(number)) for number in range(5))
    assert all(hosts[7].id not in {one.node for one in host.node.table} for host in hosts if host.alive)
    assert hosts[7].node.next_deadline() is None


def test_what_is_withdrawn_is_nowhere() -> None:
    world = World(10)
    hosts = world.network(40)
    hosts[7].announce(offer(1))
    hosts[7].announce(offer(2))
    world.run(10)
    hosts[7].withdraw(key(1))
    hosts[7].withdraw(key(99))
    world.run(1)
    assert hosts[7].withdrawn == [key(99), key(1)]
    assert not holders(hosts, key(1))
    world.run(2000)
    assert not holders(hosts, key(1))
    assert len(holders(hosts, key(2))) == 8


def test_offers_come_and_go_in_any_order() -> None:
    world = World(11)
    hosts = world.network(30)
    host = hosts[3]
    host.announce(offer(1, PARTIAL))
    host.withdraw(key(1))
    host.announce(offer(1, WHOLE))
    host.withdraw(key(1))
    host.announce(offer(1, PARTIAL))
    world.run(2)
    assert host.withdrawn  # whoever waited for a withdrawal was released
    ((record,),) = [hosts[20].look_up(key(1))[1].providers]
    assert record.state is PARTIAL
    host.withdraw(key(1))
    host.withdraw(key(1))
    world.run(2)
    assert not holders(hosts, key(1))


# --- refreshes ---


def asked(host: Host, kind: type[object]) -> int:
    return sum(isinstance(one.message, kind) for one in host.sent)


def quiet_network(world: World) -> list[Host]:
    """Nobody looks around: whoever asks for hosts does so to announce something."""
    return world.network(40, policy=DhtPolicy(place_refresh_s=1e6, bucket_refresh_s=1e6))


def test_refreshes_go_straight_to_the_replicas() -> None:
    world = World(25)
    host = quiet_network(world)[3]
    host.announce(offer(1))
    world.run(10)
    walked, stored = asked(host, FindNode), asked(host, Store)
    world.run(3 * PROVIDER_REFRESH_S + 10)
    assert asked(host, FindNode) == walked
    assert asked(host, Store) >= 4 * stored
    world.run(3600)
    assert asked(host, FindNode) > walked


def test_where_a_replica_has_died_another_is_looked_for() -> None:
    world = World(26)
    hosts = quiet_network(world)
    hosts[3].announce(offer(1))
    world.run(10)
    for host in [one for one in hosts if one.id in holders(hosts, key(1)) and one is not hosts[3]][:2]:
        host.alive = False
    world.run(PROVIDER_REFRESH_S + 30)
    alive = [host for host in hosts if host.alive]
    assert len(holders(alive, key(1)) & true_nearest(alive, key(1))) == 8


def test_refreshes_that_are_due_go_out_together() -> None:
    world = World(26)
    host = world.network(40, policy=DhtPolicy(place_refresh_s=1e6, bucket_refresh_s=1e6, beat_s=10.0))[3]
    for number in range(100):
        host.announce(offer(number))
    world.run(300)
    refreshing = []
    for _ in range(100):
        before = asked(host, Store)
        world.run(1)
        refreshing.append(asked(host, Store) - before)
    assert sum(refreshing) > 80
    assert sum(count > 0 for count in refreshing) < 20, "ten beats, and what a walk takes of the next second"


# --- replicas that forget ---


def forget(hosts: list[Host], whose: Host) -> None:
    """As if they had been started anew, with nothing on their shelves."""
    for host in hosts:
        host.node.shelves.drop_host(whose.id)


def test_what_all_replicas_have_forgotten_is_back_within_two_minutes() -> None:
    world = World(27)
    hosts = quiet_network(world)
    hosts[3].announce(offer(1))
    world.run(200)
    forget(hosts, hosts[3])
    assert nodes(hosts[30].look_up(key(1))) == set()
    world.run(PROVIDER_REFRESH_S / 8 + 10)
    assert nodes(hosts[30].look_up(key(1))) == {hosts[3].id}
    assert holders(hosts, key(1)) == true_nearest(hosts, key(1))


def test_a_replica_that_forgot_one_record_is_told_of_all_others() -> None:
    world = World(28)
    hosts = quiet_network(world)
    for number in range(100):
        hosts[3].announce(offer(number))
    world.run(200)
    forgetful = hosts[7]
    kept = {number for number in range(100) if forgetful.id in holders(hosts, key(number))}
    assert len(kept) > 5
    stored = asked(hosts[3], Store)
    forget([forgetful], hosts[3])
    world.run(PROVIDER_REFRESH_S / 8 + 10)
    assert {number for number in range(100) if forgetful.id in holders(hosts, key(number))} == kept
    assert asked(hosts[3], Store) - stored < 2 * 100, "no more is told than it costs to refresh"


def test_with_a_great_many_offers_replicas_are_told_together_and_forgetful_ones_noticed_as_well() -> None:
    world = World(29)
    policy = DhtPolicy(place_refresh_s=1e6, bucket_refresh_s=1e6, in_turn_max=5)
    hosts = world.network(40, policy=policy)
    for number in range(30):
        hosts[3].announce(offer(number))
    world.run(10)
    assert len(hosts[3].announced) == 30
    world.run(PROVIDER_REFRESH_S)
    assert len(hosts[3].announced) >= 60
    forget(hosts, hosts[3])
    world.run(PROVIDER_REFRESH_S)
    assert all(holders(hosts, key(number)) == true_nearest(hosts, key(number)) for number in range(30))


# --- growing, parting ---


def test_records_move_to_new_replicas_as_the_network_grows() -> None:
    world = World(12)
    few = world.network(10)
    for number in range(20):
        few[number % 10].announce(offer(number))
    world.run(10)
    new = [world.host() for _ in range(50)]
    for number, host in enumerate(new):
        host.bootstrap = (few[0].endpoint,)
        world.at(world.now + number * 0.1, lambda host=host: host.tell(Join(host.bootstrap)))  # type: ignore[misc]
    world.run(40)
    right = [nodes(new[-1 - number].look_up(key(number))) == {few[number % 10].id} for number in range(20)]
    assert all(right)
    moved = [len(holders(few + new, key(number)) & true_nearest(few + new, key(number))) for number in range(20)]
    assert sum(moved) / len(moved) > 5


@pytest.mark.parametrize("cut_s", [30, 900, 7200])
def test_the_parts_of_a_network_that_was_cut_agree_within_a_minute(cut_s: float) -> None:
    world = World(13)
    hosts = world.network(30)
    halves = {host.id: number % 2 for number, host in enumerate(hosts)}
    world.cut = lambda one, other: halves[one.id] != halves[other.id]
    hosts[0].announce(offer(1))
    hosts[1].announce(offer(2))
    world.run(cut_s)
    for host in hosts[2:] if cut_s >= 900 else []:  # each side goes on with what it holds
        assert all(halves[one.node] == halves[host.id] for one in host.node.table)
        found = nodes(host.look_up(key(1))) | nodes(host.look_up(key(2)))
        assert found == {hosts[halves[host.id]].id}
    world.cut = lambda one, other: False
    world.run(60)
    for host in hosts[2:]:
        assert nodes(host.look_up(key(1))) == {hosts[0].id}
        assert nodes(host.look_up(key(2))) == {hosts[1].id}


def test_who_has_left_for_good_costs_little() -> None:
    world = World(16)
    hosts = world.network(30)
    for host in hosts[20:]:
        host.alive = False
    world.run(900)
    greeted = []
    world.greet = lambda sender, endpoint: greeted.append(endpoint)  # type: ignore[method-assign]
    world.run(600)
    assert len(greeted) <= 20 * (3 * 600 / 15 + 10), "three small datagrams in a quarter of a minute"


def test_a_host_that_was_cut_off_comes_back() -> None:
    world = World(14)
    hosts = world.network(20)
    hosts[5].announce(offer(1))
    world.run(5)
    before = hosts[5].look_up(key(2))[1]
    assert 0 < before.answered <= before.asked
    world.cut = lambda one, other: hosts[5] in (one, other)
    after = hosts[5].look_up(key(2))[1]
    assert after.asked > after.answered == 0, "it still asks whom it knows, and nobody answers"
    world.run(3600)
    assert len(hosts[5].node.table) == 0
    assert nodes(hosts[9].look_up(key(1))) == set()
    world.cut = lambda one, other: False
    world.run(120)
    assert nodes(hosts[9].look_up(key(1))) == {hosts[5].id}


# --- names ---


def test_the_highest_version_of_a_name_wins() -> None:
    world = World(15)
    hosts = world.network(40)
    name = DiscoveryKey.of_name("debian:12")
    for version, host in ((1, hosts[3]), (3, hosts[4]), (2, hosts[5])):
        host.announce(NameOffer(name, world.ledger.name(name, version), version))
        world.run(5)
    for host in hosts[10:30]:
        answered = host.look_up(name)[1]
        assert answered.names[0] == world.ledger.name(name, 3)
        assert answered.asked >= 3 or host.id in holders(hosts, name)


def test_a_name_is_kept_by_its_replicas_while_hosts_come_and_go() -> None:
    world = World(16, measure=True)
    hosts = world.network(25, policy=DhtPolicy(tend_every_s=60.0, quiet_s=900.0, place_refresh_s=3600.0))
    name = DiscoveryKey.of_name("debian:12")
    record = world.ledger.name(name, 1, lifetime_s=15_000)
    hosts[0].announce(NameOffer(name, record, 1))
    world.run(10)
    hosts[0].leave()
    for _ in range(3):  # every replica dies, a few at a time
        for host in [one for one in hosts if one.alive and name in one.node.shelves.names][:4]:
            host.alive = False
        world.run(4500)
    alive = [host for host in hosts if host.alive]
    assert all(host.look_up(name)[1].names == (record,) for host in alive[-10:])
    assert 8 <= sum(name in host.node.shelves.names for host in alive) <= 20
    world.run(2_000)
    assert alive[-1].look_up(name)[1].names == ()


@pytest.mark.parametrize("version", [7, 8])
def test_who_has_an_older_name_or_another_form_of_it_does_not_insist(version: int) -> None:
    world = World(28)
    hosts = world.network(20)
    name = DiscoveryKey.of_name("debian:12")
    record, there = world.ledger.name(name, 7), world.ledger.name(name, version, form=b"another")
    hosts[4].announce(NameOffer(name, there, version))
    world.run(5)
    hosts[4].withdraw(name)  # it only stops being announced
    hosts[3].announce(NameOffer(name, record, 7))
    world.run(200)
    assert hosts[3].announced[0][1].replicas == 0
    assert asked(hosts[3], StoreName) <= 8 + 2
    assert hosts[9].look_up(name)[1].names == (there,)


def put_name(host: Host, name: DiscoveryKey) -> None:
    """Whoever liked to has brought it there: it is signed."""
    checked = LedgerNotary(host.id, host.world.ledger).check_name(name, host.world.ledger.name(name, 1))
    host.node.shelves.put_name(name, checked, host.world.now)


def test_a_name_has_a_place_with_its_replicas_however_many_they_were_given() -> None:
    world = World(26)
    hosts = world.network(40, policy=DhtPolicy(names_max=160))
    for host in hosts:
        for number in range(160):
            put_name(host, DiscoveryKey.of_name(f"another:{number}"))
    for number in range(10):
        name = DiscoveryKey.of_name(f"debian:{number}")
        record = world.ledger.name(name, 1)
        hosts[3].announce(NameOffer(name, record, 1))
        world.run(2)
        assert hosts[3].announced[-1][1].replicas == 8
        assert hosts[9].look_up(name)[1].names == (record,)


def test_who_keeps_nothing_itself_does_not_count_itself() -> None:
    world = World(27)
    host = world.host(DhtPolicy(names_max=1))
    host.tell(Join(()))
    put_name(host, DiscoveryKey(host.id))
    name = DiscoveryKey.of_name("debian:12")
    host.announce(NameOffer(name, world.ledger.name(name, 1), 1))
    world.run(2)
    assert [one.replicas for _, one in host.announced] == [0]


# --- many providers ---


def test_announcers_slow_down_where_they_are_not_missed() -> None:
    policy = DhtPolicy(providers_per_key=4, tend_every_s=60.0)
    world = World(17)
    hosts = world.network(50, policy=policy)
    for host in hosts:
        host.announce(offer(1))
    world.run(120)
    first = {host.id: asked(host, Store) for host in hosts}
    world.run(2 * 900 + 60)
    rounds = [(asked(host, Store) - first[host.id]) / 8 for host in hosts]
    kept = [host.announced[-1][1].replicas > 0 for host in hosts]
    assert sum(rounds) < 0.85 * 2.2 * len(hosts)
    # Those in some replica's sample refresh in time, the others when the population says so.
    assert min(count for count, is_kept in zip(rounds, kept, strict=True) if is_kept) >= 1
    assert max(count for count, is_kept in zip(rounds, kept, strict=True) if not is_kept) <= 2
    answered = hosts[3].look_up(key(1))[1]
    assert 4 <= len(answered.providers) <= 32
    assert 15 < answered.population < 120


def test_a_great_many_offers_are_announced_in_their_turn() -> None:
    world = World(18)
    hosts = world.network(10)
    for number in range(200):
        hosts[1].announce(offer(number))
    assert len(hosts[1].sent) < 2000
    world.run(30)
    assert {one.key for _, one in hosts[1].announced} == {key(number) for number in range(200)}
    assert nodes(hosts[5].look_up(key(199))) == {hosts[1].id}


def test_whole_images_are_announced_ahead_of_parts_and_what_was_withdrawn_in_line_takes_no_turn() -> None:
    world = World(18)
    hosts = world.network(10)
    for number in range(300):
        hosts[1].announce(offer(number, PARTIAL))
    for number in range(100, 250):
        hosts[1].withdraw(key(number))
    hosts[1].announce(offer(1000))
    hosts[1].announce(offer(299))  # that one has become whole
    world.run(1)
    assert {key(1000), key(299)} <= {one.key for _, one in hosts[1].announced}
    world.run(10)
    assert {one.key for _, one in hosts[1].announced} == {
        key(number) for number in (*range(100), *range(250, 300), 1000)
    }
    assert nodes(hosts[5].look_up(key(299))) == {hosts[1].id}


def test_alone_with_a_great_many_offers() -> None:
    """Rounds that end as they begin do not pile up on the stack, and are told as soon as there is anybody to tell."""
    world = World(19)
    host, other = world.host(), world.host()
    host.tell(Join(()))
    for number in range(1200):
        host.announce(offer(number))
    for number in range(500):
        host.find(key(number))
    world.run(200)
    assert len(host.announced) == 1200
    assert len(host.found) == 500
    other.tell(Join((host.endpoint,)))
    world.run(200)
    assert len(other.node.shelves) == 1200


def test_searches_wait_their_turn() -> None:
    world = World(20)
    hosts = world.network(20)
    hosts[1].announce(offer(1))
    world.run(5)
    tickets = [hosts[2].find(key(1)) for _ in range(100)]
    world.run(5)
    assert all(hosts[2].found[ticket][1].providers for ticket in tickets)


def test_messages_fit_whatever_is_kept() -> None:
    world = World(21, measure=True)
    hosts = world.network(40)
    for host in hosts:
        host.announce(offer(1))
    world.run(10)
    assert len(nodes(hosts[0].look_up(key(1)))) >= 16
    assert world.largest_bytes > 900


def test_beyond_all_measure_a_search_ends_at_once() -> None:
    world = World(22)
    policy = DhtPolicy(lookups_max=2, lookups_waiting_max=3)
    hosts = world.network(8, policy=policy)
    hosts[1].announce(offer(1))
    world.run(5)
    tickets = [hosts[2].find(key(9)) for _ in range(10)]
    ended = [ticket for ticket in tickets if ticket in hosts[2].found]
    assert len(ended) == 10 - 2 - 3
    assert all(hosts[2].found[ticket][1].asked == 0 for ticket in ended)


# --- corners ---


def test_what_is_withdrawn_while_it_is_being_announced_is_nowhere() -> None:
    world = World(23)
    hosts = world.network(20)
    hosts[3].announce(offer(1))
    hosts[3].withdraw(key(1))
    hosts[3].withdraw(key(1))
    world.run(2)
    assert hosts[3].withdrawn == [key(1)]
    assert not holders(hosts, key(1))
    hosts[3].announce(offer(1))
    world.run(2)
    hosts[3].withdraw(key(1))
    hosts[3].announce(offer(1, PARTIAL))  # while others are being told
    world.run(2)
    assert len(holders(hosts, key(1))) == 8


def test_a_name_that_nobody_would_keep_is_kept_by_nobody() -> None:
    world = World(24)
    hosts = world.network(5)
    name = DiscoveryKey.of_name("debian:12")
    hosts[1].announce(NameOffer(name, b"forged", 1))
    world.run(2)
    ((_, announced),) = hosts[1].announced
    assert not any(name in host.node.shelves.names for host in hosts)
    assert hosts[2].look_up(name)[1].names == ()
    assert announced.key == name


def test_a_host_whose_only_contact_dies_at_once_is_ready_all_the_same() -> None:
    world = World(25)
    first, second = world.host(), world.host()
    first.tell(Join(()))
    second.tell(Join((first.endpoint,)))
    world.run_until(lambda: len(second.node.table) > 0, 1.0)
    first.alive = False
    world.run(5)
    assert len(second.joined) == 1
    assert len(second.look_up(key(1))[1].providers) == 0


# --- what every host is to know ---


@pytest.mark.parametrize(("count", "loss"), [(2, 0.0), (20, 0.3), (200, 0.1)])
def test_a_recall_reaches_every_host_in_seconds(count: int, loss: float) -> None:
    world = World(5)
    hosts = world.network(count)
    world.run(60.0)
    world.loss = loss
    before = world.datagrams
    record = world.ledger.recall(key(1))
    hosts[0].spread(key(1), record)
    world.run(10.0)
    assert all(record in host.knows for host in hosts)
    # Each tells each of its contacts, who answer; with losses again, but not for ever.
    contacts = sum(len(host.node.table) for host in hosts)
    assert world.datagrams - before < 4 * contacts + 100 * count


def test_a_host_that_only_looks_finds_it() -> None:
    world = World(6)
    hosts = world.network(30)
    world.run(60.0)
    record = world.ledger.recall(key(1))
    hosts[0].announce(NameOffer(key(1), record, 1))
    world.run(5.0)
    late = world.host()
    late.tell(Join((hosts[3].endpoint,)))
    world.run(5.0)
    assert record not in late.knows
    assert late.look_up(key(1))[1].names == (record,)
