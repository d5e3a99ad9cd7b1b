"""A backup is complete, small, honest about what it lacks, and shares a repository."""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, NoReturn

import pytest

from backup_admin.core.errors import Busy, Damaged, ProgramFailed, SourceMissing, UsageError
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations import known
from backup_admin.operations.captured import iterate_bytes
from backup_admin.operations.extract import extract
from backup_admin.operations.results import BackupOptions, Outcome, SourceSet
from backup_admin.operations.verify import verify_snapshot
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource, KeptFolder, OpenFile
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.local import LocalStorage
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    prose,
    run_backup,
    some_files,
    verify_all,
    write_tree,
)
from tests.fakes import FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.repository import Repository
    from backup_admin.sources.base import FoundEntry


@pytest.fixture
def storage() -> MemoryStorage:
    made = make_storage()
    assert isinstance(made, MemoryStorage)
    return made


@pytest.fixture
def repository(storage: MemoryStorage, tmp_path: Path) -> Repository:
    return open_test_repository(storage, tmp_path / "state")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "files")


def saved(repository: Repository, snapshot: str) -> dict[bytes, bytes]:
    """Return the content of every file of a snapshot."""
    reader = repository.reader()
    return {
        entry.path: b"".join(bytes(piece) for piece in iterate_bytes(reader, entry.content))
        for root in repository.manifest(snapshot).files
        for entry in repository.entries(root)
        if entry.content is not None
    }


