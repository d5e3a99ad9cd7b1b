"""A storage that is far away is asked early and in large pieces, and nothing else changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Damaged
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.extract import extract
from backup_admin.operations.results import SourceSet
from backup_admin.repository import read_ahead
from backup_admin.repository.expecting import expecting_files
from backup_admin.repository.packs import PREFIX
from backup_admin.repository.reader import ChunkReader
from backup_admin.repository.types import ChunkKind, Content, FileEntry
from backup_admin.sources.files import FileSource
from backup_admin.storage.memory import MemoryStorage
from tests.factories import make_storage, noise, open_test_repository, prose, run_backup, write_tree
from tests.fakes import FarStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.repository.repository import Repository


SMALL = (("SPAN_BYTES", 8_000), ("_CALL_BYTES", 4_000), ("_SPARE_BYTES", 1_000))
PHOTO = b"\xff\xd8\xff"


class Site:
    """A repository in a far storage, with texts and photographs, and the files that are in it."""

    def __init__(self, folder: Path) -> None:
        self.storage = FarStorage(MemoryStorage())
        self.files = {
            f"{number:03d}.jpg": b"\xff\xd8\xff" + noise(3_000, seed=number) for number in range(60)
        }
        self.files |= {f"{number:03d}.txt": prose(2_000, seed=number) for number in range(60)}
        self.repository: Repository = open_test_repository(make_storage(self.storage), folder / "state")
        source = FileSource("site", write_tree(folder / "site", self.files))
        self.snapshot = run_backup(self.repository, SourceSet(files=(source,)), folder / "state").snapshot.id
        self.storage.reset()

    def entries(self) -> list[FileEntry]:
        """Return the files in order, from a reader of their own."""
        root = self.repository.manifest(self.snapshot).files[0]
        return [entry for entry in self.repository.entries(root) if entry.content is not None]

    def reader(self) -> ChunkReader:
        return ChunkReader(self.storage, self.repository.keys, self.repository.index())

    def packs(self) -> list[str]:
        return [info.name for info in self.storage.inner.list_objects(PREFIX)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def read(reader: ChunkReader, content: Content | None) -> bytes:
    assert content is not None
    return b"".join(bytes(reader.read(ChunkKind.DATA, ref)) for ref in content.chunks)


def test_a_restore_from_far_away_asks_for_packs_and_not_for_chunks(site: Site, tmp_path: Path) -> None:
    report = extract(site.repository, site.snapshot, tmp_path / "out", reporter=QuietReporter())

    restored = {path.name: path.read_bytes() for path in (tmp_path / "out/files/site").iterdir()}
    asked = [name for method, name in site.storage.calls if method == "get" and name.startswith(PREFIX)]
    assert report.problems == ()
    assert restored == site.files
    assert len(asked) <= 3 * len(site.packs()) < len(site.files)


def test_files_that_were_told_of_are_read_right_in_any_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL:
        monkeypatch.setattr(read_ahead, name, value)
    entries, reader = site.entries(), site.reader()
    for entry in entries:
        reader.expect(() if entry.content is None else entry.content.chunks)

    found = {entry.path.decode(): read(reader, entry.content) for entry in reversed(entries)}

    assert found == site.files


def test_what_is_told_of_and_never_read_holds_no_more_memory_than_allowed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL:
        monkeypatch.setattr(read_ahead, name, value)
    entries, reader = site.entries(), site.reader()
    for entry in entries:
        reader.expect(() if entry.content is None else entry.content.chunks)
    ahead = reader._ahead
    assert ahead is not None

    held = []
    for entry in entries[::-7]:
        assert read(reader, entry.content) == site.files[entry.path.decode()]
        held.append(ahead._held_bytes)

    assert max(held) <= ahead._most_bytes + 8_000 + 1_000
    assert ahead._most_bytes <= 32_000


def test_where_nothing_is_under_way_the_first_part_is_loaded_though_others_may_grow(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_REGION_BYTES", 8_000), ("_OPEN_WHEN_IDLE", 1), ("_OPEN_BATCHES", 1_000)):
        monkeypatch.setattr(read_ahead, name, value)
    reader = site.reader()
    for entry in site.entries():
        reader.expect(() if entry.content is None else entry.content.chunks)

    ahead = reader._ahead
    assert ahead is not None
    deadline = time.monotonic() + 20
    while not ahead._held and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread of its own loads it
    assert ahead._held
    assert ahead._open


def test_all_memory_is_free_again_when_all_was_read(site: Site) -> None:
    entries, reader = site.entries(), site.reader()

    for entry in expecting_files(reader, entries):
        read(reader, entry.content)

    ahead = reader._ahead
    assert ahead is not None
    assert (ahead._held_bytes, ahead._held, ahead._frames, list(ahead._planned)) == (0, [], {}, [])


def test_a_pack_that_is_gone_is_told_of_by_name_and_the_rest_is_restored(site: Site, tmp_path: Path) -> None:
    reader = site.reader()
    first = site.entries()[30].content
    assert first is not None
    location = next(reader._index.locations(first.chunks[0].id))
    gone = next(name for name in site.packs() if name.endswith(location.pack.name.hex()))
    site.storage.inner.delete(gone)

    report = extract(site.repository, site.snapshot, tmp_path / "out", reporter=QuietReporter())

    assert any(f"{gone} is missing" in problem for problem in report.problems)
    for path in (tmp_path / "out/files/site").iterdir():
        assert path.read_bytes() == site.files[path.name]


def test_damage_in_a_list_is_raised_after_what_came_before_it(site: Site) -> None:
    entries = site.entries()

    def listed() -> Iterator[FileEntry]:
        yield from entries[:5]
        raise Damaged("the list ends here")

    told = expecting_files(site.reader(), listed())
    seen = [next(told) for _ in range(5)]

    assert seen == entries[:5]
    with pytest.raises(Damaged, match="the list ends here"):
        next(told)


def test_a_storage_that_is_near_is_told_of_nothing(tmp_path: Path) -> None:
    repository = open_test_repository(make_storage(MemoryStorage()), tmp_path / "state")

    assert not repository.reader().reads_ahead
