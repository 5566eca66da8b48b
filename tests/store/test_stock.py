"""What is on hand: found whatever the images, cloned to its place, and never believed unhashed."""

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enticed.store import index, small_images
from enticed.store.files import PosixFiles
from enticed.store.index import prefixes_of, read_index, sieve, write_index
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.small_images import SmallImages
from enticed.store.store import Store
from protocol.errors import AbsentError, CorruptError
from protocol.identifiers import ImageId
from protocol.limits import MIB
from protocol.manifest import Fragments
from tests.store.making import Made, all_pieces, made_of, make_image, open_store, publish, store_over

Damage = Callable[[Path], object]


def blocks(number: int, count: int = 1) -> bytes:
    """Content that is the same for the same number."""
    return np.random.default_rng(number).bytes(4096 * count)


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Up to 12 fragments out of 8 contents, in up to 4 windows."""
    contents = draw(st.lists(st.integers(0, 7), min_size=1, max_size=12))
    gaps = draw(st.lists(st.sampled_from([0, 0, 4096, MIB]), min_size=len(contents), max_size=len(contents)))
    at, layout = 0, []
    for number, gap in zip(contents, gaps, strict=True):
        at = (at + gap) % (5 * MIB) if at + gap < 4 * MIB else at
        content = blocks(number, 1 + number % 3)
        layout.append((at, content))
        at += len(content)
    return layout


def begun(store: Store, files: MemoryFiles, made: Made, durable: set[int]) -> None:
    """An image of which some pieces are durable, and nothing else is written."""
    stored = store.begin_pull(made.root.encoded, made.pages, ())
    pieces = sorted(durable & set(range(made.root.pieces)))
    made.write(files, stored.raw_fd, pieces)
    store.mark_durable(made.image, np.array(pieces, np.int64))


def held_contents(made: Made, durable: set[int]) -> set[bytes]:
    return {made.contents[index] for index in made.indices(sorted(durable & set(range(made.root.pieces))))}


@settings(max_examples=100)
@given(layouts(), layouts(), layouts(), st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)), st.integers(1, 5))
def test_what_is_durable_anywhere_is_found_and_comes_right(
    wanted_layout: list[tuple[int, bytes]],
    first_layout: list[tuple[int, bytes]],
    second_layout: list[tuple[int, bytes]],
    first_durable: set[int],
    second_durable: set[int],
    run_length: int,
) -> None:
    wanted, first, second = (made_of(layout, 8 * MIB) for layout in (wanted_layout, first_layout, second_layout))
    files = MemoryFiles()
    with patch.object(index, "STORE_INDEX_RUN_MAX_COUNT", run_length), store_over(files, MemoryCatalogue()) as store:
        begun(store, files, first, first_durable)
        if second.image != first.image:
            begun(store, files, second, second_durable)
        others = [one.image for one in store.images() if one.image != wanted.image]
        target = store.begin_pull(wanted.root.encoded, wanted.pages, ())
        on_hand = store.find_on_hand(wanted.fragments, others)

        held = held_contents(first, first_durable) if first.image in others else set()
        if second.image in others and second.image != first.image:
            held |= held_contents(second, second_durable)
        assert on_hand.found.tolist() == [content in held for content in wanted.contents]
        sizes = np.where(on_hand.found, wanted.fragments.sizes_bytes, 0)
        by_piece = on_hand.bytes_by_piece(wanted.root, wanted.fragments)
        assert by_piece.sum() == sizes.sum()
        assert (by_piece <= wanted.root.data_bytes).all()

        right = store.clone_in(wanted.image, wanted.fragments, on_hand)
        assert right.tolist() == on_hand.found.tolist()
        for at, content, found in zip(wanted.fragments.offsets_bytes.tolist(), wanted.contents, right, strict=True):
            if found:
                assert files.pread(target.raw_fd, len(content), at) == content


@settings(max_examples=60)
@given(
    st.lists(st.tuples(layouts(), st.sets(st.integers(0, 4))), min_size=1, max_size=6),
    st.lists(layouts(), min_size=1, max_size=3),
    st.integers(0, 12),
    st.integers(0, 30),
    st.data(),
)
def test_small_images_together_give_what_each_index_gives(
    kept: list[tuple[list[tuple[int, bytes]], set[int]]],
    wanted_layouts: list[list[tuple[int, bytes]]],
    small_fragments: int,
    together_fragments: int,
    data: st.DataObject,
) -> None:
    """Whatever is small and however many have room, while images come and go: as by looking in one after another."""
    files = MemoryFiles()
    with store_over(files, MemoryCatalogue()) as store:
        for layout, durable in kept:
            made = made_of(layout, 8 * MIB)
            if made.image not in {one.image for one in store.images()}:
                begun(store, files, made, durable)
            elsewhere = data.draw(st.sampled_from(wanted_layouts))
            wanted = made_of(elsewhere, 8 * MIB).fragments
            if data.draw(st.booleans()):
                store.forget(data.draw(st.sampled_from(store.images())).image)
            with (
                patch.object(small_images, "SMALL_IMAGE_MAX_FRAGMENTS", small_fragments),
                patch.object(small_images, "SMALL_IMAGES_MAX_FRAGMENTS", together_fragments),
            ):
                quick = store.find_on_hand(wanted)
            with patch.object(SmallImages, "among", lambda *_: {}):
                plain = store.find_on_hand(wanted)
            assert quick.images == plain.images
            assert quick.source.tolist() == plain.source.tolist()
            assert quick.offsets_bytes.tolist() == plain.offsets_bytes.tolist()


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=8), st.lists(st.integers(0, 20), max_size=12))
def test_which_small_images_have_what_is_wanted(contents: list[list[int]], wanted: list[int]) -> None:
    together = SmallImages()
    images = {ImageId(number.to_bytes(32, "big")): sorted(held) for number, held in enumerate(contents)}
    together.add((image, np.array(held, np.uint64)) for image, held in images.items())
    gone = set(list(images)[::3])
    for image in gone:
        together.drop(image)
    found = together.among(np.array(sorted(wanted), np.uint64))
    assert {image: has.tolist() for image, has in found.items()} == {
        image: [prefix for prefix in held if prefix in wanted] for image, held in images.items() if image not in gone
    }


def test_no_index_is_opened_twice_for_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for number in range(5):
            publish(store, made_of([(0, blocks(number))], 4096))
        wanted = made_of([(0, blocks(3)), (4096, blocks(9))], 8192).fragments
        store.find_on_hand(wanted)
        with patch("enticed.store.stock.read_index", side_effect=read_index) as reads:
            assert store.find_on_hand(wanted).found.tolist() == [True, False]
    assert reads.call_count == 1


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(1, 7))
def test_an_index_has_each_fragment_once_in_order(numbers: list[int], run_length: int) -> None:
    digests = np.zeros((len(numbers), 32), np.uint8)
    digests[:, :8] = np.array(numbers, "<u8").view(np.uint8).reshape(-1, 8)
    files = MemoryFiles()
    with patch.object(index, "STORE_INDEX_RUN_MAX_COUNT", run_length):
        write_index(files, "index", digests)
        runs = list(read_index(files, "index", len(numbers)))
    assert prefixes_of(digests).tolist() == numbers
    assert sorted(position for run in runs for position in run.positions.tolist()) == list(range(len(numbers)))
    for run in runs:
        assert (np.diff(run.prefixes.astype(object)) >= 0).all()
        assert run.prefixes.tolist() == [numbers[position] for position in run.positions.tolist()]
    assert files.open_count == 0


def test_fragments_with_one_prefix_are_told_apart(tmp_path: Path) -> None:
    digests = np.zeros((4, 32), np.uint8)
    digests[:, 31] = [1, 2, 3, 4]
    offsets = np.arange(4, dtype=np.int64) * 4096
    held = Fragments(offsets[:3], np.full(3, 4096, np.int32), digests[:3])
    contents = [(int(at), blocks(number)) for number, at in enumerate(offsets[:3])]
    made = made_of(contents, 12288)
    with open_store(tmp_path) as store:
        stored = publish(store, made)
        wanted = Fragments(offsets, np.full(4, 4096, np.int32), digests)
        run = index.Run(prefixes_of(digests[:3]), np.arange(3, dtype=np.uint32))
        with (
            patch.object(type(stored), "read_fragments", lambda self, first, end: held),
            patch("enticed.store.stock.read_index", lambda *_: iter([run])),
        ):
            on_hand = store.find_on_hand(wanted)
    assert on_hand.found.tolist() == [True, True, True, False]
    assert on_hand.offsets_bytes.tolist() == [0, 4096, 8192, 0]


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 50))
def test_a_sieve_keeps_all_that_is_there(others: list[int], prefixes: list[int], shared: int) -> None:
    wanted = sorted([*others, *prefixes[:shared]])
    likely = sieve(np.array(wanted, np.uint64), np.array(sorted(prefixes), np.uint64))
    assert not set(prefixes) & {prefix for prefix, is_likely in zip(wanted, likely, strict=True) if not is_likely}


def test_a_sieve_keeps_little_else() -> None:
    wanted, prefixes = np.sort(np.random.default_rng(1).integers(0, 2**64, (2, 10_000), np.uint64))
    assert np.count_nonzero(sieve(wanted, prefixes)) < 10_000 / 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: os.truncate(path, 20),
        lambda path: os.truncate(path, path.stat().st_size - 5),
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes()[:40] + bytes(path.stat().st_size - 40)),
        lambda path: path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8),
    ],
)
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: Damage) -> None:
    made = make_image(1)
    with open_store(tmp_path) as store:
        path = publish(store, made).path.parent / "index"
        before = path.read_bytes()
        damage(path)
        assert store.find_on_hand(made.fragments).found.all()
        assert path.read_bytes() == before


def test_an_index_of_another_image_is_none(tmp_path: Path) -> None:
    files = PosixFiles(tmp_path)
    write_index(files, "index", make_image(1).fragments.digests)
    with pytest.raises(CorruptError):
        list(read_index(files, "index", 3))
    with pytest.raises(AbsentError):
        list(read_index(files, "none", 3))
    files.shut()


def test_a_shifted_image_is_cloned_in_long_runs(tmp_path: Path) -> None:
    parts = [blocks(number, 16) for number in range(40)]
    old = made_of([(number * 65536, part) for number, part in enumerate(parts)], 4 * MIB)
    # The same, 8 KiB further on, with another fragment in the middle.
    parts[20] = blocks(99, 16)
    new = made_of([(8192 + number * 65536, part) for number, part in enumerate(parts)], 4 * MIB)
    with open_store(tmp_path) as store:
        publish(store, old)
        stored = store.begin_pull(new.root.encoded, new.pages, ())
        on_hand = store.find_on_hand(new.fragments)
        assert on_hand.found.tolist() == [number != 20 for number in range(40)]
        clones = []
        clone = PosixFiles.clone

        def noting(self: PosixFiles, source: int, a: int, target: int, b: int, size_bytes: int) -> bool:
            clones.append((a, b, size_bytes))
            return clone(self, source, a, target, b, size_bytes)

        with patch.object(PosixFiles, "clone", noting):
            assert (store.clone_in(new.image, new.fragments, on_hand) == on_hand.found).all()
        assert clones == [(0, 8192, 20 * 65536), (21 * 65536, 8192 + 21 * 65536, 19 * 65536)]
        new.write_fd(stored.raw_fd)
        assert store.vouch(new.image).ready
        # A piece at a time comes to the same.
        first, after = new.root.first_fragments[1:3].tolist()
        part = on_hand[first:after]
        assert len(part) == after - first
        assert (part.source == on_hand.source[first:after]).all()


def test_a_rotten_source_is_found_out(tmp_path: Path) -> None:
    old = make_image(1, tail_bytes=0)
    new = made_of([(MIB + 4096 * 50 * number, content) for number, content in enumerate(old.contents)], 8 * MIB)
    with open_store(tmp_path) as store:
        stored = publish(store, old)
        stored.path.chmod(0o600)
        with stored.path.open("r+b") as file:
            file.seek(int(old.fragments.offsets_bytes[4]))
            file.write(b"rot")
        store.begin_pull(new.root.encoded, new.pages, ())
        on_hand = store.find_on_hand(new.fragments)
        assert on_hand.found.all()
        right = store.clone_in(new.image, new.fragments, on_hand)
        assert np.flatnonzero(~right).tolist() == [4]
        os.truncate(stored.path, 2 * MIB)
        right = store.clone_in(new.image, new.fragments, on_hand)
        assert set(np.flatnonzero(right).tolist()) >= set(old.indices([0])) | set(old.indices([1])) - {4}


def test_an_image_that_has_gone_provides_nothing(tmp_path: Path) -> None:
    old = make_image(1, tail_bytes=0)
    new = made_of([(MIB + 4096 * 50 * number, content) for number, content in enumerate(old.contents)], 8 * MIB)
    with open_store(tmp_path) as store:
        publish(store, old)
        store.begin_pull(new.root.encoded, new.pages, ())
        on_hand = store.find_on_hand(new.fragments, [ImageId(bytes(32)), old.image])
        assert on_hand.found.all()
        store.forget(old.image)
        assert not store.clone_in(new.image, new.fragments, on_hand).any()
        assert not store.find_on_hand(new.fragments).found.any()
        assert len(store.find_on_hand(new.fragments[:0])) == 0


def test_an_image_finds_its_own_durable_pieces(tmp_path: Path) -> None:
    same = blocks(1, 2)
    made = made_of([(0, same), (MIB, same), (2 * MIB, blocks(2))], 3 * MIB)
    with open_store(tmp_path) as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        made.write_fd(stored.raw_fd, [1])
        store.mark_durable(made.image, np.array([1]))
        on_hand = store.find_on_hand(made.fragments)
        assert on_hand.found.tolist() == [True, True, False]
        assert store.clone_in(made.image, made.fragments[:1], on_hand[:1]).all()
        store.mark_durable(made.image, np.array([0]))
        assert store.audit(made.image, all_pieces(made)).tolist() == [True, True, False]
