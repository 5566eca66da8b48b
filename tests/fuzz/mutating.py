"""Inputs made from true ones by a few small changes: no knowledge of any format but that lengths and counts matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

LONGEST_BYTES = 70_000
_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_PIECES = (
    b"\0", b"\xff", b"\n", b"\r\n", b"\x1b", b"%n", b"../", b"\xc0", b"\xc1", b"\x91", b"\x80", b"\xcf", b"\xd9",
    b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"NaN", b"1e999", b"-0", b"[[", b"{",
    b'"', b"\xed\xa0\x80",
)  # fmt: skip


def mutations(seeds: Sequence[bytes], dice: Random) -> Iterator[bytes]:
    """The seeds themselves, then changed ones without end."""
    yield from seeds
    while True:
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
            dice.choice(_CHANGES)(data, seeds, dice)
        yield bytes(data[:LONGEST_BYTES])


def _flip(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.randrange(256)


def _number(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    size, order = dice.choice((1, 2, 4, 8)), dice.choice(("big", "little"))
    value = (dice.choice(_NUMBERS) + dice.randrange(-2, 3)) % (1 << 8 * size)
    at = dice.randrange(len(data) + 1)
    data[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]


def _insert(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice(_PIECES) * dice.choice((1, 1, 2, 17, 1000))


def _cut(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    at = dice.randrange(len(data) + 1)
    del data[at : at + dice.choice((1, 1, 2, 4, 30, len(data)))]


def _repeat(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = data[at : at + dice.choice((1, 4, 30, 300))] * dice.choice((1, 2, 40))


def _splice(data: bytearray, seeds: Sequence[bytes], dice: Random) -> None:
    other = dice.choice(seeds)
    data[dice.randrange(len(data) + 1) :] = other[dice.randrange(len(other) + 1) :]


_CHANGES = (_flip, _set, _number, _insert, _cut, _repeat, _splice)
