"""The index finds what a dictionary would find, and its cache may be lost at any time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.errors import Damaged
from backup_admin.repository.index import (
    PREFIX,
    Index,
    IndexFile,
    PackInfo,
    clear_cache,
    encode_record,
    encode_table,
    open_index,
    seal_index,
)
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.storage.memory import MemoryStorage
from tests.factories import make_keys

if TYPE_CHECKING:
    from pathlib import Path

KEYS = make_keys()
PACKS = [PackInfo(bytes([number]) * 32, bytes([number]) * 44, 1000 + number) for number in range(3)]
# Ids are hashes; these are not, so that a search by value meets its worst cases.
IDS = st.binary(min_size=0, max_size=3).map(lambda tail: (b"\x07" * 7 + tail).ljust(32, b"\0")) | st.binary(
    min_size=32, max_size=32
)


def index_object(ids: list[bytes], pack: int = 0, packs: list[PackInfo] = PACKS) -> tuple[str, bytes]:
    records = [encode_record(i, pack, (48, 1, 999, 5), (number, 10)) for number, i in enumerate(sorted(ids))]
    return seal_index(KEYS, packs, records)


def make_index(cache: Path, objects: list[tuple[str, bytes]]) -> tuple[Index, MemoryStorage]:
    storage = MemoryStorage()
    for name, data in objects:
        storage.put(name, data)
    cache.mkdir(exist_ok=True)
    index = Index(storage, KEYS, cache)
    index.load([name for name, _ in objects], ())
    return index, storage


def ids(count: int, seed: int = 0) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(32) for _ in range(count)]


def test_a_record_has_the_published_bytes() -> None:
    record = encode_record(b"\x11" * 32, 0x01020304, (0x05060708, 9, 0x0A0B0C, 0x0D0E), (0x0F1011, 0x121314))

    assert record == b"\x11" * 32 + bytes(range(1, 0x15))
    assert encode_table(PACKS[1:2]) == bytes.fromhex("00000001" + "01" * 76 + "000003e9")


def test_a_location_is_what_was_recorded(tmp_path: Path) -> None:
    (chunk,) = ids(1)
    record = encode_record(chunk, 2, (1 << 31, 1, (1 << 24) - 1, 65_000), (1 << 23, 1 << 22))
    index, _ = make_index(tmp_path, [seal_index(KEYS, PACKS, [record])])

    found = index.find(chunk)

    assert found is not None
    assert (found.pack, found.frame_offset, found.method) == (PACKS[2], 1 << 31, 1)
    assert (found.frame_length, found.frame_number) == ((1 << 24) - 1, 65_000)
    assert (found.offset, found.length) == (1 << 23, 1 << 22)


@given(known=st.sets(IDS, max_size=40), others=st.sets(IDS, max_size=20))
def test_a_search_finds_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, known: set[bytes], others: set[bytes]
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    index, _ = make_index(cache, [index_object(list(known))])
    expected = {chunk: number for number, chunk in enumerate(sorted(known))}

    for chunk in known | others:
        found = index.find(chunk)
        assert (None if found is None else found.offset) == expected.get(chunk)
        assert index.has(chunk) == (chunk in expected)


def test_a_large_index_is_searched_right(tmp_path: Path) -> None:
    known = ids(20_000)
    index, _ = make_index(tmp_path, [index_object(known)])

    assert all(index.has(chunk) for chunk in known)
    assert not any(index.has(chunk) for chunk in ids(20_000, seed=1))


def test_an_index_of_many_frames_is_read_whole(tmp_path: Path) -> None:
    known = ids(70_000)
    name, data = index_object(known)

    table, records = open_index(KEYS, name, data)

    assert len(records) == 70_000 * 52
    assert table == encode_table(PACKS)


def test_many_index_objects_are_merged_and_all_found(tmp_path: Path) -> None:
    groups = [ids(50, seed) for seed in range(30)]
    packs = [[PackInfo(bytes([n + 100]) * 32, bytes(44), n)] for n in range(30)]
    objects = [index_object(group, 0, table) for group, table in zip(groups, packs, strict=True)]

    index, _ = make_index(tmp_path, objects)

    assert len(list(tmp_path.glob("*.idx"))) <= 8
    assert index.names() == {name for name, _ in objects}
    for group, table in zip(groups, packs, strict=True):
        for chunk in group:
            found = index.find(chunk)
            assert found is not None
            assert found.pack == table[0]
    assert {pack.name for pack in index.packs()} == {table[0].name for table in packs}


def test_the_cache_saves_reading_the_objects_again(tmp_path: Path) -> None:
    objects = [index_object(ids(10, seed)) for seed in range(12)]
    _, storage = make_index(tmp_path, objects)
    for name, _ in objects:
        storage.delete(name)

    again = Index(storage, KEYS, tmp_path)
    again.load([name for name, _ in objects], ())

    assert all(again.has(chunk) for seed in range(12) for chunk in ids(10, seed))


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"BKI1",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_cache_is_made_again(tmp_path: Path, harm: object) -> None:
    objects = [index_object(ids(10))]
    _, storage = make_index(tmp_path, objects)
    (path,) = tmp_path.glob("*.idx")
    path.write_bytes(harm(path.read_bytes()))  # type: ignore[operator]  # one of the functions above

    again = Index(storage, KEYS, tmp_path)
    again.load([objects[0][0]], ())

    assert all(again.has(chunk) for chunk in ids(10))


def test_a_cache_that_is_gone_dangling_or_of_another_repository_is_made_again(tmp_path: Path) -> None:
    objects = [index_object(ids(10))]
    _, storage = make_index(tmp_path / "one", objects)
    make_index(tmp_path / "two", [index_object(ids(10, seed=5))])
    clear_cache(tmp_path / "one")
    (tmp_path / "one/dangling.idx").symlink_to("nowhere")
    for path in (tmp_path / "two").glob("*.idx"):
        path.rename(tmp_path / "one" / path.name)

    again = Index(storage, KEYS, tmp_path / "one")
    again.load([objects[0][0]], ())

    assert all(again.has(chunk) for chunk in ids(10))
    assert not any(again.has(chunk) for chunk in ids(10, seed=5))
    assert len(list((tmp_path / "one").glob("*.idx"))) == 1


def test_what_is_no_longer_wanted_is_not_found(tmp_path: Path) -> None:
    objects = [index_object(ids(10, seed)) for seed in range(2)]
    index, _ = make_index(tmp_path, objects)

    index.load([objects[0][0]], ())

    assert index.has(ids(1, 0)[0])
    assert not index.has(ids(1, 1)[0])


def test_chunks_of_collected_or_ignored_packs_are_not_found(tmp_path: Path) -> None:
    objects = [index_object(ids(10, seed), pack=seed) for seed in range(3)]
    index, _ = make_index(tmp_path, objects)

    index.load([name for name, _ in objects], [PACKS[0].name.hex()])
    index.ignore([PACKS[1].name.hex()])

    assert [index.has(ids(1, seed)[0]) for seed in range(3)] == [False, False, True]
    assert [index.find(ids(1, seed)[0]) is not None for seed in range(3)] == [False, False, True]
    assert [pack.name for pack in index.packs()] == [PACKS[2].name]


def test_every_record_that_counts_is_listed_once_per_pack(tmp_path: Path) -> None:
    objects = [index_object(ids(20, seed), pack=seed) for seed in range(3)]
    index, _ = make_index(tmp_path, objects)

    index.load([name for name, _ in objects], [PACKS[0].name.hex()])
    listed = list(index.iterate())

    assert index.chunk_count() == 60
    assert {(chunk, pack) for chunk, pack, _ in listed} == {
        (chunk, PACKS[seed]) for seed in (1, 2) for chunk in ids(20, seed)
    }
    assert all(location == index.find(chunk) for chunk, _, location in listed)


def test_a_chunk_stored_twice_is_found_in_the_pack_that_is_left(tmp_path: Path) -> None:
    twice = ids(5)
    copies = [index_object(twice, pack=pack) for pack in (0, 1)]
    fillers = [index_object(ids(50, seed), pack=2) for seed in range(9, 20)]
    index, _ = make_index(tmp_path, [*copies, *fillers])

    for lost in (0, 1):
        index.load([name for name, _ in [*copies, *fillers]], [PACKS[lost].name.hex()])
        assert {found.pack for chunk in twice if (found := index.find(chunk))} == {PACKS[1 - lost]}
        assert all(index.has(chunk) for chunk in twice)
    index.load([name for name, _ in [*copies, *fillers]], ())
    assert all(len(list(index.locations(chunk))) == 2 for chunk in twice)


def test_an_index_object_that_is_missing_or_damaged_is_named_and_the_rest_used(tmp_path: Path) -> None:
    objects = [index_object(ids(10, seed)) for seed in range(3)]
    storage = MemoryStorage()
    storage.put(objects[0][0], objects[0][1])
    storage.put(objects[1][0], objects[1][1][:-1])
    index = Index(storage, KEYS, tmp_path)

    index.load([name for name, _ in objects], ())

    assert set(index.lost) == {objects[1][0], objects[2][0]}
    assert "name does not fit" in index.lost[objects[1][0]]
    assert [index.has(ids(1, seed)[0]) for seed in range(3)] == [True, False, False]


def test_every_flipped_bit_of_an_index_object_is_noticed() -> None:
    name, data = index_object(ids(1))

    for at in range(len(data)):
        with pytest.raises(Damaged, match="name does not fit"):
            open_index(KEYS, name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize(
    "frames",
    [
        [encode_table(PACKS), b"x" * 51],
        [encode_table(PACKS)[:-1]],
        [(9).to_bytes(4, "big")],
        [b"", b"x" * 52],
    ],
)
def test_an_index_object_of_an_impossible_length_is_refused(frames: list[bytes]) -> None:
    data = seal_object(KEYS, ObjectType.INDEX, "index", frames)

    with pytest.raises(Damaged, match="impossible length"):
        open_index(KEYS, PREFIX + blake3(data).hexdigest(), data)


def test_a_record_that_names_a_pack_beyond_the_table_is_refused(tmp_path: Path) -> None:
    index, _ = make_index(tmp_path, [index_object(ids(1), pack=7)])

    with pytest.raises(Damaged, match="a pack it does not list"):
        index.find(ids(1)[0])


def test_a_cache_folder_tidied_by_others_in_between_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    first = IndexFile.__init__

    def open_late(self: IndexFile, path: Path) -> None:
        opened.append(path)
        if len(opened) == 1:
            path.unlink()
        first(self, path)

    monkeypatch.setattr(IndexFile, "__init__", open_late)
    index, _ = make_index(tmp_path, [index_object(ids(10))])

    assert len(opened) == 2
    assert all(index.has(chunk) for chunk in ids(10))
