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
    PackInfo,
    clear_cache,
    encode_record,
    encode_table,
    open_index,
    seal_index,
)
from backup_admin.repository.index_file import CacheDamaged, IndexFile
from backup_admin.repository.objects import ObjectType, seal_object
from backup_admin.storage.memory import MemoryStorage
from tests.factories import make_keys

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_an_id_that_only_shows_across_two_records_is_not_taken_for_one(tmp_path: Path) -> None:
    first, second = encode_record(bytes(32), 0, (48, 1, 999, 5), (0, 10)), b"\x01" * 32
    between = (first + second)[30:62]
    index, _ = make_index(tmp_path / "one", [index_object([bytes(32), second])])
    others, _ = make_index(tmp_path / "two", [index_object([bytes(32), second, between])])

    assert not index.has(between)
    assert others.has(between)


def test_a_large_index_is_searched_right(tmp_path: Path) -> None:
    known = ids(20_000)
    index, _ = make_index(tmp_path, [index_object(known)])

    assert all(index.has(chunk) for chunk in known)
    assert not any(index.has(chunk) for chunk in ids(20_000, seed=1))


def test_an_index_of_many_frames_is_read_whole(tmp_path: Path) -> None:
    known = ids(70_000)
    name, data = index_object(known)

    table, count, records = open_index(KEYS, name, data)

    assert count == 70_000
    assert [record[:32] for record in records] == sorted(known)
    assert table == encode_table(PACKS)


def test_many_index_objects_are_merged_and_all_found(tmp_path: Path) -> None:
    groups = [ids(50, seed) for seed in range(30)]
    packs = [[PackInfo(bytes([n + 100]) * 32, bytes(44), n)] for n in range(30)]
    objects = [index_object(group, 0, table) for group, table in zip(groups, packs, strict=True)]

    index, _ = make_index(tmp_path, objects)

    assert len(list(tmp_path.glob("*.idx"))) <= 4
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


def test_every_byte_of_the_cache_may_be_changed_and_every_answer_stays_right(tmp_path: Path) -> None:
    objects = [index_object(ids(4, seed), pack=seed) for seed in range(2)]
    names = [name for name, _ in objects]
    _, storage = make_index(tmp_path, objects)

    for path in list(tmp_path.glob("*.idx")):
        sound = path.read_bytes()
        for at in range(len(sound)):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            again = Index(storage, KEYS, tmp_path)
            again.load(names, [PACKS[0].name.hex()])
            assert [again.has(chunk) for chunk in ids(4, 0) + ids(4, 1)] == [False] * 4 + [True] * 4
            assert [found.pack for chunk in ids(4, 1) for found in again.locations(chunk)] == [PACKS[1]] * 4
            assert [pack.name for pack in again.packs()] == [PACKS[1].name, PACKS[2].name]


def test_a_cache_that_spoils_under_an_open_index_is_made_again_unseen(tmp_path: Path) -> None:
    known = ids(3_000)
    index, _ = make_index(tmp_path, [index_object(known)])
    (path,) = tmp_path.glob("*.idx")
    first = min(known)
    assert index.has(first)  # only the block of this one is known to be sound

    overwrite_records(path)

    assert all(index.has(chunk) for chunk in known)
    assert not any(index.has(chunk) for chunk in ids(3_000, seed=1))
    assert [chunk for chunk, _, _ in index.iterate()] == sorted(known)


def overwrite_records(path: Path) -> None:
    """Harm the middle of the records in place, so that a mapping sees it."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(20_000))


@pytest.mark.parametrize("look", ["has", "find", "iterate", "merge"])
def test_whoever_touches_a_spoilt_block_first_has_it_repaired(tmp_path: Path, look: str) -> None:
    known = sorted(ids(3_000))
    objects = [index_object(known), *(index_object(ids(3_000, seed)) for seed in range(1, 9))]
    index, storage = make_index(tmp_path, objects[:1])
    overwrite_records(next(tmp_path.glob("*.idx")))
    for name, data in objects[1:]:
        storage.put(name, data)

    def merge() -> list[bytes]:
        index.load([name for name, _ in objects], ())
        return [chunk for chunk in known if index.has(chunk)]

    answers: dict[str, Callable[[], list[bytes]]] = {
        "has": lambda: [chunk for chunk in known if index.has(chunk)],
        "find": lambda: [chunk for chunk in known if index.find(chunk)],
        "iterate": lambda: [chunk for chunk, _, _ in index.iterate()],
        "merge": merge,
    }

    assert answers[look]() == known


def test_a_disk_that_spoils_every_cache_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(self: IndexFile, at: int, end: int) -> None:
        raise CacheDamaged(self)

    index, _ = make_index(tmp_path, [index_object(ids(10))])
    monkeypatch.setattr(IndexFile, "_check", spoilt)

    with pytest.raises(Damaged, match="the disk of the state folder fails"):
        index.has(ids(1)[0])


def test_records_out_of_order_are_refused(tmp_path: Path) -> None:
    records = [encode_record(chunk, 0, (48, 1, 999, 5), (0, 10)) for chunk in sorted(ids(10), reverse=True)]
    name, data = seal_index(KEYS, PACKS, records)

    index, _ = make_index(tmp_path, [(name, data)])

    assert index.lost == {name: "The records of an index are not in order."}
    assert list(tmp_path.iterdir()) == []


def test_opening_reads_the_end_of_a_large_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [index_object(ids(70_000))]
    _, storage = make_index(tmp_path, objects)
    checked: list[int] = []
    monkeypatch.setattr(IndexFile, "_check", lambda self, at, end: checked.append(at))

    Index(storage, KEYS, tmp_path).load([objects[0][0]], ())

    assert checked == []


def test_files_are_merged_with_their_like(tmp_path: Path) -> None:
    small = [index_object(ids(20, seed)) for seed in range(6)]
    large = index_object(ids(5_000, seed=50))
    index, storage = make_index(tmp_path, [large, *small])
    (kept,) = (path for path in tmp_path.glob("*.idx") if path.stat().st_size > 200_000)
    before = kept.stat()

    more = [index_object(ids(20, seed)) for seed in range(6, 12)]
    for name, data in more:
        storage.put(name, data)
    index.load([name for name, _ in [large, *small, *more]], ())

    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list(tmp_path.glob("*.idx"))) <= 4
    assert index.chunk_count() == 5_000 + 12 * 20


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
    first = IndexFile.__init__

    def tidied(self: IndexFile, path: Path, handle: int) -> None:
        clear_cache(tmp_path)
        first(self, path, handle)

    monkeypatch.setattr(IndexFile, "__init__", tidied)
    index, _ = make_index(tmp_path, [index_object(ids(10))])

    assert list(tmp_path.iterdir()) == []
    assert all(index.has(chunk) for chunk in ids(10))
