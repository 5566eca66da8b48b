"""Decoded pages in memory: those asked for last, and no more than there is room for."""

from __future__ import annotations

from enticed.store.page_cache import PageCache
from tests.store.making import make_image


def test_what_was_asked_for_last_stays() -> None:
    made = make_image(1)
    run = made.fragments[:4]
    cache = PageCache(max_count=8)
    cache.put((made.image, 0), run)
    cache.put((made.image, 1), run)
    assert cache.get((made.image, 0)) is run
    cache.put((made.image, 2), run)
    assert cache.get((made.image, 1)) is None
    assert cache.get((made.image, 0)) is cache.get((made.image, 2)) is run


def test_a_run_read_twice_counts_once() -> None:
    made = make_image(1)
    cache = PageCache(max_count=8)
    for _ in range(3):
        cache.put((made.image, 0), made.fragments[:4])
    cache.put((made.image, 1), made.fragments[:4])
    assert cache.get((made.image, 0)) is not None


def test_the_last_run_is_kept_however_long() -> None:
    made = make_image(1)
    cache = PageCache(max_count=1)
    cache.put((made.image, 0), made.fragments[:2])
    cache.put((made.image, 1), made.fragments[:4])
    assert cache.get((made.image, 0)) is None
    assert cache.get((made.image, 1)) is not None
