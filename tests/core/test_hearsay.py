"""What a peer says of others: worth a look, and never in the way of what is known better."""

from __future__ import annotations

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.host import Host
from enticed.core.orders import Order, Priority
from enticed.core.policy import Policy
from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId, NodeId
from protocol.messages import Acquaint, Alternative

IMAGE = ImageId(bytes(32))
POLICY = Policy()


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def test_a_peer_that_names_many_hosts_keeps_nobody_from_the_providers() -> None:
    host = Host(Contact(node(0), (), "", ""), np.random.default_rng(1), POLICY)
    liar, publisher = node(1), node(2)
    dials: list[ef.Dial] = []

    def tell(event: ev.Event, now: float = 1.0) -> None:
        dials.extend(effect for effect in host.handle(event, now) if isinstance(effect, ef.Dial))

    tell(ev.PeerUp(Contact(liar, ("10.0.0.1:1",), "", "")))
    tell(ev.OrderPlaced(Order("order", str(IMAGE), 1.0, priority=Priority.BOOT)))
    tell(ev.TargetResolved("order", str(IMAGE), IMAGE))
    tell(ev.Heard(liar, Acquaint(IMAGE, (Alternative(publisher, ("10.0.0.1:666",)),))))
    for first in range(100, 2000, 8):
        names = tuple(Alternative(node(first + n), ("10.0.0.1:666",)) for n in range(8))
        tell(ev.Heard(liar, Acquaint(IMAGE, names)))
    assert len(dials) <= POLICY.degree // 2
    assert len(host.books.pulls[IMAGE].contacts) <= POLICY.hearsay_max
    providers = tuple(Contact(node(number), ("10.0.0.2:1",)) for number in range(3, 8))
    tell(ev.ProvidersFound(IMAGE, providers))
    for turn in range(1, len(providers)):
        tell(ev.Woken(), 1.0 + turn * POLICY.stranger_patience_s)
    assert {dial.contact for dial in dials if dial.contact.addresses == ("10.0.0.2:1",)} == set(providers)
    tell(ev.DialFailed(publisher, "nobody answers"))
    tell(ev.ProvidersFound(IMAGE, (Contact(publisher, ("10.0.0.2:1",)),)))
    assert host.books.pulls[IMAGE].contacts[publisher].addresses == ("10.0.0.2:1",)


def test_a_peer_that_makes_hosts_up_is_soon_heard_no_more_though_it_comes_back() -> None:
    """Each that it names is dialled and remembered: for this pull, so many."""
    host = Host(Contact(node(0), (), "", ""), np.random.default_rng(1), POLICY)
    liar, other = node(1), node(2)
    waiting: list[NodeId] = []
    dialled: set[NodeId] = set()

    def tell(event: ev.Event) -> None:
        dials = [effect.contact.node for effect in host.handle(event, 1.0) if isinstance(effect, ef.Dial)]
        waiting.extend(dials)
        dialled.update(dials)

    tell(ev.OrderPlaced(Order("order", str(IMAGE), 1.0, priority=Priority.BOOT)))
    tell(ev.TargetResolved("order", str(IMAGE), IMAGE))
    for first in range(100, 4000, 8):
        tell(ev.PeerUp(Contact(liar, ("10.0.0.1:1",), "", "")))
        names = tuple(Alternative(node(first + n), ("10.0.0.1:666",)) for n in range(8))
        tell(ev.Heard(liar, Acquaint(IMAGE, names)))
        while waiting:
            tell(ev.DialFailed(waiting.pop(), "nobody answers"))
        tell(ev.PeerDown(liar))
    pull = host.books.pulls[IMAGE]
    most = POLICY.hearsay_in_vain_max + POLICY.hearsay_max
    assert POLICY.hearsay_in_vain_max <= len(dialled) <= most
    assert max(len(pull.asked), len(pull.answers), len(pull.dialled_at)) <= most + 1
    tell(ev.PeerUp(Contact(other, ("10.0.0.3:1",), "", "")))
    tell(ev.Heard(other, Acquaint(IMAGE, (Alternative(node(9), ("10.0.0.9:1",)),))))
    assert waiting == [node(9)]  # what others say still counts
