"""Orders of other hosts: taken from those that may, within bounds, and never mistaken for those of somebody else."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.campaigns.admission import Bounds, Declined, admit, key_of, owner_of
from enticed.core.orders import Failure, Order, OrderState, Priority
from protocol.identifiers import ImageId, NodeId
from protocol.messages import PlaceOrder
from tests.wire.said import records

ONE, OTHER = NodeId(bytes(20)), NodeId(bytes([1] * 20))
ASKED = PlaceOrder("c", ImageId(bytes(32)), 60_000, 3600, "nova")
BOUNDS = Bounds(per_host=2, in_all=3, lease_s=7200.0)


def order_of(node: NodeId, key: str, state: OrderState = OrderState.FETCHING) -> Order:
    return Order(key_of(node, key), "web:1", 0.0, state=state, owner=owner_of(node))


def test_an_order_is_a_prewarm_of_who_placed_it() -> None:
    order = admit(ASKED, ONE, True, (), BOUNDS, now=100.0)
    assert order == Order(
        key_of(ONE, "c"), str(ASKED.image), 100.0, 160.0, Priority.PREWARM, 3600.0, owner=owner_of(ONE)
    )


def test_an_enrolled_host_orders_nothing_on_others() -> None:
    declined = admit(ASKED, ONE, False, (), BOUNDS, now=100.0)
    assert isinstance(declined, Declined)
    assert declined.failure is Failure.DENIED


def test_so_many_orders_of_one_host_and_of_all() -> None:
    mine = [order_of(ONE, "a"), order_of(ONE, "b")]
    for orders, is_taken in (
        (mine, False),
        ([*mine[:1], order_of(OTHER, "a")], True),
        ([order_of(OTHER, key) for key in "abc"], False),
        ([mine[0], order_of(ONE, "c")], True),  # the same again
        ([mine[0], order_of(ONE, "b", OrderState.FAILED)], True),
        ([*mine[:1], Order("x", "web:1", 0.0), Order("y", "web:1", 0.0, owner="scheduler:nova")], True),
    ):
        taken = admit(ASKED, ONE, True, orders, BOUNDS, now=100.0)
        assert isinstance(taken, Order) == is_taken, orders
        assert is_taken or (isinstance(taken, Declined) and taken.failure is Failure.BUSY)


def test_an_order_of_somebody_else_is_never_taken_for_one_of_the_host() -> None:
    for state in (OrderState.FETCHING, OrderState.READY, OrderState.CANCELLED):
        for owner in ("", "scheduler:nova", owner_of(OTHER)):
            theirs = replace(order_of(ONE, "c", state), owner=owner)
            taken = admit(ASKED, ONE, True, [theirs], BOUNDS, now=100.0)
            assert isinstance(taken, Declined)
            assert (taken.failure, "is in use there by" in taken.reason) == (Failure.DENIED, True)


def test_a_lease_is_never_longer_than_this_host_allows() -> None:
    order = admit(replace(ASKED, keep_s=2**32 - 1, due_in_ms=None), ONE, True, (), BOUNDS, now=0.0)
    assert isinstance(order, Order)
    assert (order.keep_s, order.due_at) == (7200.0, None)


@given(records(PlaceOrder), st.booleans())
def test_whatever_is_asked_has_an_answer(asked: PlaceOrder, may_dispatch: bool) -> None:
    taken = admit(asked, ONE, may_dispatch, (), BOUNDS, now=1e9)
    assert isinstance(taken, Order) == may_dispatch
    if isinstance(taken, Order):
        assert taken.key.startswith(str(ONE))
        assert taken.priority is Priority.PREWARM
