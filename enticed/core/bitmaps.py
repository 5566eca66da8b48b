"""Have-maps on the wire: a bit per piece, most significant bit first, padded with zeros."""

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
