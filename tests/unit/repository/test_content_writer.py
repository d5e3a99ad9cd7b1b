"""What is stored comes back byte for byte, and what did not change is stored once."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyfastcdc import FastCDC

from backup_admin.core.errors import Damaged, SourceError, StorageError, StorageFull
from backup_admin.operations.captured import check_content, iterate_bytes, iterate_refs
from backup_admin.repository import pages as pages_module
from backup_admin.repository.content_writer import WINDOW_BYTES, ContentWriter, is_compressible
from backup_admin.repository.index import Index
from backup_admin.repository.pages import PageWriter, encode_shard, read_root, read_shard
from backup_admin.repository.pending import PendingPacks
from backup_admin.repository.reader import ChunkReader
from backup_admin.repository.store import ChunkStore
from backup_admin.repository.types import ChunkKind, ChunkRef, Content
from backup_admin.storage.memory import MemoryStorage
from tests.factories import SMALL, make_keys, noise, prose
from tests.fakes import Act, Fault, FaultyStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.storage.base import Buffer, PutResult, Storage

KEYS = make_keys()
PAGE = 512


@dataclass
class Bench:
    """Everything below a repository: a storage, an index, and stores on them."""

    cache: Path
    storage: Storage

    def __post_init__(self) -> None:
        self.index = Index(self.storage, KEYS, self.cache)

    def store(self, *, threads: int = 2) -> ChunkStore:
        return ChunkStore(self.storage, KEYS, SMALL, self.index, PendingPacks(self.cache, 0), threads=threads)

    def reader(self) -> ChunkReader:
        return ChunkReader(self.storage, KEYS, self.index)

    def save(self, data: bytes, *, largest_read: int = 1 << 30) -> tuple[Content, int]:
        """Store a stream and return its description and how many bytes that took."""
        store = self.store()
        source = io.BytesIO(data)
        content = ContentWriter(store.writer(), KEYS, SMALL).write(
            lambda view: source.readinto(view[:largest_read])
        )
        store.finish()
        return content, store.stored_bytes

    def save_pages(
        self, data: bytes, parent: ChunkRef | None = None, *, page: int = PAGE
    ) -> tuple[Content, int]:
        store = self.store()
        writer = self.page_writer(store, pages_per_shard=SMALL.pages_per_shard)
        content = writer.write(io.BytesIO(data).readinto, page, parent)
        store.finish()
        return content, store.stored_bytes

    def page_writer(self, store: ChunkStore, *, pages_per_shard: int) -> PageWriter:
        return PageWriter(
            store.writer(), self.reader(), KEYS, pages_per_shard=pages_per_shard, groups=self.cache / "pages"
        )

    def load(self, content: Content) -> bytes:
        assert check_content(self.reader(), content) == content.size
        return b"".join(bytes(piece) for piece in iterate_bytes(self.reader(), content))

    def stored_pages(self, before: Content, after: Content) -> int:
        """Return the bytes of page chunks that only the second content has."""
        old = {ref.id for _, ref in iterate_refs(self.reader(), before)}
        new = {ref.id: ref for kind, ref in iterate_refs(self.reader(), after) if kind is ChunkKind.PAGES}
        return sum(ref.size for ref in new.values() if ref.id not in old)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, MemoryStorage())


@given(data=st.binary(max_size=20_000), copies=st.integers(1, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes_come_back(bench: Bench, data: bytes, copies: int) -> None:
    content, _ = bench.save(data * copies)

    assert content.sha256 == hashlib.sha256(data * copies).hexdigest()
    assert bench.load(content) == data * copies


@pytest.mark.parametrize("make", [noise, prose])
@pytest.mark.parametrize(
    "size",
    [0, 1, SMALL.whole_file - 1, SMALL.whole_file, SMALL.whole_file + 1]
    + [WINDOW_BYTES + step for step in (-1, 0, 1)]
    + [2 * WINDOW_BYTES, 2 * WINDOW_BYTES + 12_345],
)
def test_every_boundary_is_cut_and_joined_right(
    bench: Bench, make: Callable[[int], bytes], size: int
) -> None:
    data = make(size)

    content, _ = bench.save(data, largest_read=1_000_003)

    assert (content.size, content.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert bench.load(content) == data


def test_how_a_stream_arrives_does_not_change_its_chunks(bench: Bench) -> None:
    data = noise(WINDOW_BYTES + 3_000_000)

    whole, _ = bench.save(data)
    dribbled, stored = bench.save(data, largest_read=77_777)

    assert dribbled == whole
    assert stored == 0


def test_the_windows_a_stream_is_read_in_leave_no_mark(bench: Bench) -> None:
    data = noise(2 * WINDOW_BYTES + 5_000_000)
    sizes = SMALL.media
    cutter = FastCDC(
        sizes.average,
        min_size=sizes.minimum,
        max_size=sizes.maximum,
        normalized_chunking=2,
        seed=KEYS.cdc_seed(),
    )

    content, _ = bench.save(data)

    found = [ref.size for kind, ref in iterate_refs(bench.reader(), content) if kind is ChunkKind.DATA]
    assert found == [piece.length for piece in cutter.cut_buf(data)]


def test_a_long_list_of_chunks_is_a_chunk_itself(bench: Bench) -> None:
    data = prose(400_000)

    content, _ = bench.save(data)

    assert content.chunks == ()
    assert len(content.chunk_lists) == 1
    assert bench.load(content) == data


def test_a_list_longer_than_the_longest_is_split(bench: Bench) -> None:
    data = prose(WINDOW_BYTES * 2)

    content, _ = bench.save(data)

    assert len(content.chunk_lists) >= 2
    assert bench.load(content) == data


@pytest.mark.parametrize("make", [noise, prose])
def test_an_insertion_in_the_middle_keeps_most_chunks(bench: Bench, make: Callable[[int], bytes]) -> None:
    data = make(1_000_000)
    before, _ = bench.save(data)

    after, stored = bench.save(data[:400_000] + b"inserted" + data[400_000:])

    old = {ref.id for _, ref in iterate_refs(bench.reader(), before)}
    new = [ref for kind, ref in iterate_refs(bench.reader(), after) if kind is ChunkKind.DATA]
    assert sum(ref.size for ref in new if ref.id not in old) < 60_000
    assert stored < 120_000


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0", False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"\0\0\0\x20ftypisom", False),
        (b"RIFF\0\0\0\0WEBP", False),
        (b"RIFF\0\0\0\0WAVE", True),
        (b"PK\x03\x04", False),
        (b"plain text", True),
        (b"", True),
    ],
)
def test_media_is_known_by_its_first_bytes(head: bytes, expected: bool) -> None:
    assert is_compressible(memoryview(head)) is expected


def test_what_has_no_known_beginning_is_tried() -> None:
    assert is_compressible(memoryview(prose(50_000)))
    assert not is_compressible(memoryview(noise(50_000)))


def test_text_that_only_lacks_most_letters_is_compressed() -> None:
    assert is_compressible(memoryview(noise(25_000).hex().encode()))
    assert is_compressible(memoryview(base64.b64encode(noise(40_000))))


def test_the_same_bytes_are_stored_once_whatever_file_they_are_in(bench: Bench) -> None:
    first, _ = bench.save(prose(3_000))

    second, stored = bench.save(prose(3_000))

    assert (second, stored) == (first, 0)


def test_the_same_bytes_in_many_threads_are_stored_once(bench: Bench) -> None:
    chunks = [noise(1_500, seed) for seed in range(200)]
    store = bench.store(threads=4)
    start = threading.Barrier(4)

    def work() -> None:
        writer = store.writer()
        start.wait()
        for data in chunks:
            writer.put(ChunkKind.DATA, data, compress=False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.finish()

    ids = {KEYS.chunk_id(ChunkKind.DATA, data) for data in chunks}
    assert all(len(list(bench.index.locations(chunk))) == 1 for chunk in ids)
    # Not twice the bytes: the packs hold little more than the chunks.
    assert store.stored_bytes < 1.5 * sum(map(len, chunks))


def test_no_more_buffers_are_made_than_threads_and_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    store = bench.store(threads=2)
    taken = store.take_builder

    def counted() -> object:
        builder = taken()
        made.append(id(builder._buffer))
        return builder

    monkeypatch.setattr(store, "take_builder", counted)
    writers = [store.writer() for _ in range(3)]
    for number in range(300):
        writers[number % 3].put(ChunkKind.DATA, noise(3_000, number), compress=False)
    store.finish()

    assert len(made) > 12
    assert len(set(made)) <= 3


@pytest.mark.parametrize("number", [1, 3])
def test_a_failed_upload_reaches_the_caller_and_nothing_hangs(tmp_path: Path, number: int) -> None:
    storage = FaultyStorage(MemoryStorage(), (Fault("put", number, Act.FAIL),))
    bench = Bench(tmp_path, storage)
    before = set(threading.enumerate())
    store = bench.store()
    writer = store.writer()

    def fill() -> None:
        for seed in range(500):
            writer.put(ChunkKind.DATA, noise(3_000, seed), compress=False)
        store.finish()

    with pytest.raises(StorageError, match="as it was told to"):
        fill()
    store.close()

    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name == "pack-uploader"]


def test_an_unexpected_failure_of_the_uploader_reaches_the_caller(bench: Bench) -> None:
    class Broken(MemoryStorage):
        def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
            raise ZeroDivisionError("a bug")

    bench.storage = Broken()
    store = bench.store()
    store.writer().put(ChunkKind.DATA, b"x", compress=False)

    with pytest.raises(StorageError, match="a bug") as caught:
        store.finish()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_class_of_a_failure_is_kept(bench: Bench) -> None:
    class Full(MemoryStorage):
        def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
            raise StorageFull("no room")

    bench.storage = Full()
    store = bench.store()
    store.writer().put(ChunkKind.DATA, b"x", compress=False)

    with pytest.raises(StorageFull):
        store.finish()


def test_a_chunk_that_is_gone_or_of_another_size_or_kind_is_damage(bench: Bench) -> None:
    content, _ = bench.save(b"some bytes")
    (ref,) = content.chunks
    reader = bench.reader()

    for kind, wrong in (
        (ChunkKind.DATA, ChunkRef(b"\0" * 32, 10)),
        (ChunkKind.DATA, ref._replace(size=9)),
        (ChunkKind.MANIFEST, ref),
    ):
        with pytest.raises(Damaged):
            reader.read(kind, wrong)
    assert bytes(reader.read(ChunkKind.DATA, ref)) == b"some bytes"


def test_content_with_another_digest_is_damage(bench: Bench) -> None:
    content, _ = bench.save(b"some bytes")

    for wrong in (content._replace(sha256="00" * 32), content._replace(size=11)):
        with pytest.raises(Damaged, match="digest"):
            check_content(bench.reader(), wrong)


# --- page maps ---------------------------------------------------------------


def database(pages: int, seed: int = 1) -> bytes:
    return b"".join(noise(PAGE, seed * 100_000 + number) for number in range(pages))


@given(
    sizes=st.lists(st.integers(0, 70 * PAGE), min_size=1, max_size=4),
    edits=st.lists(st.integers(0, 70 * PAGE), max_size=6),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_history_of_a_database_comes_back(bench: Bench, sizes: list[int], edits: list[int]) -> None:
    base = database(70)
    parent: ChunkRef | None = None
    versions = []
    for turn, size in enumerate(sizes):
        data = bytearray(base[:size])
        for edit in edits[: turn + 1]:
            if edit < size:
                data[edit] ^= turn + 1
        content, _ = bench.save_pages(bytes(data), parent)
        parent = content.pages
        versions.append((content, bytes(data)))

    assert all(bench.load(content) == data for content, data in versions)


@pytest.mark.parametrize("changed", [1, 3, 10])
def test_a_change_of_some_pages_stores_about_those_pages(bench: Bench, changed: int) -> None:
    data = bytearray(database(400))
    before, _ = bench.save_pages(bytes(data))
    for number in range(changed):
        data[(number * 39 + 5) * PAGE] ^= 1

    after, _ = bench.save_pages(bytes(data), before.pages)

    assert bench.stored_pages(before, after) == changed * PAGE
    assert bench.load(after) == bytes(data)
    assert bench.load(before) == database(400)


def test_an_unchanged_database_stores_nothing(bench: Bench) -> None:
    before, _ = bench.save_pages(database(100))

    after, stored = bench.save_pages(database(100), before.pages)

    assert (after, stored) == (before, 0)


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, 16 * PAGE, 16 * PAGE + 100, 33 * PAGE - 1])
def test_a_database_may_shrink_grow_and_end_in_a_part_of_a_page(bench: Bench, size: int) -> None:
    large, _ = bench.save_pages(database(40) + b"tail")

    small, _ = bench.save_pages(database(40)[:size], large.pages)
    grown, _ = bench.save_pages(database(40) + b"another tail", small.pages)

    assert bench.load(small) == database(40)[:size]
    assert bench.load(grown) == database(40) + b"another tail"


def test_another_page_size_begins_anew(bench: Bench) -> None:
    before, _ = bench.save_pages(database(40))

    after, _ = bench.save_pages(database(40), before.pages, page=1024)

    assert after.pages is not None
    assert read_root(bench.reader(), after.pages).page_size == 1024
    assert bench.load(after) == database(40)


def test_many_small_changes_are_gathered_again_before_there_are_too_many_pieces(tmp_path: Path) -> None:
    bench = Bench(tmp_path, MemoryStorage())
    data = bytearray(database(1024))
    store = bench.store()
    writer = bench.page_writer(store, pages_per_shard=1024)
    content = writer.write(io.BytesIO(data).readinto, PAGE, None)
    store.finish()
    for turn in range(3):
        for page in range(turn, 1024, 4):
            data[page * PAGE] ^= 1
        store = bench.store()
        writer = bench.page_writer(store, pages_per_shard=1024)
        content = writer.write(io.BytesIO(data).readinto, PAGE, content.pages)
        store.finish()

    assert content.pages is not None
    (ref,) = read_root(bench.reader(), content.pages).shards
    assert len(read_shard(bench.reader(), ref).extents) <= 512
    assert bench.load(content) == bytes(data)


def test_a_long_history_is_read_from_few_chunks_that_hold_little_else(bench: Bench) -> None:
    data = bytearray(database(64))
    content, _ = bench.save_pages(bytes(data))
    changes = random.Random(1)
    pages = 0
    for _ in range(60):
        data[changes.randrange(64) * PAGE] ^= 1
        before = content
        content, _ = bench.save_pages(bytes(data), content.pages)
        pages += bench.stored_pages(before, content) // PAGE
        for count, chunks in shards_of(bench, content):
            assert len(chunks) <= 6
            assert sum(chunk.size for chunk in chunks) <= 1.5 * count * PAGE

    assert bench.load(content) == bytes(data)
    assert pages < 60 * 5


def test_a_page_chunk_is_read_once_however_its_pieces_lie_mixed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(database(16))
    content, _ = bench.save_pages(bytes(data))
    for page in range(0, 6, 2):
        data[page * PAGE] ^= 1
    content, _ = bench.save_pages(bytes(data), content.pages)
    read = ChunkReader.read
    reads: list[ChunkKind] = []

    def watched(reader: ChunkReader, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        reads.append(kind)
        return read(reader, kind, ref)

    monkeypatch.setattr(ChunkReader, "read", watched)
    assert b"".join(map(bytes, iterate_bytes(bench.reader(), content))) == bytes(data)
    assert reads.count(ChunkKind.PAGES) == 2


def test_shards_of_a_huge_database_grow_so_that_its_root_does_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "_SHARDS_OF_A_SIZE", 2)
    data = bytearray(database(16 + 16 + 32 + 32 + 64 + 7) + b"tail")
    content, _ = bench.save_pages(bytes(data))
    assert [count for count, _ in shards_of(bench, content)] == [16, 16, 32, 32, 64, 8]
    assert bench.load(content) == bytes(data)
    data[40 * PAGE] ^= 1

    after, _ = bench.save_pages(bytes(data), content.pages)

    assert bench.stored_pages(content, after) == PAGE
    assert bench.load(after) == bytes(data)


def test_a_database_beyond_all_bounds_is_named_and_not_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "_MAX_SHARDS", 2)
    fits, _ = bench.save_pages(database(32))
    assert bench.load(fits) == database(32)
    with pytest.raises(SourceError, match="too large"):
        bench.save_pages(database(33))


def shards_of(bench: Bench, content: Content) -> list[tuple[int, set[ChunkRef]]]:
    """Return how many pages each shard has, and the page chunks they lie in."""
    assert content.pages is not None
    reader = bench.reader()
    shards = [read_shard(reader, ref) for ref in read_root(reader, content.pages).shards]
    return [(len(shard.hashes), {extent.chunk for extent in shard.extents}) for shard in shards]


@pytest.mark.parametrize("harm", ["root", "shard", "gap", "shift", "beyond", "size"])
def test_a_page_map_that_makes_no_sense_is_damage(bench: Bench, harm: str) -> None:
    content, _ = bench.save_pages(database(20))
    assert content.pages is not None
    root = read_root(bench.reader(), content.pages)
    shard = read_shard(bench.reader(), root.shards[0])
    store = bench.store()
    writer = store.writer()

    def put(data: bytes) -> ChunkRef:
        return writer.put(ChunkKind.DATABASE, data, compress=False)

    def rooted(first: ChunkRef, size: int = root.size) -> ChunkRef:
        refs = [first, *root.shards[1:]]
        body = b"".join(ref.id + ref.size.to_bytes(4, "big") for ref in refs)
        return put(PAGE.to_bytes(4, "big") + size.to_bytes(8, "big") + len(refs).to_bytes(4, "big") + body)

    extent = shard.extents[0]
    wrong = {
        "root": lambda: put(b"\0\0\1\0" + bytes(12)),
        "shard": lambda: rooted(put(encode_shard(shard)[:-1])),
        "gap": lambda: rooted(put(encode_shard(replace(shard, extents=())))),
        "shift": lambda: rooted(put(encode_shard(replace(shard, extents=(replace(extent, first=1),))))),
        "beyond": lambda: rooted(
            put(encode_shard(replace(shard, extents=(replace(extent, offset=1 << 20), *shard.extents[1:]))))
        ),
        "size": lambda: rooted(root.shards[0], size=root.size + 1),
    }[harm]()
    store.finish()

    with pytest.raises(Damaged, match="page map"):
        bench.load(content._replace(pages=wrong))
