"""Finding a file in all snapshots, listing one folder: right, and reading no more than they must."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import EntryMissing, UsageError
from backup_admin.operations.find import PathHistory, find_versions
from backup_admin.operations.listing import Listed, list_snapshot
from backup_admin.operations.results import SourceSet
from backup_admin.repository.reader import ChunkReader
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import SqliteSource
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import ChunkKind, ChunkRef

MANY = {f"{number % 40:02d}/{number:05d}": b"%d" % (number % 7) for number in range(9_000)}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return open_test_repository(make_storage(), tmp_path / "state")


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the ids of all chunks that are read from now on."""
    read: list[str] = []
    whole = ChunkReader.read

    def counted(reader: ChunkReader, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        read.append(ref.id.hex())
        return whole(reader, kind, ref)

    monkeypatch.setattr(ChunkReader, "read", counted)
    return read


def back_up(repository: Repository, tmp_path: Path) -> str:
    result = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")
    return result.snapshot.id


def find(repository: Repository, pattern: str) -> list[PathHistory]:
    return find_versions(repository, pattern, repository.snapshot_ids()).paths


def paths(listed: Iterator[Listed]) -> list[bytes]:
    return [one.path for one in listed]


def test_versions_follow_the_content_and_say_when_it_was_gone(repository: Repository, tmp_path: Path) -> None:
    logo = tmp_path / "files/site/logo.png"
    ids = []
    for content in (None, b"one", b"one", b"two", None, b"two"):
        shutil.rmtree(tmp_path / "files", ignore_errors=True)
        write_tree(tmp_path / "files", {"other.txt": b"x"} | ({"site/logo.png": content} if content else {}))
        ids.append(back_up(repository, tmp_path))

    for pattern in (
        "logo.png",
        "l*.png",
        "site/logo.png",
        "uploads/site/logo.png",
        "files/uploads/**/logo.???",
    ):
        (history,) = find(repository, pattern)

        assert (history.source, history.path) == ("files/uploads", b"site/logo.png")
        assert [(one.digest, one.snapshots) for one in history.versions] == [
            (hashlib.sha256(b"one").hexdigest(), ids[1:3]),
            (hashlib.sha256(b"two").hexdigest(), ids[3:4]),
            (hashlib.sha256(b"two").hexdigest(), ids[5:6]),
        ]
        assert history.gone_since is None
    logo.unlink()
    ids.append(back_up(repository, tmp_path))
    assert find(repository, "logo.png")[0].gone_since == ids[6]
    assert find(repository, "nothing.png") == []
    assert find(repository, "site/other.txt") == []


def test_a_folder_is_found_itself_and_not_what_is_in_it(repository: Repository, tmp_path: Path) -> None:
    write_tree(tmp_path / "files", {"a/b/c.txt": b"", "b": b"1"})
    back_up(repository, tmp_path)

    assert [one.path for one in find(repository, "b")] == [b"a/b", b"b"]
    assert [one.path for one in find(repository, "a/b")] == [b"a/b"]
    with pytest.raises(UsageError):
        find(repository, "/")


def test_databases_are_found_by_name(repository: Repository, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    sources = SourceSet(databases=(SqliteSource("app", tmp_path / "app.db"),))
    run_backup(repository, sources, tmp_path / "state")

    for pattern in ("app", "databases/app", "databases/*"):
        (history,) = find(repository, pattern)
        assert (history.source, history.path, history.versions[0].kind) == ("databases", b"app", "database")


def test_a_damaged_snapshot_is_named_and_the_others_are_searched(
    repository: Repository, tmp_path: Path
) -> None:
    write_tree(tmp_path / "files", {"a": b"1"})
    first, second = back_up(repository, tmp_path), back_up(repository, tmp_path)
    name = f"manifests/{first}"
    repository.storage.put(name, repository.storage.get(name)[:-1], if_absent=False)

    found = find_versions(repository, "a", repository.snapshot_ids())

    assert [snapshot for snapshot, _ in found.damaged] == [first]
    assert [one.snapshots for one in found.paths[0].versions] == [[second]]


def test_shards_that_snapshots_share_are_read_once(
    repository: Repository, tmp_path: Path, chunks_read: list[str]
) -> None:
    write_tree(tmp_path / "files", MANY)
    back_up(repository, tmp_path)
    (tmp_path / "files/20/00020").write_bytes(b"changed")
    back_up(repository, tmp_path)
    chunks_read.clear()
    find_versions(repository, "00020", repository.snapshot_ids()[:1])
    alone = len(chunks_read)
    chunks_read.clear()

    (history,) = find(repository, "00020")

    assert [len(one.snapshots) for one in history.versions] == [1, 1]
    assert len(chunks_read) <= alone + 2  # the other list, and the shard that differs
    chunks_read.clear()
    assert find(repository, "20/00020") == [history]
    assert len(set(chunks_read)) <= 4 < alone


def test_a_folder_is_listed_with_what_lies_directly_in_it(repository: Repository, tmp_path: Path) -> None:
    write_tree(tmp_path / "files", {"a/b/c.txt": b"12", "a/d": b"", "a.txt": b"1"})
    (tmp_path / "files/a/link").symlink_to("d")
    (tmp_path / "files/empty").mkdir()
    snapshot = back_up(repository, tmp_path)
    (snapshot_id,) = repository.snapshot_ids()
    assert snapshot_id == snapshot

    def ls(path: str = "", *, recursive: bool = False) -> list[bytes]:
        return paths(list_snapshot(repository, snapshot_id, path, recursive=recursive))

    assert ls() == [b"files/uploads", b"settings"]
    for name in ("a", "uploads/a", "files/uploads/a", "/a/", "./a"):
        assert ls(name) == [b"files/uploads/a/b", b"files/uploads/a/d", b"files/uploads/a/link"]
    assert ls("uploads") == [b"files/uploads/a", b"files/uploads/a.txt", b"files/uploads/empty"]
    assert ls("a", recursive=True)[:2] == [b"files/uploads/a/b", b"files/uploads/a/b/c.txt"]
    assert ls("empty") == []
    assert ls("a.txt") == [b"files/uploads/a.txt"]
    assert ls("settings") == [b"settings"]
    assert len(ls(recursive=True)) == 2 + 7
    for missing in ("b", "a/b/c.txt/d", "databases", "../a"):
        if missing == "databases":
            assert ls(missing) == []
            continue
        with pytest.raises(EntryMissing):
            ls(missing)


def test_with_two_trees_the_path_says_which(repository: Repository, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tree(tmp_path / name, {f"{name}.txt": b""})
    sources = SourceSet(files=(FileSource("one", tmp_path / "one"), FileSource("two", tmp_path / "two")))
    snapshot = run_backup(repository, sources, tmp_path / "state").snapshot.id

    assert paths(list_snapshot(repository, snapshot, "two")) == [b"files/two/two.txt"]
    with pytest.raises(EntryMissing):
        list(list_snapshot(repository, snapshot, "two.txt"))


def test_listing_one_folder_reads_two_shards_at_most(
    repository: Repository, tmp_path: Path, chunks_read: list[str]
) -> None:
    write_tree(tmp_path / "files", MANY)
    back_up(repository, tmp_path)
    (snapshot,) = repository.snapshot_ids()
    chunks_read.clear()

    assert len(paths(list_snapshot(repository, snapshot, "17"))) == 225

    assert len(set(chunks_read)) <= 4  # the list, and the shards around the folder


def test_names_that_are_no_text_are_found_and_listed(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    names = [b"\xff\xff", b"\xff\xff\xffz", b"new\nline", b"a\x01b"]
    for name in names:
        (folder / name.decode("utf-8", "surrogateescape")).write_bytes(b"1")
    snapshot = back_up(repository, tmp_path)
    (snapshot_id,) = repository.snapshot_ids()
    assert snapshot == snapshot_id

    listed = paths(list_snapshot(repository, snapshot_id, "uploads"))

    assert sorted(listed) == sorted(b"files/uploads/" + name for name in names)
    assert [one.path for one in find(repository, b"\xff\xff".decode("utf-8", "surrogateescape"))] == [
        names[0]
    ]
