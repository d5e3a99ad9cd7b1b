"""A restore of a part reads and writes that part, and says so in its manifest."""

from __future__ import annotations

import gc
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from backup_admin.core.errors import Damaged, RestoreRefused, SourceError
from backup_admin.core.progress import QuietReporter
from backup_admin.operations import stage_tree
from backup_admin.operations.extract import extract, plan_extract
from backup_admin.operations.results import ExtractReport, SourceSet
from backup_admin.repository import entries
from backup_admin.repository.entries import iterate_shards
from backup_admin.repository.packs import PREFIX, pack_name
from backup_admin.repository.reader import ChunkReader
from backup_admin.sources import tree as tree_module
from backup_admin.sources import tree_aside
from backup_admin.sources.app_settings import SettingsSource
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.sources.tree_aside import FilesAside
from backup_admin.storage.memory import MemoryStorage
from tests.factories import make_storage, open_test_repository, prose, run_backup, write_tree
from tests.fakes import FarStorage

if TYPE_CHECKING:
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import ChunkKind, ChunkRef

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/manifest.schema.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extract")


@pytest.fixture(scope="module")
def repository(place: Path) -> Repository:
    """Two trees, one of them with many entries, a database and settings."""
    write_tree(place / "uploads")
    many = {f"{a:02d}/{b:03d}": b"%d" % (a * b) for a in range(12) for b in range(40)}
    write_tree(place / "many", {**many, "08/deep/er/one.txt": b"the one", "empty": b""})
    with closing(sqlite3.connect(place / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY)")
    sources = SourceSet(
        files=(FileSource("uploads", place / "uploads"), FileSource("many", place / "many")),
        databases=(SqliteSource("app", place / "app.db"),),
        settings=SettingsSource(lambda: {"SITE": "Gallery", "API_TOKEN": "canary"}),
    )
    opened = open_test_repository(make_storage(), place / "state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "_SHARD_MAX", 50)
        run_backup(opened, sources, place / "state")
    return opened


@pytest.fixture(scope="module")
def whole(repository: Repository, place: Path) -> dict[str, bytes | None]:
    """Return all files and folders of a full restore."""
    restore(repository, place / "full")
    return found_below(place / "full/files")


def restore(repository: Repository, target: Path, *only: str) -> ExtractReport:
    return extract(repository, repository.snapshot_ids()[0], target, only=only, reporter=QuietReporter())


def found_below(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


def manifest_in(target: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((target / "manifest.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(value)
    return value


def test_everything_comes_back_with_a_whole_manifest(
    repository: Repository, place: Path, tmp_path: Path
) -> None:
    report = restore(repository, tmp_path / "out")

    value = manifest_in(tmp_path / "out")
    for name in ("uploads", "many"):
        assert found_below(tmp_path / "out/files" / name) == found_below(place / name)
    assert report.problems == ()
    assert report.files == value["files"]["count"] == value["totals"]["files"]
    assert [database["name"] for database in value["databases"]] == ["app"]
    assert value["settings"] == {"SITE": "Gallery"}


@pytest.fixture
def far(repository: Repository, tmp_path: Path) -> Repository:
    """Return the same repository, far away: small files are written by a process of its own."""
    return open_test_repository(FarStorage(repository.storage), tmp_path / "far-state")


def test_from_far_away_everything_comes_back_just_the_same(
    repository: Repository, far: Repository, tmp_path: Path
) -> None:
    begun: list[Path] = []

    class Noted(FilesAside):
        def __init__(self, root: Path) -> None:
            begun.append(root)
            super().__init__(root)

    restore(repository, tmp_path / "near")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_tree, "FilesAside", Noted)
        report = restore(far, tmp_path / "far")

    assert begun == [tmp_path / "far/files/uploads", tmp_path / "far/files/many"]
    assert report.problems == ()
    assert listing(tmp_path / "far") == listing(tmp_path / "near")
    assert found_below(tmp_path / "far") == found_below(tmp_path / "near")


def listing(folder: Path) -> list[bytes]:
    """Return what `find` says about the trees below: name, mode, size, kind, target, links and time."""
    told = ["-mindepth", "1", "-printf", "%P %m %s %y %l %n %T@\\n"]
    done = subprocess.run(["find", ".", *told], cwd=folder / "files", check=True, capture_output=True)
    # When a tree was made shows only in the folder that holds the trees.
    return sorted(done.stdout.splitlines())


def test_a_process_that_ends_while_it_writes_files_fails_the_restore(
    far: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = (sys.executable, "-c", "import sys; sys.stdin.buffer.read(1000)")
    monkeypatch.setattr(tree_aside, "_COMMAND", dying)

    with pytest.raises(SourceError, match="process that writes them ended"):
        restore(far, tmp_path / "out")


def test_what_a_process_aside_cannot_write_is_told_by_name(
    far: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "out/files/many/05/007"
    begin = FilesAside.__init__

    def in_the_way(self: FilesAside, root: Path) -> None:
        begin(self, root)
        if root.name == "many":
            taken.parent.mkdir(mode=0o700)
            taken.mkdir()

    monkeypatch.setattr(FilesAside, "__init__", in_the_way)

    report = restore(far, tmp_path / "out")

    assert [problem.split(": ")[0] for problem in report.problems] == ["files/many/05/007"]
    assert (tmp_path / "out/files/many/05/008").read_bytes() == b"40"


def test_one_file_comes_with_its_folders_and_a_manifest_of_it(
    repository: Repository, place: Path, tmp_path: Path
) -> None:
    report = restore(repository, tmp_path / "out", "many/08/deep/er/one.txt")

    value = manifest_in(tmp_path / "out")
    assert found_below(tmp_path / "out/files") == {
        "many": None,
        "many/08": None,
        "many/08/deep": None,
        "many/08/deep/er": None,
        "many/08/deep/er/one.txt": b"the one",
    }
    assert (tmp_path / "out/files/many/08").stat().st_mtime_ns == (place / "many/08").stat().st_mtime_ns
    assert [entry["path"] for entry in value["files"]["entries"]] == [
        "08",
        "08/deep",
        "08/deep/er",
        "08/deep/er/one.txt",
    ]
    assert (
        (report.files, report.bytes_written)
        == (value["files"]["count"], value["files"]["total_size"])
        == (1, 7)
    )
    assert (value["database"], value["databases"], value["settings"]) == (None, [], {})
    assert value["sealed_settings"] == []


def test_one_file_is_restored_without_reading_the_other_shards(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository.manifest(repository.snapshot_ids()[0]).files[1]
    reader = repository.reader()
    shards = {row.ref.id for row in iterate_shards(reader, root)}
    read: list[bytes] = []
    known = ChunkReader.read

    def counting(self: ChunkReader, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        read.append(ref.id)
        return known(self, kind, ref)

    monkeypatch.setattr(ChunkReader, "read", counting)

    restore(repository, tmp_path / "out", "many/11/039")

    assert len(shards) > 3
    assert len(shards.intersection(read)) == 1


def test_a_disk_that_fails_once_while_files_are_sent_to_it_fails_the_restore(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells of a failed write once: whoever asks next hears that all is well."""
    calls = []

    def fail_once(_handle: int) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(tree_module, "sync_file_system", fail_once)
    monkeypatch.setattr(stage_tree, "_SENT_BYTES", 1)

    with pytest.raises(SourceError, match="Input/output error"):
        restore(repository, tmp_path / "out")
    assert calls


def refuse(_handle: int) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_open_when_a_restore_ended(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A worker restores again and again for months; a folder and a thread more each time would end it."""
    if fails:
        monkeypatch.setattr(tree_module, "sync_file_system", refuse)
    monkeypatch.setattr(tree_module, "LARGE_FILE_BYTES", 1000)
    gc.disable()
    try:
        with suppress(SourceError):
            restore(repository, tmp_path / "out")
        opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    finally:
        gc.enable()

    assert (tmp_path / "out/files").is_dir()
    assert [path for path in opened if path.startswith(f"{tmp_path}/")] == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("large-file")] == []


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        ("files/many/07", "many/07/"),
        ("many/0?/01*", "many/0./01"),
        ("**/one.txt", ".*/one.txt"),
        ("uploads", "uploads/"),
        ("files", ""),
    ],
)
def test_a_pattern_restores_what_a_full_restore_has_of_it(
    repository: Repository, whole: dict[str, bytes | None], tmp_path: Path, only: str, wanted: str
) -> None:
    report = restore(repository, tmp_path / "part", only)

    found = found_below(tmp_path / "part/files")
    assert found.items() <= whole.items()
    plan = plan_extract(repository, repository.snapshot_ids()[0], tmp_path / "other", only=(only,))
    assert (plan.files, plan.size) == (report.files, report.bytes_written)
    assert {path for path, data in found.items() if data is not None} == {
        path for path, data in whole.items() if data is not None and re.match(wanted, path)
    }


def test_only_the_database_is_restored_when_only_it_is_named(repository: Repository, tmp_path: Path) -> None:
    report = restore(repository, tmp_path / "out", "databases/app")

    value = manifest_in(tmp_path / "out")
    assert (report.files, report.databases) == (0, 1)
    assert [database["name"] for database in value["databases"]] == ["app"]
    assert (value["files"]["count"], value["files"]["entries"]) == (0, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["databases", "manifest.json"]


def test_a_pattern_that_names_nothing_is_refused_before_anything_is_written(
    repository: Repository, tmp_path: Path
) -> None:
    with pytest.raises(RestoreRefused, match="11/040"):
        restore(repository, tmp_path / "out", "many/11/039", "many/11/040")

    assert not (tmp_path / "out").exists()


def test_a_lost_list_of_files_costs_that_tree_and_not_the_others(tmp_path: Path) -> None:
    storage = MemoryStorage()
    repository = open_test_repository(make_storage(storage), tmp_path / "state")
    trees = {"a": {"x": prose(40_000, seed=1)}, "b": {"y": prose(40_000, seed=2)}}
    sources = SourceSet(
        files=tuple(FileSource(name, write_tree(tmp_path / name, files)) for name, files in trees.items())
    )
    run_backup(repository, SourceSet(files=sources.files[:1]), tmp_path / "state")
    known = {info.name for info in storage.list_objects(PREFIX)}
    snapshot = run_backup(repository, sources, tmp_path / "state").snapshot
    root = repository.manifest(snapshot.id).files[1]
    shard = next(iter(iterate_shards(repository.reader(), root))).ref
    location = repository.index().find(shard.id)
    assert location is not None
    lost = pack_name(location.pack.name)
    assert lost not in known
    storage.delete(lost)

    report = extract(repository, snapshot.id, tmp_path / "out", reporter=QuietReporter())

    assert found_below(tmp_path / "out/files/a") == trees["a"]
    assert len(report.problems) == 1
    assert "files/b/" in report.problems[0]


def test_a_lost_piece_of_a_list_costs_its_own_files_and_says_from_where(tmp_path: Path) -> None:
    storage = MemoryStorage()
    repository = open_test_repository(make_storage(storage), tmp_path / "state")
    files = {f"{number:03d}.txt": b"%d" % number for number in range(200)}
    source = FileSource("many", write_tree(tmp_path / "many", files))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "_SHARD_MAX", 50)
        snapshot = run_backup(repository, SourceSet(files=(source,)), tmp_path / "state").snapshot
    root = repository.manifest(snapshot.id).files[0]
    rows = list(iterate_shards(repository.reader(), root))
    lost = rows[1]
    original = ChunkReader.read

    def failing(reader: ChunkReader, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        if ref.id == lost.ref.id:
            raise Damaged("The chunk is not there.")
        return original(reader, kind, ref)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkReader, "read", failing)
        report = extract(repository, snapshot.id, tmp_path / "out", reporter=QuietReporter())

    found = found_below(tmp_path / "out/files/many")
    assert len(rows) > 2
    assert len(found) == sum(row.count for row in rows) - lost.count
    assert set(found.items()) < set(files.items())
    (problem,) = report.problems
    assert problem.startswith(f"files/many: {lost.count} entries from {os.fsdecode(lost.first)} on are lost:")
