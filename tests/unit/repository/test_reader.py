"""Reading chunks uses memory again without ever changing what somebody still looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.direct_io import BLOCK_BYTES
from backup_admin.core.errors import Damaged
from backup_admin.operations.captured import iterate_refs
from backup_admin.operations.results import SourceSet
from backup_admin.repository import reader
from backup_admin.repository.packs import PREFIX
from backup_admin.repository.reader import ChunkReader
from backup_admin.sources.files import FileSource
from backup_admin.storage.base import get_into
from backup_admin.storage.memory import MemoryStorage
from tests.factories import make_storage, noise, open_test_repository, run_backup, write_tree
from tests.fakes import FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.types import ChunkKind, ChunkRef

PHOTO = b"\xff\xd8\xff"


class Photos:
    """A repository with files that do not compress, and the chunks they are in, in order."""

    def __init__(self, folder: Path) -> None:
        self.storage = FaultyStorage(MemoryStorage())
        files = {f"{number:02d}.jpg": PHOTO + noise(3_000, seed=number) for number in range(30)}
        repository = open_test_repository(make_storage(self.storage), folder / "state")
        source = FileSource("photos", write_tree(folder / "photos", files))
        result = run_backup(repository, SourceSet(files=(source,)), folder / "state")
        self.reader = ChunkReader(self.storage, repository.keys, repository.index())
        self.contents = list(files.values())
        root = repository.manifest(result.snapshot.id).files[0]
        self.refs: list[tuple[ChunkKind, ChunkRef]] = [
            ref
            for entry in repository.entries(root)
            if entry.content is not None
            for ref in iterate_refs(self.reader, entry.content)
        ]
        self.reader = ChunkReader(self.storage, repository.keys, repository.index())
        self.storage.reset()


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path)


def test_a_chunk_stays_as_it_was_while_others_are_read(photos: Photos) -> None:
    held = [photos.reader.read(kind, ref) for kind, ref in photos.refs]

    assert [bytes(view) for view in held] == photos.contents


def test_memory_nobody_looks_at_is_used_again(photos: Photos) -> None:
    memory = set()
    for kind, ref in photos.refs:
        view = photos.reader.read(kind, ref)
        memory.add(id(view.obj))
        del view

    assert len(memory) <= 3


def test_who_reads_in_order_asks_the_storage_seldom(photos: Photos) -> None:
    for (kind, ref), content in zip(photos.refs, photos.contents, strict=True):
        assert photos.reader.read(kind, ref) == content

    packs = len(list(photos.storage.inner.list_objects(PREFIX)))
    assert packs <= photos.storage.counts()["get"] <= 3 * packs < len(photos.refs)


def test_one_chunk_alone_is_read_without_its_neighbours(photos: Photos) -> None:
    for number in (20, 10, 3):
        assert photos.reader.read(*photos.refs[number]) == photos.contents[number]

    assert photos.reader.bytes_read < 4 * 3_100


def test_what_is_long_is_read_in_whole_blocks_which_go_past_the_cache(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_AHEAD", 3 * BLOCK_BYTES)
    monkeypatch.setattr(reader, "DIRECT_BYTES", 2 * BLOCK_BYTES)
    spans = []

    def note(storage: FaultyStorage, name: str, offset: int, buffer: memoryview) -> int:
        spans.append((offset, len(buffer)))
        return get_into(storage, name, offset, buffer)

    monkeypatch.setattr(reader, "get_into", note)
    for (kind, ref), content in zip(photos.refs, photos.contents, strict=True):
        assert photos.reader.read(kind, ref) == content

    long = [(offset, size) for offset, size in spans if size >= 2 * BLOCK_BYTES]
    assert long
    assert all(offset % BLOCK_BYTES == size % BLOCK_BYTES == 0 for offset, size in long)
    assert sum(size for _, size in spans) < 2 * sum(map(len, photos.contents))


def test_each_of_the_frames_read_in_advance_is_checked(photos: Photos) -> None:
    index, storage = photos.reader._index, photos.storage.inner
    location = index.find(photos.refs[7][1].id)
    assert location is not None
    (name,) = [
        info.name for info in storage.list_objects(PREFIX) if info.name.endswith(location.pack.name.hex())
    ]
    broken = bytearray(storage.get(name))
    broken[location.frame_offset + 5] ^= 1
    storage.put(name, bytes(broken), if_absent=False)

    good = 0
    for number, (kind, ref) in enumerate(photos.refs):
        if number == 7:
            with pytest.raises(Damaged, match="seal"):
                photos.reader.read(kind, ref)
            continue
        assert photos.reader.read(kind, ref) == photos.contents[number]
        good += 1
    assert good == 29
