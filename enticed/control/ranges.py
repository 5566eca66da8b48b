"""The Range header (RFC 9110, section 14): which bytes of an image a client wants."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import web

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
_OFFSET_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class ByteRange:
    offset_bytes: int
    size_bytes: int

    def content_range(self, total_bytes: int) -> str:
        """As the header of that name has it."""
        return f"bytes {self.offset_bytes}-{self.offset_bytes + self.size_bytes - 1}/{total_bytes}"


def parse_range(header: str | None, total_bytes: int) -> ByteRange | None:
    """The one range that is asked for, cut at the end of the content; None where all of it is meant.

    All of it is also the answer to what is no range of bytes, and to several ranges at once: RFC 9110 lets a server
    ignore such a header. `web.HTTPRequestRangeNotSatisfiable` for a range of which nothing is there.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = (_number(text) for text in match.groups())
    if first is None and last is None:
        return None
    if first is None:  # so many of the last bytes
        first, last = max(0, total_bytes - (last or 0)), total_bytes - 1 if last else -1
    elif last is not None and last < first:
        return None
    if first >= total_bytes or last == -1:
        raise web.HTTPRequestRangeNotSatisfiable(
            text=f"the range begins beyond the end: the image has {total_bytes} bytes",
            headers={"Content-Range": f"bytes */{total_bytes}"},
        )
    end = total_bytes if last is None else min(last + 1, total_bytes)
    return ByteRange(first, end - first)


def _number(text: str) -> int | None:
    """Beyond what any offset can be, all numbers are alike."""
    digits = text.lstrip("0")
    if not text:
        return None
    return int(digits or "0") if len(digits) <= _OFFSET_MAX_DIGITS else 10**_OFFSET_MAX_DIGITS
