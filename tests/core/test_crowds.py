"""A seed with as many sessions as it keeps: who comes next is sent to others, and who has no use for its place goes."""

from __future__ import annotations

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.policy import Policy
from enticed.limits import SESSIONS_MAX_COUNT
from protocol import messages as ms
from protocol.identifiers import ImageId
from protocol.limits import ALTERNATIVES_MAX_COUNT
from tests.core.bench import IMAGE, OTHER, Bench
from tests.core.chaos import contact, node

FULL = ALTERNATIVES_MAX_COUNT
NEXT = FULL + 1


def come(bench: Bench, number: int, *images: ImageId) -> list[ef.Effect]:
    """A host dials and subscribes; what is said and done to it then."""
    bench.meet(number)
    came: list[ef.Effect] = []
    for image in images:
        came += bench.hear(number, ms.Subscribe(image))
    return came


def crowded() -> Bench:
    """It has two images, and keeps as many sessions as there are hosts after IMAGE, from 1 on."""
    bench = Bench(sessions_kept=FULL)
    bench.published()
    bench.published(image=OTHER)
    for number in range(1, NEXT):
        assert not any(isinstance(effect, ef.HangUp) for effect in come(bench, number, IMAGE))
    return bench


def sent_away(effects: list[ef.Effect]) -> list[ef.HangUp]:
    return [effect for effect in effects if isinstance(effect, ef.HangUp) and "are named" in effect.reason]


def test_who_comes_to_a_crowded_seed_is_told_of_others_and_then_hung_up_on() -> None:
    said, hang_up = come(crowded(), NEXT, IMAGE)
    assert isinstance(said, ef.Say)
    assert isinstance(said.message, ms.Acquaint)
    assert {one.node for one in said.message.hosts} == {node(number) for number in range(1, NEXT)}
    assert isinstance(hang_up, ef.HangUp)
    assert said.node == hang_up.node == node(NEXT)


def test_who_comes_again_stays_for_it_may_have_found_nobody() -> None:
    bench = crowded()
    assert sent_away(come(bench, NEXT, IMAGE))
    bench.tell(ev.PeerDown(node(NEXT)))
    came = come(bench, NEXT, IMAGE)
    assert not sent_away(came)
    assert any(isinstance(effect, ef.Say) and isinstance(effect.message, ms.HaveMap) for effect in came)


def test_what_else_it_has_asked_for_before_it_heard_the_goodbye_changes_nothing() -> None:
    bench = crowded()
    assert len(come(bench, NEXT, IMAGE, OTHER, IMAGE)) == 2
    bench.tell(ev.PeerDown(node(NEXT)))
    assert not sent_away(come(bench, NEXT, IMAGE))


def test_no_more_are_sent_away_than_there_are_too_many() -> None:
    bench = crowded()
    for number in (NEXT, NEXT + 1):
        bench.meet(number)
    assert sent_away(bench.hear(NEXT, ms.Subscribe(IMAGE)))
    assert sent_away(bench.hear(NEXT + 1, ms.Subscribe(IMAGE)))
    bench.meet(NEXT + 2)
    bench.tell(ev.PeerDown(node(1)))
    assert not sent_away(bench.hear(NEXT + 2, ms.Subscribe(IMAGE)))


def test_who_was_dialled_from_here_keeps_its_place() -> None:
    """A campaign has sent it here: the session is how it tells how its order goes."""
    bench = crowded()
    bench.tell(ev.PeerUp(contact(NEXT), dialled_here=True))
    assert not sent_away(bench.hear(NEXT, ms.Subscribe(IMAGE)))


def test_who_is_here_for_another_image_keeps_its_place() -> None:
    bench = crowded()
    assert not sent_away(come(bench, NEXT, OTHER, IMAGE))


def test_where_few_can_be_named_who_comes_stays() -> None:
    """One that is named alone could be a liar, or out of reach."""
    bench = crowded()
    for number in range(NEXT, NEXT + FULL):
        assert not sent_away(come(bench, number, OTHER))
    assert sent_away(come(bench, NEXT + FULL, OTHER))


def test_a_host_that_pulls_sends_nobody_away() -> None:
    """Who dials it may be the one that has what it is after."""
    bench = crowded()
    bench.order("order", ImageId.of(b"third"))
    assert not sent_away(come(bench, NEXT, IMAGE))


def test_sessions_of_no_use_go_sooner_from_a_crowded_seed_but_for_its_own() -> None:
    bench, policy = crowded(), Policy()
    bench.tell(ev.PeerUp(contact(NEXT), dialled_here=True))
    bench.hear(1, ms.Unsubscribe(IMAGE))
    bench.wait(policy.session_idle_crowded_s - 0.1)
    assert bench.done == []
    bench.wait(0.2)
    assert bench.one(ef.HangUp) == ef.HangUp(node(1), "idle")
    bench.tell(ev.PeerDown(node(1)))
    bench.wait(policy.session_idle_s - policy.session_idle_crowded_s - 1)
    assert bench.done == []
    bench.wait(2)
    assert bench.one(ef.HangUp) == ef.HangUp(node(NEXT), "idle")


def test_there_is_room_for_those_who_are_told_and_go() -> None:
    policy = Policy()
    assert policy.dialled_max < policy.sessions_kept <= SESSIONS_MAX_COUNT - policy.dials_at_once


def test_who_was_sent_to_others_dials_them_and_says_what_it_was_told() -> None:
    bench, reason = Bench(), "the peer says goodbye: 'many sessions are open'"
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, (contact(1),)))
    bench.tell(ev.PeerUp(contact(1), dialled_here=True))
    bench.hear(1, ms.Acquaint(IMAGE, (ms.Alternative(node(2), contact(2).addresses),)))
    assert bench.one(ef.Dial).contact.node == node(2)
    bench.tell(ev.PeerDown(node(1), reason))
    assert f"({reason})" in bench.host.why("order", bench.now)