def live(tree: Path) -> dict[bytes, bytes]:
    return {
        os.fsencode(path.relative_to(tree)): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_every_file_of_every_snapshot_is_kept_byte_for_byte(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    states = []
    for turn in range(3):
        result = run_backup(repository, file_sources(tree), tmp_path / "state")
        states.append((result.snapshot.id, live(tree)))
        write_tree(tree, {f"more/{turn}": prose(5000, turn), "text/long.txt": prose(40_000, turn)})

    assert all(saved(repository, snapshot) == content for snapshot, content in states)


def test_entries_have_kinds_modes_times_and_links(repository: Repository, tree: Path, tmp_path: Path) -> None:
    (tree / "twin").hardlink_to(tree / "umlaut-ä-😀")
    (tree / "small/00.txt").chmod(0o640)

    result = run_backup(repository, file_sources(tree), tmp_path / "state")

    (root,) = repository.manifest(result.snapshot.id).files
    entries = {entry.path: entry for entry in repository.entries(root)}
    assert len(entries) == root.entry_count
    assert (entries[b"link"].kind, entries[b"link"].link_target) == ("symlink", b"text/long.txt")
    assert entries[b"empty folder"].kind == "folder"
    assert entries[b"small/00.txt"].mode == 0o640
    assert entries[b"small/00.txt"].mtime_ns == (tree / "small/00.txt").stat().st_mtime_ns
    assert entries[b"twin"].link_group == entries["umlaut-ä-😀".encode()].link_group != ""
    assert b"not-utf8-\xff" in entries


def test_a_second_backup_of_the_same_stores_no_file_again(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    first = run_backup(repository, file_sources(tree), tmp_path / "state")

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert second.new_bytes < first.new_bytes // 20
    assert second.snapshot.parent == first.snapshot.id


def test_any_snapshot_stands_alone(storage: MemoryStorage, tree: Path, tmp_path: Path) -> None:
    repository = open_test_repository(storage, tmp_path / "state")
    ids = []
    for turn in range(4):
        ids.append(run_backup(repository, file_sources(tree), tmp_path / "state").snapshot.id)
        write_tree(tree, {f"more/{turn}": prose(9000, turn)})

    repository.record("forget", {"ids": [ids[0], ids[2]]}, actor="tests")

    reports = verify_all(storage, tmp_path / "fresh")
    assert list(reports) == [ids[1], ids[3]]
    assert [(report.files, report.problems) for report in reports.values()] == [(20, ()), (22, ())]


def read_again(
    repository: Repository, tree: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[bytes]]:
    """Back up and return the snapshot and what was opened."""
    opened: list[bytes] = []
    open_file = FileSource.open

    def count(self: FileSource, entry: FoundEntry, kept: KeptFolder) -> AbstractContextManager[OpenFile]:
        opened.append(entry.path)
        return open_file(self, entry, kept)

    with monkeypatch.context() as patched:
        patched.setattr(FileSource, "open", count)
        return run_backup(repository, file_sources(tree), state).snapshot.id, opened


def test_what_lay_still_before_the_last_backup_is_not_read_again(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SETTLE_NS", -(10**12))
    run_backup(repository, file_sources(tree), tmp_path / "state")

    snapshot, opened = read_again(repository, tree, tmp_path / "state", monkeypatch)

    assert opened == []
    assert saved(repository, snapshot) == live(tree)


def test_what_was_written_just_before_the_last_backup_is_read_again(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_backup(repository, file_sources(tree), tmp_path / "state")

    _, opened = read_again(repository, tree, tmp_path / "state", monkeypatch)

    assert sorted(opened) == sorted(live(tree))


def test_a_changed_file_of_the_same_size_and_time_is_not_overlooked(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SETTLE_NS", -(10**12))
    path = tree / "small/05.txt"
    run_backup(repository, file_sources(tree), tmp_path / "state")
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    snapshot, opened = read_again(repository, tree, tmp_path / "state", monkeypatch)

    assert opened == [b"small/05.txt"]
    assert saved(repository, snapshot) == live(tree)


def test_a_folder_that_is_exchanged_while_it_is_read_loses_no_file(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "exchanged", {"d/a": b"a", "d/b": b"old b", "d/c": b"c"})
    opened = FileSource.open

    def exchange(self: FileSource, entry: FoundEntry, kept: KeptFolder) -> OpenFile:
        file = opened(self, entry, kept)
        if entry.path == b"d/a" and not (tmp_path / "away").exists():
            (root / "new").write_bytes(b"newer b")
            (root / "new").replace(root / "d/b")
            (root / "d").rename(tmp_path / "away")
            write_tree(root, {"d/a": b"a", "d/b": b"newest b", "d/c": b"c"})
        return file

    monkeypatch.setattr(FileSource, "open", exchange)

    result = run_backup(repository, file_sources(root), tmp_path / "state")

    extract(repository, result.snapshot.id, tmp_path / "out", reporter=QuietReporter())
    assert (tmp_path / "out/files/uploads/d/b").read_bytes() == b"newest b"
    assert result.warnings == ()


@pytest.mark.parametrize("error", [Busy("It stayed locked."), ProgramFailed("It was stopped.")])
def test_an_undeclared_database_that_stays_locked_costs_only_itself(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    root = write_tree(tmp_path / "locked", {"file": b"x"})
    with closing(sqlite3.connect(root / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY)")

    def refuse(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(FileSource, "capture_database", refuse)

    result = run_backup(repository, file_sources(root), tmp_path / "state")

    assert [warning for warning in result.warnings if "app.db" in warning and str(error) in warning]
    assert result.snapshot.outcome == "degraded"
    assert result.snapshot.file_count == 1


@pytest.mark.parametrize("size", [b"\0\0", b"\0\x64", b"\x30\x00"])
@pytest.mark.parametrize("length", [1024, 4096])
def test_a_file_that_only_begins_like_a_database_is_kept_exactly(
    repository: Repository, tmp_path: Path, size: bytes, length: int
) -> None:
    data = (b"SQLite format 3\0" + size).ljust(length, b"x")
    tree = write_tree(tmp_path / "files", {"a.db": data})

    result = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert saved(repository, result.snapshot.id) == {b"a.db": data}


def test_databases_files_and_settings_make_one_snapshot(
    storage: MemoryStorage, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY, title TEXT)")
        connection.executemany("INSERT INTO photo (title) VALUES (?)", [(f"photo {n}",) for n in range(500)])
    sources = SourceSet(
        files=(FileSource("uploads", tree),),
        databases=(SqliteSource("app", path),),
        settings=SettingsSource(lambda: {"A": 1, "API_KEY": "k"}),
    )
    repository = open_test_repository(storage, tmp_path / "state")

    result = run_backup(repository, sources, tmp_path / "state", label="all")

    manifest = repository.manifest(result.snapshot.id)
    (database,) = manifest.databases
    assert [(table.name, table.rows) for table in database.tables] == [("photo", 500)]
    assert manifest.settings is not None
    assert (manifest.settings.names, manifest.settings.secret_names) == (("A",), ("API_KEY",))
    assert (result.outcome, result.warnings) == (Outcome.COMPLETED, ())
    (report,) = verify_all(storage, tmp_path / "fresh").values()
    assert (report.files, report.databases, report.problems) == (19, 1, ())
    assert repository.snapshot(result.snapshot.id) == manifest.snapshot


def test_a_setting_that_is_missing_makes_the_backup_degraded(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    settings = SettingsSource(environment=("NO_SUCH_VARIABLE_HERE",))
    sources = SourceSet(files=(FileSource("uploads", tree),), settings=settings)

    result = run_backup(repository, sources, tmp_path / "state")

    assert result.outcome is Outcome.DEGRADED
    assert repository.snapshot(result.snapshot.id).outcome == "degraded"
    assert "NO_SUCH_VARIABLE_HERE" in result.warnings[0]


def test_a_root_that_is_missing_makes_no_snapshot(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        run_backup(repository, file_sources(tmp_path / "not mounted"), tmp_path / "state")

    assert repository.snapshot_ids() == ()


def test_nothing_to_back_up_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run_backup(repository, SourceSet(), tmp_path / "state")


def test_a_repository_inside_what_it_protects_is_refused(tree: Path, tmp_path: Path) -> None:
    storage = LocalStorage(tree / "backups")
    make_storage(storage)
    repository = open_test_repository(storage, tmp_path / "state")

    with pytest.raises(UsageError, match="inside each other"):
        run_backup(repository, file_sources(tree), tmp_path / "state")


def test_a_second_backup_at_once_in_one_state_folder_is_refused(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    with StateFolder(tmp_path / "state").lock("backup"), pytest.raises(Busy):
        run_backup(repository, file_sources(tree), tmp_path / "state")


def test_a_label_longer_than_one_read_of_a_header_is_shown_whole(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    label = "long " * 8000

    result = run_backup(repository, file_sources(tree), tmp_path / "state", label=label)

    assert repository.snapshot(result.snapshot.id).label == label


def test_the_header_of_a_snapshot_is_one_short_read(
    storage: MemoryStorage, tree: Path, tmp_path: Path
) -> None:
    run_backup(open_test_repository(storage, tmp_path / "state"), file_sources(tree), tmp_path / "state")
    seen = FaultyStorage(storage)
    repository = open_test_repository(seen, tmp_path / "state")
    seen.reset()

    repository.snapshots()

    assert seen.calls == [("get", f"manifests/{repository.snapshot_ids()[0]}")]


def test_two_writers_at_once_both_make_a_snapshot_that_restores(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    trees = [write_tree(tmp_path / name) for name in ("one", "two")]
    write_tree(trees[1], {"own.jpg": b"\xff\xd8\xff" + noise(200_000, 7)})
    start = threading.Barrier(2)

    def work(number: int) -> None:
        state = tmp_path / f"state {number}"
        repository = open_test_repository(storage, state)
        start.wait()
        for _ in range(3):
            run_backup(repository, file_sources(trees[number]), state)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (0, 1)))

    reports = verify_all(storage, tmp_path / "fresh")
    assert sorted(report.files for report in reports.values()) == [19, 19, 19, 20, 20, 20]
    assert all(report.ok for report in reports.values())


@pytest.mark.parametrize("cut", [False, True])
def test_what_lost_packs_held_is_stored_anew_and_every_snapshot_is_whole_again(
    storage: MemoryStorage, tree: Path, tmp_path: Path, cut: bool
) -> None:
    repository = open_test_repository(storage, tmp_path / "state")
    run_backup(repository, file_sources(tree), tmp_path / "state")
    for info in list(storage.list_objects("packs/")):
        data = storage.get(info.name)
        storage.delete(info.name)
        if cut:
            storage.put(info.name, data[:1000])

    result = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert "missing from the storage" in result.notices[0]
    assert result.snapshot.parent == ""
    reports = verify_all(storage, tmp_path / "fresh")
    assert [report.problems for report in reports.values()] == [(), ()]
    third = run_backup(repository, file_sources(tree), tmp_path / "state")
    assert third.new_bytes < 20_000


def test_what_a_lost_index_object_named_is_stored_anew(
    storage: MemoryStorage, tree: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    run_backup(open_test_repository(storage, state), file_sources(tree), state)
    for info in list(storage.list_objects("index/")):
        storage.delete(info.name)

    other = tmp_path / "other state"
    result = run_backup(open_test_repository(storage, other), file_sources(tree), other)

    assert "1 index object " in result.notices[0]
    assert [report.problems for report in verify_all(storage, tmp_path / "fresh").values()] == [(), ()]


def test_a_snapshot_before_that_cannot_be_read_does_not_stop_the_next(
    storage: MemoryStorage, tree: Path, tmp_path: Path
) -> None:
    repository = open_test_repository(storage, tmp_path / "state")
    first = run_backup(repository, file_sources(tree), tmp_path / "state")
    storage.put(f"manifests/{first.snapshot.id}", b"rubbish", if_absent=False)

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert "could not be read" in second.notices[0]
    report = verify_snapshot(
        repository, second.snapshot.id, state=StateFolder(tmp_path / "state"), reporter=QuietReporter()
    )
    assert report.ok
    with pytest.raises(Damaged):
        repository.manifest(first.snapshot.id)


def test_a_manifest_swapped_for_another_is_refused(
    storage: MemoryStorage, tree: Path, tmp_path: Path
) -> None:
    repository = open_test_repository(storage, tmp_path / "state")
    names = []
    for _ in range(2):
        result = run_backup(repository, file_sources(tree), tmp_path / "state")
        names.append(f"manifests/{result.snapshot.id}")
    one, two = (storage.get(name) for name in names)
    storage.put(names[0], two, if_absent=False)
    storage.put(names[1], one, if_absent=False)

    for name in names:
        with pytest.raises(Damaged):
            repository.manifest(name.rpartition("/")[2])
        with pytest.raises(Damaged):
            repository.snapshot(name.rpartition("/")[2])


def test_a_file_that_vanishes_is_a_notice_and_one_that_cannot_be_read_a_warning(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = FileSource.open

    def open_or_fail(self: FileSource, entry: object, kept: KeptFolder) -> object:
        path = entry.path  # type: ignore[attr-defined]  # a found entry
        if path == b"small/01.txt":
            raise FileNotFoundError(2, "gone")
        if path == b"small/02.txt":
            raise OSError(5, "Input/output error")
        return opened(self, entry, kept)  # type: ignore[arg-type]  # a found entry

    monkeypatch.setattr(FileSource, "open", open_or_fail)

    result = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert result.outcome is Outcome.DEGRADED
    assert result.warnings == ("uploads: small/02.txt: Input/output error.",)
    assert [notice for notice in result.notices if "vanished" in notice]
    assert len(saved(repository, result.snapshot.id)) == len(some_files()) + 1 - 2


def test_the_options_stand_in_the_snapshot(repository: Repository, tree: Path, tmp_path: Path) -> None:
    result = run_backup(repository, file_sources(tree), tmp_path / "state", label="before the update")

    assert (result.snapshot.label, result.snapshot.kind) == ("before the update", BackupOptions().kind)
    assert repository.manifest(result.snapshot.id).system["app_version"] == "1.2.3"
    assert repository.find_snapshot("latest") == result.snapshot
    assert repository.find_snapshot(result.snapshot.id[:12].upper()) == result.snapshot


def test_no_file_stays_open_when_a_backup_is_finished(tmp_path: Path) -> None:
    """Also before the garbage collector comes by: a sweep of thousands of runs ran out of them."""
    storage, sources = make_storage(), file_sources(write_tree(tmp_path / "files"))
    run_backup(open_test_repository(storage, tmp_path / "state"), sources, tmp_path / "state")
    gc.collect()
    gc.disable()
    try:
        for number in range(3):
            (tmp_path / "files" / f"new{number}").write_bytes(os.urandom(1000))
            run_backup(open_test_repository(storage, tmp_path / "state"), sources, tmp_path / "state")
        held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    finally:
        gc.enable()

    assert [place for place in held if place.startswith(f"{tmp_path}/")] == []
