"""The local index is made anew from the storage, and where the storage differs is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Busy
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.reindexing import ReindexReport, reindex
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    file_sources,
    make_storage,
    open_test_repository,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage


@pytest.fixture
def storage(tmp_path: Path) -> MemoryStorage:
    made = make_storage()
    assert isinstance(made, MemoryStorage)
    sources = file_sources(write_tree(tmp_path / "files"))
    run_backup(open_test_repository(made, tmp_path / "state"), sources, tmp_path / "state")
    return made


def build(storage: Storage, state: Path) -> ReindexReport:
    repository = open_test_repository(storage, state)
    return reindex(repository, state=StateFolder(state), reporter=QuietReporter())


def first_of(storage: MemoryStorage, prefix: str) -> str:
    return next(info.name for info in storage.list_objects(prefix))


def test_a_damaged_local_index_is_replaced_by_the_same_as_before(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    sound = build(storage, state)
    (path,) = [path for path in (state / "cache").rglob("*") if path.is_file() and path.stat().st_size > 1000]
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))

    again = build(storage, state)

    assert again == sound
    assert (sound.ok, sound.indexes, sound.unnamed_packs, sound.unnamed_indexes) == (True, 1, 0, 0)
    assert sound.packs > 1
    assert sound.chunks > sound.packs
    assert path.read_bytes() == content
    assert all(report.ok for report in verify_all(storage, state).values())


def test_every_index_object_is_read_from_the_storage_again(storage: MemoryStorage, tmp_path: Path) -> None:
    build(storage, tmp_path / "state")
    watched = FaultyStorage(storage)

    build(watched, tmp_path / "state")

    assert [name for method, name in watched.calls if method == "get" and name.startswith("index/")] == [
        first_of(storage, "index/")
    ]


def test_a_machine_that_knows_nothing_learns_all(storage: MemoryStorage, tmp_path: Path) -> None:
    assert build(storage, tmp_path / "another") == build(storage, tmp_path / "state")


def test_a_lost_index_object_is_told(storage: MemoryStorage, tmp_path: Path) -> None:
    name = first_of(storage, "index/")
    storage.delete(name)

    report = build(storage, tmp_path / "state")

    assert (report.ok, list(report.lost_indexes), report.indexes) == (False, [name], 0)
    assert report.unnamed_packs > 1


def test_a_lost_pack_is_told(storage: MemoryStorage, tmp_path: Path) -> None:
    name = first_of(storage, "packs/")
    storage.delete(name)

    report = build(storage, tmp_path / "state")

    assert (report.ok, report.missing_packs) == (False, (name.rpartition("/")[2],))


def test_what_nothing_names_is_counted(storage: MemoryStorage, tmp_path: Path) -> None:
    storage.put(f"index/{'0' * 64}", b"x")
    storage.put(f"packs/00/{'0' * 64}", b"x")

    report = build(storage, tmp_path / "state")

    assert (report.ok, report.unnamed_indexes, report.unnamed_packs) == (True, 1, 1)


def test_it_waits_for_no_backup(storage: MemoryStorage, tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")

    with state.lock("backup"), pytest.raises(Busy):
        build(storage, tmp_path / "state")
