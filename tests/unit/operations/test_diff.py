"""What changed between two snapshots: files in the order of a walk, tables by content."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backup_admin.operations.diff import FileChange, TableChange, diff_files, diff_tables
from backup_admin.operations.results import SourceSet
from backup_admin.repository.reader import ChunkReader
from backup_admin.sources.sqlite import SqliteSource
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from backup_admin.repository.types import ChunkKind, ChunkRef


def test_added_changed_and_removed_entries_are_told_in_order(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "files")
    repository = open_test_repository(make_storage(), tmp_path / "state")
    before = run_backup(repository, file_sources(tree), tmp_path / "state").snapshot.id
    (tree / "empty").write_bytes(b"no longer")
    (tree / "small/03.txt").unlink()
    (tree / "small/04.txt").chmod(0o600)
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")
    write_tree(tree, {"new/file": b"12345"})
    after = run_backup(repository, file_sources(tree), tmp_path / "state").snapshot.id

    changes = list(diff_files(repository, before, after))

    size = len((tree / "small/04.txt").read_bytes())
    assert changes == [
        FileChange("uploads", b"empty", "changed", 0, 9),
        FileChange("uploads", b"link", "changed", 13, 9),
        FileChange("uploads", b"new", "added", 0, 0),
        FileChange("uploads", b"new/file", "added", 0, 5),
        FileChange("uploads", b"small/03.txt", "removed", 303, 0),
        FileChange("uploads", b"small/04.txt", "changed", size, size),
    ]
    assert list(diff_files(repository, after, after)) == []


def test_what_both_share_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{number % 40:02d}/{number:04d}": b"%d" % number for number in range(12_000)}
    tree = write_tree(tmp_path / "files", files)
    repository = open_test_repository(make_storage(), tmp_path / "state")
    before = run_backup(repository, file_sources(tree), tmp_path / "state").snapshot.id
    (tree / "20/0020").write_bytes(b"changed")
    (tree / "21/new").write_bytes(b"")
    after = run_backup(repository, file_sources(tree), tmp_path / "state").snapshot.id
    read: list[ChunkKind] = []
    whole = ChunkReader.read

    def counted(reader: ChunkReader, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        read.append(kind)
        return whole(reader, kind, ref)

    monkeypatch.setattr(ChunkReader, "read", counted)

    changes = [(change.path, change.change) for change in diff_files(repository, before, after)]

    assert changes == [(b"20/0020", "changed"), (b"21/new", "added")]
    assert len(read) <= 2 + 2 * 2  # both lists, and both versions of the two shards that differ


@given(
    old=st.dictionaries(st.sampled_from("abcdefgh"), st.binary(max_size=3)),
    new=st.dictionaries(st.sampled_from("abcdefgh"), st.binary(max_size=3)),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_two_trees_differ_as_two_dictionaries_do(
    tmp_path_factory: pytest.TempPathFactory, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("diff")
    repository = open_test_repository(make_storage(), root / "state")
    ids = []
    for number, files in enumerate((old, new)):
        (root / str(number)).mkdir()
        sources = file_sources(write_tree(root / str(number), files))
        ids.append(run_backup(repository, sources, root / "state").snapshot.id)

    changes = {change.path.decode(): change.change for change in diff_files(repository, *ids)}

    expected = dict.fromkeys(new.keys() - old.keys(), "added")
    expected |= dict.fromkeys(old.keys() - new.keys(), "removed")
    expected |= {name: "changed" for name in old.keys() & new.keys() if old[name] != new[name]}
    assert changes == expected


def test_tables_differ_by_content_and_by_being_there(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    repository = open_test_repository(make_storage(), tmp_path / "state")
    sources = SourceSet(databases=(SqliteSource("app", path),))
    manifests = []
    for script in (
        "CREATE TABLE same (a); CREATE TABLE edited (a); CREATE TABLE gone (a);"
        "INSERT INTO edited VALUES (1); INSERT INTO gone VALUES (1);",
        "UPDATE edited SET a = 2; DROP TABLE gone; CREATE TABLE fresh (a);",
    ):
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        result = run_backup(repository, sources, tmp_path / "state")
        manifests.append(repository.manifest(result.snapshot.id))

    changes = diff_tables(manifests[0], manifests[1])

    assert changes == (
        TableChange("app", "edited", 1, 1),
        TableChange("app", "fresh", -1, 0),
        TableChange("app", "gone", 1, -1),
    )
