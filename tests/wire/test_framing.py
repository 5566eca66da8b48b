"""Frames: any cut of the stream gives the same frames, and a bad length ends the stream for good."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalError, MalformedError
from protocol.framing import FRAME_HEADER_SIZE_BYTES, FrameReader, encode_frame, frame_size_bytes
from protocol.limits import FRAME_MAX_SIZE_BYTES

PAYLOADS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def read(reader: FrameReader, data: bytes | memoryview) -> list[bytes]:
    reader.feed(data)
    return list(reader.frames())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"
    assert FRAME_HEADER_SIZE_BYTES == 4
    assert frame_size_bytes(memoryview(b"\x00\x00\x00\x03")) == 3


@pytest.mark.parametrize("size", [0, FRAME_MAX_SIZE_BYTES + 1])
def test_no_frame_is_empty_or_larger_than_the_limit(size: int) -> None:
    with pytest.raises(LocalError):
        encode_frame(bytes(size))
    with pytest.raises(MalformedError):
        read(FrameReader(), struct.pack(">I", size))


def test_the_largest_frame_passes() -> None:
    payload = bytes(FRAME_MAX_SIZE_BYTES)
    assert read(FrameReader(), encode_frame(payload)) == [payload]


@given(PAYLOADS, st.lists(st.integers(0), max_size=12))
def test_the_frames_do_not_depend_on_how_the_stream_is_cut(payloads: list[bytes], places: list[int]) -> None:
    reader = FrameReader()
    stream = b"".join(encode_frame(payload) for payload in payloads)
    frames = [frame for part in cut(stream, places) for frame in read(reader, memoryview(part))]
    assert frames == payloads


@given(st.binary(max_size=300), st.lists(st.integers(0), max_size=6))
def test_any_bytes_give_frames_or_malformed_once(stream: bytes, places: list[int]) -> None:
    reader, failed = FrameReader(), 0
    for part in cut(stream, places):
        try:
            frames = read(reader, part)
        except MalformedError:
            failed += 1
            continue
        assert not (failed and frames)
    assert failed <= 1


def test_nothing_is_read_after_a_bad_length() -> None:
    reader = FrameReader()
    assert read(reader, b"\x00\x00") == []
    with pytest.raises(MalformedError):
        read(reader, b"\x00\x00" + encode_frame(b"abc"))
    assert read(reader, encode_frame(b"abc")) == []


def test_nothing_is_read_once_it_discards() -> None:
    reader = FrameReader()
    assert read(reader, encode_frame(b"abc")[:5]) == []
    reader.discard()
    assert read(reader, encode_frame(b"abc")[5:] + encode_frame(b"def")) == []


def test_frames_before_a_bad_length_are_read() -> None:
    reader = FrameReader()
    reader.feed(encode_frame(b"abc") + encode_frame(b"def") + b"\xff\xff\xff\xff")
    frames = reader.frames()
    assert next(frames) == b"abc"
    frames = reader.frames()  # who stops in between goes on with the next
    assert next(frames) == b"def"
    with pytest.raises(MalformedError):
        next(frames)
    assert list(reader.frames()) == []
