"""The Range header: every text is a range, everything, or 416."""

from __future__ import annotations

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from enticed.control.ranges import ByteRange, parse_range

TOTAL = 1000
numbers = st.integers(0, 2**80)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", ByteRange(0, 100)),
        ("bytes=990-", ByteRange(990, 10)),
        ("bytes=-10", ByteRange(990, 10)),
        ("bytes=-5000", ByteRange(0, 1000)),
        ("bytes=0-99999999999999999999999999", ByteRange(0, 1000)),
        (" Bytes = 5 - 5 ", ByteRange(5, 1)),
        (None, None),
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=9-5", None),
        ("bytes=0-1,5-6", None),
        ("blocks=0-1", None),
        ("bytes=٣-٤", None),
        ("bytes=0x1-2", None),
    ],
)
def test_what_a_header_means(header: str | None, expected: ByteRange | None) -> None:
    assert parse_range(header, TOTAL) == expected


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_beyond_the_end_is_416_and_says_how_long_it_is(header: str) -> None:
    with pytest.raises(web.HTTPRequestRangeNotSatisfiable) as told:
        parse_range(header, TOTAL)
    assert told.value.headers["Content-Range"] == "bytes */1000"


@given(st.one_of(st.text(), st.from_regex(r"bytes=[0-9 -]*"), st.builds("bytes={}-{}".format, numbers, numbers)))
def test_any_text_is_a_range_within_the_content_or_none(header: str) -> None:
    try:
        found = parse_range(header, TOTAL)
    except web.HTTPRequestRangeNotSatisfiable:
        return
    assert found is None or (found.offset_bytes >= 0 and 0 < found.size_bytes <= TOTAL - found.offset_bytes)


@given(st.integers(0, TOTAL - 1), st.integers(0, TOTAL - 1))
def test_a_range_is_the_bytes_that_it_names(first: int, last: int) -> None:
    found = parse_range(f"bytes={first}-{last}", TOTAL)
    assert found == (ByteRange(first, last - first + 1) if first <= last else None)
