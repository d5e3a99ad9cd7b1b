"""Verifying reads every byte of one snapshot and names each file that is not as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Cancelled, Damaged, SnapshotMissing
from backup_admin.core.ids import SnapshotId
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.forget import forget_named
from backup_admin.operations.results import SourceSet, VerifyReport
from backup_admin.operations.verify import verify_snapshot
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.memory import MemoryStorage
from tests.factories import CLOCK, file_sources, make_storage, open_test_repository, run_backup, write_tree
from tests.fakes import FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.repository import Repository


@pytest.fixture
def storage(tmp_path: Path) -> MemoryStorage:
    made = make_storage()
    assert isinstance(made, MemoryStorage)
    sources = file_sources(write_tree(tmp_path / "files"))
    run_backup(open_test_repository(made, tmp_path / "state"), sources, tmp_path / "state")
    return made


def verify(repository: Repository, folder: Path) -> VerifyReport:
    return verify_snapshot(
        repository, repository.snapshot_ids()[-1], state=StateFolder(folder), reporter=QuietReporter()
    )


def test_a_sound_snapshot_is_read_whole(storage: MemoryStorage, tmp_path: Path) -> None:
    seen = FaultyStorage(storage)
    repository = open_test_repository(seen, tmp_path / "fresh")

    report = verify(repository, tmp_path / "fresh")

    assert (report.files, report.databases, report.ok) == (19, 0, True)
    assert report.bytes_read == repository.manifest(report.snapshot_id).snapshot.file_bytes
    read = {name for method, name in seen.calls if method == "get" and name.startswith("packs/")}
    assert read == {info.name for info in storage.list_objects("packs/")}


def test_every_damaged_pack_is_noticed(storage: MemoryStorage, tmp_path: Path) -> None:
    for number, info in enumerate(list(storage.list_objects("packs/"))):
        good = storage.get(info.name)
        storage.put(info.name, good[:60] + bytes([good[60] ^ 1]) + good[61:], if_absent=False)

        report = verify(open_test_repository(storage, tmp_path / str(number)), tmp_path / str(number))

        assert not report.ok
        storage.put(info.name, good, if_absent=False)


def test_the_files_that_a_missing_pack_held_are_named(storage: MemoryStorage, tmp_path: Path) -> None:
    repository = open_test_repository(storage, tmp_path / "fresh")
    (root,) = repository.manifest(repository.snapshot_ids()[0]).files
    photo = next(entry for entry in repository.entries(root) if entry.path == b"media/photo.jpg")
    assert photo.content is not None
    location = repository.index().find(photo.content.chunks[0].id)
    assert location is not None
    name = location.pack.name.hex()
    storage.delete(f"packs/{name[:2]}/{name}")

    report = verify(open_test_repository(storage, tmp_path / "fresh"), tmp_path / "fresh")

    assert any(problem.startswith("uploads: media/photo.jpg: ") for problem in report.problems)
    assert all(name in problem for problem in report.problems)


def test_a_database_is_put_together_and_compared_table_by_table(
    storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY, title TEXT)")
        connection.execute("INSERT INTO photo (title) VALUES ('one')")
    repository = open_test_repository(storage, tmp_path / "state")
    result = run_backup(repository, SourceSet(databases=(SqliteSource("app", path),)), tmp_path / "state")
    assert verify(repository, tmp_path / "state").ok
    manifest = repository.manifest(result.snapshot.id)
    (entry,) = manifest.databases
    wrong = replace(entry, tables=(replace(entry.tables[0], rows=2),))
    monkeypatch.setattr(repository, "manifest", lambda _: replace(manifest, databases=(wrong,)))

    report = verify(repository, tmp_path / "state")

    assert len(report.problems) == 1
    assert "table photo" in report.problems[0]
    assert not list(StateFolder(tmp_path / "state").scratch.iterdir())


def test_a_manifest_that_cannot_be_read_is_damage(storage: MemoryStorage, tmp_path: Path) -> None:
    (info,) = storage.list_objects("manifests/")
    storage.put(info.name, b"rubbish", if_absent=False)

    with pytest.raises(Damaged):
        verify(open_test_repository(storage, tmp_path / "fresh"), tmp_path / "fresh")


def test_a_snapshot_nobody_made_is_missing(storage: MemoryStorage, tmp_path: Path) -> None:
    repository = open_test_repository(storage, tmp_path / "fresh")

    with pytest.raises(SnapshotMissing):
        verify_snapshot(
            repository, SnapshotId("0" * 26), state=StateFolder(tmp_path / "fresh"), reporter=QuietReporter()
        )


def test_it_stops_when_it_is_asked_to(storage: MemoryStorage, tmp_path: Path) -> None:
    class Stop(QuietReporter):
        def check_cancelled(self) -> None:
            raise Cancelled("stop")

    repository = open_test_repository(storage, tmp_path / "fresh")

    with pytest.raises(Cancelled):
        verify_snapshot(
            repository, repository.snapshot_ids()[0], state=StateFolder(tmp_path / "fresh"), reporter=Stop()
        )


def test_a_tree_with_fewer_entries_than_its_manifest_says_is_noticed(
    storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_test_repository(storage, tmp_path / "fresh")
    manifest = repository.manifest(repository.snapshot_ids()[0])
    (root,) = manifest.files
    wrong = replace(manifest, files=(replace(root, entry_count=root.entry_count + 1),))
    monkeypatch.setattr(repository, "manifest", lambda _: wrong)

    (problem,) = verify(repository, tmp_path / "fresh").problems

    assert "entries instead of" in problem


def test_what_a_forgotten_snapshot_lacks_is_no_damage(storage: MemoryStorage, tmp_path: Path) -> None:
    repository = open_test_repository(storage, tmp_path / "fresh")
    (snapshot,) = repository.snapshot_ids()
    other = open_test_repository(storage, tmp_path / "other")
    forget_named(other, [snapshot], force=True, actor="tests", clock=CLOCK)
    for info in list(storage.list_objects("packs/")):
        storage.delete(info.name)

    with pytest.raises(SnapshotMissing, match="forgotten while it was verified"):
        verify(repository, tmp_path / "fresh")
