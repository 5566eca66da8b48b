"""One order from its placing to its lease, every event and every effect: what each interpreter has to do."""

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.image_book import PieceState, Supply
from enticed.core.orders import Order, OrderState
from protocol import messages as ms
from protocol.limits import MIB
from tests.core.bench import IMAGE, Bench, sizes
from tests.core.chaos import contact, node


def kinds(effects: list[ef.Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def saved(bench: Bench) -> list[str]:
    return [str(effect.order.state) for effect in bench.all(ef.SaveOrder)]


def test_an_order_from_its_placing_to_its_lease() -> None:
    bench = Bench()

    # An order comes; its name is resolved; hosts are looked for.
    bench.tell(ev.OrderPlaced(Order("order", "debian:12", bench.now, keep_s=60.0)))
    assert kinds(bench.done) == ["SaveOrder", "SaveOrder", "ResolveTarget"]
    assert saved(bench) == ["queued", "resolving"]
    bench.tell(ev.TargetResolved("order", "debian:12", IMAGE))
    assert kinds(bench.done) == ["SaveOrder", "FindProviders"]

    # Two are found, one answers; it has the image, so it is asked for the manifest.
    bench.tell(ev.ProvidersFound(IMAGE, (contact(2), contact(3), bench.host.books.me)))
    assert {effect.contact.node for effect in bench.all(ef.Dial)} == {node(2), node(3)}
    bench.tell(ev.DialFailed(node(3), "refused"))
    assert bench.done == []
    bench.tell(ev.PeerUp(contact(2)))
    assert bench.done == [ef.Say(node(2), ms.Subscribe(IMAGE))]
    bench.has(2, pieces=2)
    assert bench.done == [ef.FetchManifest(IMAGE, node(2))]

    # The manifest is here, then the space: piece 0 can be put together from local images, piece 1 must be fetched.
    bench.tell(ev.ManifestFetched(IMAGE, sizes(2)))
    assert kinds(bench.done) == ["SaveOrder", "Reserve"]
    bench.tell(ev.SpaceReserved(IMAGE, np.zeros(2, np.bool_), np.array([0, MIB], np.int64)))
    assert saved(bench) == ["fetching"]
    assert {effect.piece for effect in bench.all(ef.OpenPiece)} == {0, 1}
    bench.open(0, missing=[])
    assert bench.done == []
    bench.open(1, missing=[0, 2, 3])
    first, second = bench.all(ef.Fetch)
    assert [(one.wanted.first, one.wanted.count) for one in (first, second)] == [(0, 1), (2, 2)]

    # A peer subscribes and hears of what is here, then of what comes.
    bench.tell(ev.PeerUp(contact(4)))
    bench.hear(4, ms.Subscribe(IMAGE))
    assert ms.HaveMap(IMAGE, 2, b"\x80") in bench.said(4)
    bench.tell(ev.Fetched(first.request))
    bench.tell(ev.Fetched(second.request))
    assert bench.done == [ef.SaveOrder(bench.host.books.orders["order"]), ef.MakeDurable(IMAGE, (0, 1))]
    bench.wait(0.1)
    assert bench.said(4) == [ms.HaveChange(IMAGE, (1,), ())]

    # It becomes durable, is announced, sealed and leased; nobody need tell more about it.
    bench.tell(ev.Synced(IMAGE, (0, 1)))
    assert bench.done == [ef.Announce(IMAGE, whole=False), ef.Seal(IMAGE)]
    bench.tell(ev.Sealed(IMAGE))
    assert saved(bench) == ["ready"]
    assert ef.Announce(IMAGE, whole=True) in bench.done
    assert bench.said(2) == [ms.Unsubscribe(IMAGE)]
    order, book = bench.host.order("order"), bench.host.image(IMAGE)
    assert order is not None
    assert book is not None
    assert (order.state, order.keep_until) == (OrderState.READY, bench.now + 60)
    assert (book.state == PieceState.DURABLE).all()
    assert bench.host.is_leased(IMAGE, bench.now)
    quarter = MIB // 4
    supply = {Supply.ON_HAND: 0, Supply.RELATIVES: MIB + quarter, Supply.PEERS: 3 * quarter}
    assert bench.host.supplied("order") == supply

    # It serves now; sessions that nobody has a use for end.
    request = ms.FragmentsRequest(IMAGE, 1, 0, 4)
    bench.tell(ev.UploadAsked(1, node(4), request, MIB))
    assert bench.done == [ef.GrantUpload(1)]
    bench.tell(ev.UploadEnded(1, MIB))
    bench.hear(4, ms.Unsubscribe(IMAGE))
    bench.wait(100)
    assert {effect.node for effect in bench.all(ef.HangUp)} == {node(2), node(4)}
