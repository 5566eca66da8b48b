"""A host with as many sessions as it keeps: who comes next is sent to others, and who has no use for its place goes."""

from __future__ import annotations

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.policy import Policy
from enticed.limits import SESSIONS_MAX_COUNT
from protocol import messages as ms
from tests.core.bench import IMAGE, OTHER, Bench
from tests.core.chaos import contact, node


def crowded() -> Bench:
    """A seed that keeps two sessions; hosts 1 and 2 are after its image."""
    bench = Bench(sessions_kept=2)
    bench.published()
    bench.published(image=OTHER)
    for number in (1, 2):
        bench.meet(number)
        bench.hear(number, ms.Subscribe(IMAGE))
        assert not bench.all(ef.HangUp)
    return bench


def test_who_comes_to_a_crowded_host_is_told_of_others_and_then_hung_up_on() -> None:
    bench = crowded()
    bench.meet(3)
    assert bench.done == []
    bench.hear(3, ms.Subscribe(IMAGE))
    said, hang_up = bench.done
    assert isinstance(said, ef.Say)
    assert isinstance(said.message, ms.Acquaint)
    assert {one.node for one in said.message.hosts} == {node(1), node(2)}
    assert hang_up == ef.HangUp(node(3), "too many sessions are open; others are named")


def test_who_was_dialled_from_here_keeps_its_place() -> None:
    """A campaign has sent it here: the session is how it tells how its order goes."""
    bench = crowded()
    bench.tell(ev.PeerUp(contact(3), dialled_here=True))
    bench.hear(3, ms.Subscribe(IMAGE))
    assert not bench.all(ef.HangUp)
    assert bench.said(3)


def test_who_is_here_for_another_image_keeps_its_place() -> None:
    bench = crowded()
    bench.hear(2, ms.Subscribe(OTHER))
    bench.meet(3)
    bench.tell(ev.PeerDown(node(1)))
    bench.hear(3, ms.Subscribe(IMAGE))
    bench.meet(4)
    bench.hear(2, ms.Subscribe(IMAGE))
    bench.hear(3, ms.Subscribe(OTHER))
    assert not bench.all(ef.HangUp)


def test_where_nobody_can_be_named_the_one_that_comes_may_stay() -> None:
    bench = crowded()
    bench.meet(3)
    bench.hear(3, ms.Subscribe(OTHER))
    assert not bench.all(ef.HangUp)
    assert any(isinstance(said, ms.HaveMap) for said in bench.said(3))


def test_sessions_of_no_use_go_sooner_from_a_crowded_host() -> None:
    bench = crowded()
    bench.hear(1, ms.Unsubscribe(IMAGE))
    bench.wait(Policy().session_idle_crowded_s + 1)
    assert not bench.all(ef.HangUp), "nobody wants the place"
    bench.meet(3)
    assert bench.one(ef.HangUp) == ef.HangUp(node(1), "idle")


def test_there_is_room_for_those_who_are_told_and_go() -> None:
    policy = Policy()
    assert policy.sessions_max < policy.sessions_kept <= SESSIONS_MAX_COUNT - policy.dials_at_once


def test_who_was_sent_to_others_dials_them_and_says_why_nothing_came() -> None:
    bench, reason = Bench(), "the peer says goodbye: 'too many sessions are open; others are named'"
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, (contact(1),)))
    bench.tell(ev.PeerUp(contact(1), dialled_here=True))
    bench.hear(1, ms.Acquaint(IMAGE, (ms.Alternative(node(2), contact(2).addresses),)))
    assert bench.one(ef.Dial).contact.node == node(2)
    bench.tell(ev.PeerDown(node(1), reason))
    assert f"({reason})" in bench.host.why("order", bench.now)
