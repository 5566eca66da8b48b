"""Hosts that this one knew are asked where lookups find nobody."""

from __future__ import annotations

from enticed.core import effects as ef
from enticed.core import events as ev
from protocol.messages import NotHeld
from tests.core.bench import IMAGE, OTHER, Bench
from tests.core.chaos import contact, node


def find_nobody(bench: Bench) -> list[ef.Dial]:
    """Let the next lookup of the image come to nothing; whom that has dialled."""
    while not bench.all(ef.FindProviders):
        bench.wait(0.25)
    bench.tell(ev.ProvidersFound(IMAGE, ()))
    return bench.all(ef.Dial)


def test_who_was_known_is_dialled_when_nobody_is_found() -> None:
    bench = Bench()
    bench.meet(1, 2)
    bench.tell(ev.PeerDown(node(1)))
    bench.tell(ev.PeerDown(node(2)))
    bench.order()
    assert {dial.contact.node for dial in find_nobody(bench)} == {node(1), node(2)}
    bench.tell(ev.PeerUp(contact(1)))
    bench.has(1)
    assert bench.one(ef.FetchManifest).node == node(1)


def test_they_are_left_alone_while_others_are_found() -> None:
    bench = Bench()
    bench.meet(1)
    bench.tell(ev.PeerDown(node(1)))
    bench.order()
    while not bench.all(ef.FindProviders):
        bench.wait(0.25)
    bench.tell(ev.ProvidersFound(IMAGE, (contact(2),)))
    assert [dial.contact.node for dial in bench.all(ef.Dial)] == [node(2)]


def test_who_cannot_be_reached_is_forgotten_and_no_more_are_kept_than_should_be() -> None:
    bench = Bench(acquaintances_max=2)
    bench.meet(1, 2, 3)
    bench.hear(3, NotHeld(OTHER))
    assert list(bench.host.books.acquaintances) == [node(2), node(3)]
    bench.tell(ev.PeerDown(node(2)))
    bench.tell(ev.DialFailed(node(2), "refused"))
    assert list(bench.host.books.acquaintances) == [node(3)]
