"""Space: what images claim, from before their first byte until they are forgotten.

An image claims what it will take when it is whole. Of that, what its file does not take yet is outstanding: promised,
so nobody else may have it, though the file system still counts it as free. Holes claim nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from enticed.store.files import Files
from protocol.errors import EnticedError, NeverFitsError, NoSpaceError
from protocol.limits import BLOCK_SIZE_BYTES, GIB, KIB, MIB


@dataclass(frozen=True, slots=True)
class Space:
    """quota_bytes: None without one. used_bytes: what the images take now. promised_bytes: what they will take yet.
    free_bytes: of the file system. reserved_bytes: what is to stay free on it for the guests,
    maybe more than is free. place: the directory, for people.
    """

    quota_bytes: int | None
    used_bytes: int
    promised_bytes: int
    free_bytes: int
    reserved_bytes: int
    place: str

    @property
    def claimed_bytes(self) -> int:
        return self.used_bytes + self.promised_bytes

    @property
    def limit_bytes(self) -> int:
        """The most that images could take: by the quota, and by what the disk has for them."""
        disk_bytes = max(0, self.used_bytes + self.free_bytes - self.reserved_bytes)
        return disk_bytes if self.quota_bytes is None else min(self.quota_bytes, disk_bytes)

    @property
    def room_bytes(self) -> int:
        """How much more may be claimed, with nothing going for it."""
        disk_bytes = self.free_bytes - self.reserved_bytes - self.promised_bytes
        quota_bytes = disk_bytes if self.quota_bytes is None else self.quota_bytes - self.claimed_bytes
        return max(0, min(disk_bytes, quota_bytes))

    @property
    def overdrawn_bytes(self) -> int:
        """How much more than there is would have to be free for the guests' reserve and for all that was promised."""
        return max(0, self.reserved_bytes + self.promised_bytes - self.free_bytes)


class NoRoomError(NoSpaceError):
    """It does not fit beside what is here. short_bytes: how much would have to go."""

    def __init__(self, said: str, to_do_else: str, short_bytes: int, holds: str = "") -> None:
        """to_do_else: what helps besides removing images. holds: what holds the space, and how each of it goes."""
        super().__init__(
            f"{said}; {holds}: remove images{to_do_else}" if holds else f"{said}: remove images (entice rm){to_do_else}"
        )
        self.short_bytes = short_bytes
        self._said, self._to_do_else = said, to_do_else

    def held_by(self, holds: str) -> NoRoomError:
        """The same, for people who are to know what holds the space, too."""
        return NoRoomError(self._said, self._to_do_else, self.short_bytes, holds)


class TooLargeError(NeverFitsError):
    """An image that would not fit even if there were no other: waiting for room is of no use. short_bytes: how much
    larger it is than the quota."""

    def __init__(self, said: str, short_bytes: int) -> None:
        super().__init__(said)
        self.short_bytes = short_bytes


class Ledger:
    """The claims. The store calls it from one thread at a time; only `space` and `limit` may be called from any.

    Only files that may grow yet are asked what they take, so that it does not matter how many images there are.
    """

    def __init__(self, files: Files, quota_bytes: int | None, reserve_bytes: int, place: str) -> None:
        """place: where the images are, for people."""
        self._files = files
        self._place = place
        self._quota_bytes = quota_bytes
        self._reserve_bytes = reserve_bytes
        self._claims: dict[str, int] = {}
        """Size of each, in bytes."""
        self._taken: dict[str, Callable[[], int]] = {}
        """Of those that are not all written yet: what the file takes by now."""

    def limit(self, quota_bytes: int | None, reserve_bytes: int) -> None:
        """Other limits from now on; what has been claimed stays. May be called from any thread."""
        self._quota_bytes, self._reserve_bytes = quota_bytes, reserve_bytes

    def claim(self, key: str, size_bytes: int, taken: Callable[[], int] | None = None) -> None:
        """Add a claim, or change it. `NoSpaceError` where quota or disk have no room; the old claim then stays."""
        self.check(key, size_bytes, taken)
        self.record(key, size_bytes, taken)

    def check(self, key: str, size_bytes: int, taken: Callable[[], int] | None = None) -> None:
        """Raise as `claim` does, and claim nothing."""
        quota_bytes = self._quota_bytes
        if quota_bytes is not None:
            left_bytes = quota_bytes - sum(self._claims.values()) + self._claims.get(key, 0)
            if size_bytes > left_bytes:
                quota = f"the {size(quota_bytes)} of store.quota_bytes"
                if size_bytes > quota_bytes:
                    said = f"the image takes {size(size_bytes)}, more than {quota}: raise it, entice reload"
                    raise TooLargeError(said, size_bytes - quota_bytes)
                raise NoRoomError(
                    f"the quota is full: {size(size_bytes)} needed, {size(max(0, left_bytes))} left of {quota}",
                    ", or raise it and entice reload",
                    size_bytes - left_bytes,
                )
        needed_bytes = 0 if taken is None else max(0, size_bytes - taken())
        self._check_disk(needed_bytes, self._promised_bytes(but=key))

    def record(self, key: str, size_bytes: int, taken: Callable[[], int] | None = None) -> None:
        """Add or change a claim that was granted before: by an earlier run, or because the bytes are there already.

        taken: what the file takes by now; None where that is all.
        """
        self._taken.pop(key, None)
        self._claims[key] = size_bytes
        if taken is not None:
            self._taken[key] = taken

    def recheck(self, key: str) -> None:
        """`NoSpaceError` where the disk can no longer hold what it was promised to."""
        self._check_disk(self.outstanding_bytes(key), self._promised_bytes(but=key))

    def settle(self, key: str) -> None:
        """All that was claimed is written."""
        self._taken.pop(key, None)

    def drop(self, key: str) -> None:
        self._taken.pop(key, None)
        self._claims.pop(key, None)

    def space(self) -> Space:
        claimed_bytes = sum(tuple(self._claims.values()))  # in one step, whoever changes them
        promised_bytes = 0
        for key in tuple(self._taken):
            with suppress(EnticedError):  # an image that goes at this moment
                promised_bytes += self.outstanding_bytes(key)
        used_bytes = claimed_bytes - promised_bytes
        free_bytes = self._files.free_bytes()
        return Space(self._quota_bytes, used_bytes, promised_bytes, free_bytes, self._reserve_bytes, self._place)

    def outstanding_bytes(self, key: str) -> int:
        """What a claim may take yet."""
        taken = self._taken.get(key)
        return 0 if taken is None else max(0, self._claims.get(key, 0) - taken())

    def _promised_bytes(self, but: str) -> int:
        return sum(self.outstanding_bytes(key) for key in self._taken if key != but)

    def _check_disk(self, needed_bytes: int, promised_bytes: int) -> None:
        free_bytes = self._files.free_bytes()
        left_bytes = free_bytes - self._reserve_bytes - promised_bytes
        if needed_bytes and needed_bytes > left_bytes:
            promised = f", {size(promised_bytes)} promised to other pulls" if promised_bytes else ""
            raise NoRoomError(
                f"the disk is full: {size(needed_bytes)} needed in {self._place}, {size(needed_bytes - left_bytes)} "
                f"too little: {size(free_bytes)} free, {size(self._reserve_bytes)} to stay free "
                f"(store.reserve_bytes){promised}",
                " or other files, lower the reserve, or have a larger file system",
                needed_bytes - left_bytes,
            )


def whole_blocks(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES


def size(size_bytes: int) -> str:
    """A size for people."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"
