"""Sets of pieces: have-maps on the wire, and integers in which piece n is bit n.

On the wire: a bit per piece, most significant bit first, padded with zeros. As integers, because to join or compare two
sets of a thousand pieces then takes a tenth of what it takes with arrays, and the picker does little else.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MalformedError


def pack_bitmap(held: NDArray[np.bool_]) -> bytes:
    return np.packbits(held).tobytes()


def unpack_bitmap(bitmap: bytes, pieces: int) -> NDArray[np.bool_]:
    """bool, one per piece; `MalformedError` for a map of another length or with bits behind its end."""
    if len(bitmap) != (pieces + 7) // 8:
        raise MalformedError(f"a have-map of {len(bitmap)} bytes for {pieces} pieces")
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8))
    if bits[pieces:].any():
        raise MalformedError("a have-map with bits behind its end")
    return bits[:pieces].astype(np.bool_)


def bits_of_mask(mask: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def bits_of(pieces: Iterable[int]) -> int:
    bits = 0
    for piece in pieces:
        bits |= 1 << piece
    return bits


def pieces_of(bits: int) -> NDArray[np.int64]:
    """The pieces in a set, rising."""
    raw = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").nonzero()[0]
