"""Whatever happens, in whatever order: books stay right, and once things go well every order is met."""

import pytest

from tests.core.chaos import chaos, ended_well


@pytest.mark.parametrize("seed", range(40))
def test_books_stay_right_whatever_happens(seed: int) -> None:
    world = chaos(seed)
    for _ in range(400):
        world.step()
    world.settle()
    assert ended_well(world.host)
