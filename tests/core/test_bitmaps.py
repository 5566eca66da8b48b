"""Have-maps: what is packed is unpacked, and only what was packed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.bitmaps import bits_of, bits_of_mask, pack_bitmap, pieces_of, unpack_bitmap
from protocol.errors import MalformedError


@given(st.lists(st.booleans(), max_size=200))
def test_what_is_packed_is_unpacked(held: list[bool]) -> None:
    packed = pack_bitmap(np.array(held, np.bool_))
    assert len(packed) == (len(held) + 7) // 8
    assert unpack_bitmap(packed, len(held)).tolist() == held


@given(st.sets(st.integers(0, 300)))
def test_sets_of_pieces_as_integers(pieces: set[int]) -> None:
    mask = np.isin(np.arange(301), list(pieces))
    assert bits_of(pieces) == bits_of_mask(mask) == sum(1 << piece for piece in pieces)
    assert pieces_of(bits_of(pieces)).tolist() == sorted(pieces)


@given(st.binary(max_size=20), st.integers(0, 170))
def test_any_bytes_are_a_map_or_malformed(data: bytes, pieces: int) -> None:
    try:
        held = unpack_bitmap(data, pieces)
    except MalformedError:
        return
    assert len(held) == pieces
    assert pack_bitmap(held) == data


@pytest.mark.parametrize(("data", "pieces"), [(b"", 1), (b"\0", 0), (b"\0\0", 8), (b"\x01", 7)])
def test_maps_of_another_length_are_malformed(data: bytes, pieces: int) -> None:
    with pytest.raises(MalformedError):
        unpack_bitmap(data, pieces)


def test_the_first_piece_is_the_most_significant_bit() -> None:
    assert pack_bitmap(np.array([True, False, True])) == b"\xa0"
