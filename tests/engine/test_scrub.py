"""The scrub on whole daemons: everything that is wrong on a host's disk is found, and healed from its peers."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from enticed.engine.engine import DaemonEngine
from enticed.engine.stock.scrubbing import Pace, Scrubber
from enticed.engine.stock.stockroom import HEAL_PREFIX
from enticed.store.images import StoredImage
from enticed.store.scrub_mark import ScrubMark
from protocol.identifiers import ImageId
from protocol.limits import BLOCK_SIZE_BYTES, MIB
from tests.engine.swarm import disk, publish, pull, swarm, until

TIMEOUT_S = 300.0
IMAGES = 4
IMAGE_MIB = 6
CORRUPTIONS = 1000
ROUNDS = 10
Corrupt = Callable[[Path, Path, random.Random], None]
"""One image's directory, another's, dice."""


def scrubber_of(engine: DaemonEngine) -> Scrubber:
    """One that does not rest."""
    parts = engine.parts
    return Scrubber(parts.driver, parts.store, parts.stockroom, parts.planning, Pace(disk_share=1.0, period_s=0.0))


def run(work: object) -> None:
    asyncio.run(asyncio.wait_for(work, TIMEOUT_S))  # type: ignore[arg-type]


# --- what a disk, or a person, may do to files ---


def overwrite(path: Path, at: int, data: bytes) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, data, at)
    finally:
        os.close(fd)


def flip(image: Path, other: Path, dice: random.Random) -> None:
    raw = image / "raw"
    at = dice.randrange(raw.stat().st_size)
    overwrite(raw, at, bytes([raw.read_bytes()[at] ^ 1 << dice.randrange(8)]))


def zero(image: Path, other: Path, dice: random.Random) -> None:
    overwrite(image / "raw", dice.randrange(IMAGE_MIB * MIB // BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES, bytes(4096))


def noise(image: Path, other: Path, dice: random.Random) -> None:
    overwrite(image / "raw", dice.randrange(IMAGE_MIB * MIB - 4096), dice.randbytes(4096))


def truncate(image: Path, other: Path, dice: random.Random) -> None:
    os.truncate(image / "raw", dice.randrange(IMAGE_MIB * MIB))


def lengthen(image: Path, other: Path, dice: random.Random) -> None:
    os.truncate(image / "raw", IMAGE_MIB * MIB + dice.randrange(1, MIB))


def swap(image: Path, other: Path, dice: random.Random) -> None:
    (image / "raw").rename(image / "swapped")
    (other / "raw").rename(image / "raw")
    (image / "swapped").rename(other / "raw")


def replace_raw(image: Path, other: Path, dice: random.Random) -> None:
    (image / "raw").unlink()
    (image / "raw").write_bytes(dice.randbytes(dice.randrange(2 * IMAGE_MIB * MIB)))


def remove_raw(image: Path, other: Path, dice: random.Random) -> None:
    (image / "raw").unlink()


def foreign(image: Path, other: Path, dice: random.Random) -> None:
    (image / dice.choice([".", "statements"]) / f"foreign{dice.randrange(99)}").write_bytes(dice.randbytes(99))


def damage_root(image: Path, other: Path, dice: random.Random) -> None:
    overwrite(image / "root", dice.randrange((image / "root").stat().st_size), dice.randbytes(1))


def damage_pages(image: Path, other: Path, dice: random.Random) -> None:
    overwrite(image / "pages", dice.randrange((image / "pages").stat().st_size), b"\xff\x00\xff")


def damage_statement(image: Path, other: Path, dice: random.Random) -> None:
    for path in (image / "statements").iterdir():
        path.write_bytes(dice.randbytes(dice.randrange(200)))


KINDS: dict[Corrupt, int] = {
    flip: 40, zero: 15, noise: 15, truncate: 4, lengthen: 2, swap: 2, replace_raw: 1, remove_raw: 1, foreign: 10,
    damage_root: 3, damage_pages: 4, damage_statement: 3,
}  # fmt: skip
"""How often each comes, of a hundred."""


def corrupt(engine: DaemonEngine, dice: random.Random, many: Counter[str], count: int) -> None:
    images = [stored.path.parent for stored in engine.parts.store.images()]
    for _ in range(count):
        image, other = dice.sample(images, 2)
        kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
        if (image / "raw").exists() and (other / "raw").exists():
            kind(image, other, dice)
        else:
            foreign(image, other, dice)
        many[kind.__name__] += 1


async def healed(engine: DaemonEngine) -> None:
    """Until every image is whole again."""
    for stored in engine.parts.store.images():
        key = f"{HEAL_PREFIX}{stored.image}"
        if engine.parts.driver.host.order(key) is not None:
            order = await until(engine, key, lambda order: order.state.value in ("ready", "failed"))
            assert order.state.value == "ready", order.reason


def test_a_thousand_corruptions_are_found_and_healed_from_peers(tmp_path: Path) -> None:
    seed = 7
    dice, many = random.Random(seed), Counter[str]()
    contents = [disk(number, IMAGE_MIB) for number in range(IMAGES)]

    async def main() -> None:
        async with swarm(tmp_path, 3) as (founder, host, third):
            by_image: dict[ImageId, bytes] = {}
            for number, content in enumerate(contents):
                published = await publish(founder, content, f"image:{number}", tmp_path)
                by_image[published.image] = content
                for engine in (host, third):
                    await pull(engine, f"image:{number}", f"order{number}")
                    await engine.cancel_order(f"order{number}")
            scrubber = scrubber_of(host)
            for number in range(ROUNDS):
                corrupt(host, dice, many, CORRUPTIONS // ROUNDS)
                await scrubber.scrub(ScrubMark(0.0))
                await healed(host)
                for stored in host.parts.store.images():
                    what = f"seed {seed}, round {number}, {stored.image.short}, {dict(many)}"
                    assert stored.ready, what
                    assert stored.path.read_bytes() == by_image[stored.image], what
                    assert sorted(path.name for path in stored.path.parent.iterdir()) == [
                        "index", "pages", "raw", "root", "statements",
                    ]  # fmt: skip
            assert host.parts.stockroom.rotten_pieces
            # As after the next start: what is on the disk, read anew.
            received = third.parts.purchasing.received_bytes
            assert scrubber.mended_files > 100
            await scrubber.scrub(ScrubMark(0.0))
            assert received == third.parts.purchasing.received_bytes, "nobody else was troubled"
            await scrubber.close()
        assert many.total() == CORRUPTIONS
        print(f"\n{many.total()} corruptions: {dict(many)}")

    run(main())


async def both_have(founder: DaemonEngine, host: DaemonEngine, content: bytes, tmp_path: Path) -> tuple[ImageId, Path]:
    """The image that it is, and where the host has it; no order wants it."""
    await publish(founder, content, "a:1", tmp_path)
    order = await pull(host, "a:1")
    await host.cancel_order("order")
    assert order.path is not None
    assert order.image is not None
    return order.image, Path(order.path)


def test_rot_that_is_found_while_other_rot_is_healed_degrades_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(1, 4, hole_every=5)
    seals: list[ImageId] = []

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            image_id, path = await both_have(founder, host, content, tmp_path)
            stockroom, store = host.parts.stockroom, host.parts.store
            last, finish = store.image(image_id).root.pieces - 1, store.finish

            def seal(image: ImageId, *, cold: bool) -> None:
                seals.append(image)
                if len(seals) == 1:  # an audit on another thread takes the last piece back, and has told nobody yet
                    assert stockroom.audit(image, np.array([last])) == (last,)
                finish(image, cold=cold)

            monkeypatch.setattr(store, "finish", seal)
            for at in (5, len(content) - 5):
                overwrite(path, at, b"rot")
            assert await stockroom.check(image_id, np.array([0])) == (0,)
            healed = await until(host, f"{HEAL_PREFIX}{image_id}", lambda order: order.state.value == "ready")
            assert healed.bytes_from.on_hand > healed.bytes_from.peers > 0
            assert path.read_bytes() == content
            assert host.parts.caretaker.degradations == 0
            assert len(seals) == 2

    run(main())


def test_what_nobody_has_just_now_is_healed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = disk(1, 4)
    monkeypatch.setattr("enticed.engine.stock.scrubbing.HEAL_RETRY_S", 1.0)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            image_id, path = await both_have(founder, host, content, tmp_path)
            for state in (founder, host):  # both have the same piece wrong
                overwrite(next(one.path for one in state.parts.store.images()), 5, b"rot")
            scrubber, others = scrubber_of(host), scrubber_of(founder)
            await others.scrub(ScrubMark(0.0))
            await scrubber.scrub(ScrubMark(0.0))
            key = f"{HEAL_PREFIX}{image_id}"
            failed = await until(host, key, lambda order: order.state.value == "failed")
            assert "no host that could be reached has 1 of" in failed.reason
            await publish(founder, content, "a:1", tmp_path)
            await until(host, key, lambda order: order.state.value == "ready")
            assert path.read_bytes() == content

            # What has been removed is not brought back.
            for state in (founder, host):
                overwrite(next(one.path for one in state.parts.store.images()), 5, b"rot")
                await state.verify("a:1", lambda done, total: None)
            await until(host, key, lambda order: order.state.value == "failed")
            await host.remove("a:1")
            await until(host, key, lambda order: order.state.value == "cancelled")
            await scrubber.close()
            await others.close()

    run(main())


def test_what_rots_after_stock_was_taken_is_fetched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = disk(1, 8)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, content, "a:1", tmp_path)
            image = (await pull(host, "a:1")).image
            assert image is not None
            stored, stockroom, loop = host.parts.store.image(image), host.parts.stockroom, asyncio.get_running_loop()
            every = np.arange(stored.root.pieces)
            look_up, late = stockroom._relatives, list[int]()

            def rot_meanwhile(of: ImageId) -> tuple[ImageId, ...]:
                overwrite(stored.path, 5 * MIB, b"rot")
                check = stockroom.check(image, every)
                late.extend(asyncio.run_coroutine_threadsafe(check, loop).result(TIMEOUT_S))
                return look_up(of)

            monkeypatch.setattr(stockroom, "_relatives", rot_meanwhile)
            overwrite(stored.path, 5, b"rot")
            await host.cancel_order("order")
            await host.verify("a:1", lambda done, total: None)
            ended = await until(host, f"{HEAL_PREFIX}{image}", lambda order: order.state.value in ("ready", "paused"))
            assert ended.state.value == "ready", ended.reason
            assert late
            assert stored.path.read_bytes() == content

    run(main())


@pytest.mark.parametrize("piece", [0, 1])
def test_what_is_pulled_anew_while_a_pass_goes_on_is_not_taken_for_rotten(tmp_path: Path, piece: int) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            published = await publish(engine, disk(1, 4), "a:1", tmp_path)
            store, scrubber = engine.parts.store, scrubber_of(engine)
            before = store.image(published.image)
            pages = before.read_pages(0, before.root.pages_size_bytes)

            async def anew() -> None:
                await engine.remove("a:1")
                store.begin_pull(before.root.encoded, pages, ())

            async with scrubber.at_work:  # the pass has begun, and waits
                scrubbing = asyncio.create_task(scrubber.scrub(ScrubMark(0.0, published.image, piece)))
                await asyncio.sleep(0)
                await anew()
            await scrubbing
            assert store.image(published.image) is not before
            assert (engine.parts.stockroom.rotten_pieces, scrubber.scrubbed_bytes) == (0, 0)
            await scrubber.close()

    run(main())


def test_a_bug_in_what_looks_at_an_image_keeps_no_other_from_being_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            for number in range(2):
                await publish(engine, disk(number, 4), f"image:{number}", tmp_path)
            first, second = engine.parts.store.images()
            scrubber = scrubber_of(engine)
            mend = scrubber._mend_files

            async def mend_others(stored: StoredImage) -> None:
                if stored is first:
                    raise RuntimeError("a bug")
                await mend(stored)

            monkeypatch.setattr(scrubber, "_mend_files", mend_others)
            await scrubber.scrub(ScrubMark(0.0))
            assert scrubber.scrubbed_bytes == second.root.total_data_bytes
            await scrubber.close()

    run(main())
