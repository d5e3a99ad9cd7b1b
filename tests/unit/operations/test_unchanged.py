"""What did not change is neither read nor written again, and nothing that did is taken for it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backup_admin.operations import backup, described, known
from backup_admin.operations.captured import iterate_bytes
from backup_admin.operations.results import SourceSet
from backup_admin.repository import entries
from backup_admin.repository.entries import iterate_shards
from backup_admin.repository.types import ChunkRef
from backup_admin.sources.base import FileStamp
from backup_admin.sources.files import FileSource, KeptFolder
from backup_admin.sources.pins import Pins
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.storage.memory import MemoryStorage
from tests.factories import file_sources, make_storage, open_test_repository, run_backup, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.operations.results import BackupResult
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FileEntry
    from backup_admin.sources.base import DatabaseCopy, FoundEntry
    from backup_admin.sources.sqlite import UncheckedCopy

_SETTLED = -(10**12)


@pytest.fixture
def storage() -> MemoryStorage:
    made = make_storage()
    assert isinstance(made, MemoryStorage)
    return made


@pytest.fixture
def repository(storage: MemoryStorage, tmp_path: Path) -> Repository:
    return open_test_repository(storage, tmp_path / "state")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust times at once, so that no test waits for them to settle."""
    monkeypatch.setattr(known, "SETTLE_NS", _SETTLED)
    monkeypatch.setattr(described, "SETTLE_NS", _SETTLED)


def rows(repository: Repository, snapshot: str) -> list[FileEntry]:
    (root,) = repository.manifest(snapshot).files
    found = list(repository.entries(root))
    assert len(found) == root.entry_count
    assert sum(entry.kind == "file" for entry in found) == root.file_count
    assert sum(entry.size for entry in found if entry.kind == "file") == root.size
    return found


def content(repository: Repository, snapshot: str, path: bytes) -> bytes:
    (entry,) = [entry for entry in rows(repository, snapshot) if entry.path == path]
    assert entry.content is not None
    return b"".join(bytes(piece) for piece in iterate_bytes(repository.reader(), entry.content))


class Opened:
    """Names what backups read while it is watched."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.paths: list[bytes] = []
        self.databases: list[object] = []
        open_file, copy, capture = FileSource.open, FileSource.capture_database, SqliteSource.copy

        def note_open(source: FileSource, entry: FoundEntry, kept: KeptFolder) -> object:
            self.paths.append(entry.path)
            return open_file(source, entry, kept)

        def note_copy(source: FileSource, entry: FoundEntry, scratch: Path) -> DatabaseCopy:
            self.databases.append(entry.path)
            return copy(source, entry, scratch)

        def note_capture(source: SqliteSource, scratch: Path) -> UncheckedCopy:
            self.databases.append(source.name)
            return capture(source, scratch)

        patch.setattr(FileSource, "open", note_open)
        patch.setattr(FileSource, "capture_database", note_copy)
        patch.setattr(SqliteSource, "copy", note_capture)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


# --- rows ------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "c.txt", 'say "hi"', "back\\slash", "ünï", "line\nbreak", "z\udcff"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_DATA = st.binary(max_size=600)
_CHANGES = st.sampled_from(
    ["write", "flip", "replace", "delete", "chmod", "touch", "link", "symlink", "rename"]
)
_STEPS = st.lists(st.tuples(_CHANGES, _PATHS, _DATA, st.integers(0, 99)), max_size=12)


def put(root: Path, path: str, data: bytes) -> None:
    target = root / path
    if target.is_dir() and not target.is_symlink():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
    except (FileExistsError, NotADirectoryError):
        return


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def change(root: Path, what: str, path: str, data: bytes, number: int) -> None:
    found = files_of(root)
    if what == "write" or not found:
        put(root, path, data)
    elif what in ("flip", "replace"):
        rewrite(found[number % len(found)], in_place=what == "flip")
    else:
        change_names(root, found[number % len(found)], what, number)


def rewrite(target: Path, *, in_place: bool) -> None:
    """Change the bytes of a file; its size and time stay."""
    before = target.stat()
    data = bytes(byte ^ 1 for byte in target.read_bytes())
    written = target if in_place else target.with_name("other")
    written.write_bytes(data)
    os.utime(written, ns=(before.st_atime_ns, before.st_mtime_ns))
    if not in_place:
        written.replace(target)


def change_names(root: Path, target: Path, what: str, number: int) -> None:
    if what == "delete":
        target.unlink()
    elif what == "chmod":
        target.chmod(0o600 + number % 8)
    elif what == "touch":
        os.utime(target, ns=(1, number))
    elif what == "link" and not os.path.lexists(root / "twin"):
        (root / "twin").hardlink_to(target)
    elif what == "symlink":
        (root / "pointer").unlink(missing_ok=True)
        (root / "pointer").symlink_to(f"to {number}")
    elif what == "rename":
        target.rename(target.with_name(f"renamed {number}"))


_Nights = list[list[tuple[str, str, bytes, int]]]
_TREES = st.dictionaries(_PATHS, _DATA, max_size=15)
_CHECKS = (HealthCheck.too_slow,)


@settings(max_examples=15, deadline=None, suppress_health_check=_CHECKS)
@given(_TREES, st.lists(_STEPS, min_size=1, max_size=3), st.integers(1, 9))
def test_a_run_with_a_parent_says_what_one_without_says(
    files: dict[str, bytes], nights: _Nights, average: int
) -> None:
    compare_with_full_runs(files, nights, average)


@pytest.mark.long
@settings(max_examples=500, deadline=None, suppress_health_check=_CHECKS)
@given(_TREES, st.lists(_STEPS, min_size=1, max_size=5), st.integers(1, 9))
def test_many_runs_with_a_parent_say_what_those_without_say(
    files: dict[str, bytes], nights: _Nights, average: int
) -> None:
    compare_with_full_runs(files, nights, average)


def compare_with_full_runs(files: dict[str, bytes], nights: _Nights, average: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(known, "SETTLE_NS", _SETTLED)
        patch.setattr(entries, "_CUT", (65_535 // average).to_bytes(2, "big"))
        patch.setattr(entries, "_SHARD_MAX", 5)
        root, state = Path(scratch) / "files", Path(scratch) / "state"
        root.mkdir()
        repository = open_test_repository(make_storage(), state)
        for path, data in files.items():
            put(root, path, data)
        for night in [[], *nights]:
            for step in night:
                change(root, *step)
            with_parent = run_backup(repository, file_sources(root), state).snapshot.id
            with patch.context() as alone:
                alone.setattr(backup._Run, "_find_parent", lambda _self: None)
                full = run_backup(repository, file_sources(root), state).snapshot.id

            assert rows(repository, with_parent) == rows(repository, full)
            repository.record("forget", {"ids": [full]}, actor="tests")


@pytest.mark.usefixtures("settled")
def test_the_shards_of_an_unchanged_tree_are_those_of_the_snapshot_before(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    monkeypatch.setattr(entries, "_CUT", b"\x10\x00")
    tree = write_tree(tmp_path / "files", {f"{n % 7}/{n}": b"%d" % n for n in range(300)})
    first = run_backup(repository, file_sources(tree), tmp_path / "state")
    opened.paths.clear()
    stored: list[object] = []
    monkeypatch.setattr(entries, "encode_entry", stored.append)

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    roots = [repository.manifest(run.snapshot.id).files[0] for run in (first, second)]
    assert roots[0].shard_lists == roots[1].shard_lists
    assert (opened.paths, stored) == ([], [])
    assert second.new_bytes < 20_000
    assert len(list(iterate_shards(repository.reader(), roots[1]))) > 5


@pytest.mark.usefixtures("settled")
def test_a_file_of_any_name_is_not_read_again(repository: Repository, tmp_path: Path, opened: Opened) -> None:
    names = ['"', "\\", 'a","f",1', "tab\t", "\x7f", "\udcfe", "ä😀", "[", "plain"]
    tree = write_tree(tmp_path / "files", {name: name.encode("utf-8", "surrogateescape") for name in names})
    first = run_backup(repository, file_sources(tree), tmp_path / "state")
    opened.paths.clear()

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert opened.paths == []
    assert rows(repository, second.snapshot.id) == rows(repository, first.snapshot.id)


@pytest.mark.usefixtures("settled")
def test_new_files_between_unchanged_ones_are_the_only_ones_read(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    tree = write_tree(tmp_path / "files", {name: name.encode() for name in ("b", "d", "f", "h")})
    run_backup(repository, file_sources(tree), tmp_path / "state")
    opened.paths.clear()
    write_tree(tree, {"a": b"1", "c": b"2", "g": b"3"})
    (tree / "f").unlink()

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert opened.paths == [b"a", b"c", b"g"]
    assert b"".join(entry.path for entry in rows(repository, second.snapshot.id)) == b"abcdgh"


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("size", [1, 512, 700_000])
def test_a_file_replaced_by_one_of_the_same_size_and_time_is_seen(
    repository: Repository, tmp_path: Path, size: int
) -> None:
    tree = write_tree(tmp_path / "files", {"a": b"1" * size, "b": b"x"})
    run_backup(repository, file_sources(tree), tmp_path / "state")
    before = (tree / "a").stat()
    (tree / "new").write_bytes(b"2" * size)
    os.utime(tree / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tree / "new").replace(tree / "a")

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert content(repository, second.snapshot.id, b"a") == b"2" * size


@pytest.mark.usefixtures("settled")
def test_a_renamed_file_stands_under_its_new_name_only(repository: Repository, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "files", {"a/1": b"one", "a/2": b"two", "b/3": b"three"})
    run_backup(repository, file_sources(tree), tmp_path / "state")
    (tree / "a/1").rename(tree / "b/4")

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert [entry.path for entry in rows(repository, second.snapshot.id)] == [
        b"a",
        b"a/2",
        b"b",
        b"b/3",
        b"b/4",
    ]
    assert content(repository, second.snapshot.id, b"b/4") == b"one"


@pytest.mark.usefixtures("settled")
def test_what_is_left_out_from_now_on_is_not_kept_because_it_did_not_change(
    repository: Repository, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "files", {"a": b"a", "b.tmp": b"b", "pinned": b"p", "z": b"z"})
    run_backup(repository, file_sources(tree), tmp_path / "state")

    sources = SourceSet(files=(FileSource("uploads", tree, ("*.tmp",), (tree / "pinned",)),))
    second = run_backup(repository, sources, tmp_path / "state")

    assert [entry.path for entry in rows(repository, second.snapshot.id)] == [b"a", b"z"]


@pytest.mark.usefixtures("settled")
def test_a_list_that_cannot_be_read_makes_the_run_read_what_it_covers(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "files", {f"{n:03}": b"%d" % n for n in range(50)})
    run_backup(repository, file_sources(tree), tmp_path / "state")
    (tree / "020").write_bytes(b"changed")
    lines = entries.iterate_lines

    def damage(*arguments: object) -> Iterator[object]:
        for row, found in lines(*arguments):  # type: ignore[arg-type]  # passed through
            yield row, [line if b'"021"' not in line else b"rubbish" for line in found]

    monkeypatch.setattr(backup, "iterate_lines", damage)

    second = run_backup(repository, file_sources(tree), tmp_path / "state")

    assert [entry.path for entry in rows(repository, second.snapshot.id)] == [
        b"%03d" % number for number in range(50)
    ]
    assert "could not be read" in second.notices[0]


def test_a_file_that_has_a_second_name_is_looked_at(tmp_path: Path) -> None:
    put(tmp_path, "file", b"x")
    found = (tmp_path / "file").stat()
    numbers = f"{found.st_size},{found.st_mode & 0o7777},{found.st_mtime_ns},{found.st_ctime_ns}"
    line = f'["file","f",{numbers},{found.st_ino},"{"0" * 64}",[["{"0" * 64}",1]]]'.encode()
    answers = []
    for names in (1, 2):
        row = entries.ShardRow(ChunkRef(bytes(32), len(line)), 1, b"file")
        parent = known.Parent(iter([(row, [line])]), time.time_ns() + 10**12)
        status = SimpleNamespace(**{key: getattr(found, key) for key in dir(found) if key[:3] == "st_"})
        status.st_nlink = names
        rows_before = known.KnownRows(parent, lambda _run: None)
        answers.append(rows_before.holds(b"file", cast("os.stat_result", status)))

    assert answers == [True, False]


# --- databases nobody declared ---------------------------------------------


def make_database(path: Path, *, mode: str = "delete", count: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t (word TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"word {n}",) for n in range(count)])
    return path


def words(data: bytes) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.db"
        path.write_bytes(data)
        with closing(sqlite3.connect(path)) as connection:
            return {word for (word,) in connection.execute("SELECT word FROM t")}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_quiet_database_is_kept_byte_for_byte_and_not_copied_again(
    repository: Repository, tmp_path: Path, opened: Opened, mode: str
) -> None:
    live = make_database(tmp_path / "files/data/app.db", mode=mode)
    first = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    second = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert opened.databases == [b"data/app.db"]
    assert content(repository, second.snapshot.id, b"data/app.db") == live.read_bytes()
    # The folder's own time changes when SQLite makes a journal to read one in WAL mode.
    assert rows(repository, first.snapshot.id)[1:] == rows(repository, second.snapshot.id)[1:]
    assert [notice for notice in second.notices if "nobody declared; it did not change" in notice]


@pytest.mark.parametrize("stayed", [True, False])
def test_a_database_read_where_it_lies_counts_only_when_nobody_wrote_to_it(
    repository: Repository, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, stayed: bool
) -> None:
    live = make_database(tmp_path / "files/app.db")
    found = live.stat()

    class Pretended:
        page_size = 512

        def __init__(self) -> None:
            self.rest = live.read_bytes() if stayed else os.urandom(found.st_size)

        def readinto(self, buffer: memoryview) -> int:
            part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)

        def stamp(self) -> FileStamp | None:
            times = found.st_mtime_ns, found.st_ctime_ns
            return FileStamp(found.st_size, *times, found.st_ino) if stayed else None

    monkeypatch.setattr(FileSource, "read_database", lambda _source, _entry: nullcontext(Pretended()))

    result = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert opened.databases == ([] if stayed else [b"app.db"])
    assert content(repository, result.snapshot.id, b"app.db") == live.read_bytes()
    way = "read while nobody wrote to it" if stayed else "copied safely through SQLite"
    assert [notice for notice in result.notices if way in notice]
    assert result.warnings == ()


def test_a_database_written_just_before_the_last_backup_is_copied_again(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    make_database(tmp_path / "files/app.db")
    run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert opened.databases == [b"app.db"] * 2


@pytest.mark.usefixtures("settled")
def test_a_database_that_changed_in_its_wal_only_is_copied_again(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "files/app.db", mode="wal")
    run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")
    before = live.stat()
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("UPDATE t SET word = 'new'")
        connection.commit()
        assert live.stat().st_mtime_ns == before.st_mtime_ns

        second = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert opened.databases == [b"app.db"] * 2
    assert words(content(repository, second.snapshot.id, b"app.db")) == {"new"}
    assert [entry.path for entry in rows(repository, second.snapshot.id)] == [b"app.db"]


@pytest.mark.usefixtures("settled")
def test_an_open_database_with_an_empty_wal_is_not_copied_again(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "files/app.db", mode="wal")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("SELECT * FROM t").fetchall()
        assert live.with_name("app.db-wal").stat().st_size == 0
        for _ in range(2):
            result = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert opened.databases == [b"app.db"]
    assert [entry.path for entry in rows(repository, result.snapshot.id)] == [b"app.db"]
    assert content(repository, result.snapshot.id, b"app.db") == live.read_bytes()


_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE t SET word = 'lost'")
connection.commit()
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("settled")
def test_what_was_read_through_a_wal_that_is_lost_is_never_taken_for_the_file(
    repository: Repository, tmp_path: Path
) -> None:
    live = make_database(tmp_path / "files/app.db", mode="wal")
    before = live.stat()
    command = [sys.executable, "-c", _HOLDER, str(live)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        first = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")
        holder.kill()
    for end in ("-wal", "-shm"):
        live.with_name(f"app.db{end}").unlink()
    assert live.stat().st_ctime_ns == before.st_ctime_ns

    second = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert words(content(repository, first.snapshot.id, b"app.db")) == {"lost"}
    assert content(repository, second.snapshot.id, b"app.db") == live.read_bytes()


@pytest.mark.usefixtures("settled")
def test_a_row_of_content_from_file_and_wal_has_a_time_no_file_has(
    repository: Repository, tmp_path: Path
) -> None:
    live = make_database(tmp_path / "files/app.db", mode="wal")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("UPDATE t SET word = 'new'")
        connection.commit()
        result = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    (entry,) = rows(repository, result.snapshot.id)
    assert entry.ctime_ns == 0


@pytest.mark.usefixtures("settled")
def test_a_journal_that_appears_beside_a_file_makes_it_looked_at_again(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "files/app.db", mode="wal")
    with live.open("ab") as file:
        file.write(b"x" * 100)  # no size that a database has
    run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")
    assert (opened.paths, opened.databases) == ([b"app.db"], [])
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("UPDATE t SET word = 'new'")
        connection.commit()

        second = run_backup(repository, file_sources(tmp_path / "files"), tmp_path / "state")

    assert words(content(repository, second.snapshot.id, b"app.db")) == {"new"}


@pytest.mark.usefixtures("settled")
def test_a_file_pinned_by_its_inode_alone_is_left_out_though_it_did_not_change(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "files", {"a": b"a", "pinned": b"p"})
    run_backup(repository, file_sources(tree), tmp_path / "state")
    monkeypatch.setattr(Pins, "_add", lambda *_arguments, **_more: None)  # mounted a second time

    sources = SourceSet(files=(FileSource("uploads", tree, (), (tree / "pinned",)),))
    second = run_backup(repository, sources, tmp_path / "state")

    assert [entry.path for entry in rows(repository, second.snapshot.id)] == [b"a"]


# --- declared databases ----------------------------------------------------


def back_up_database(repository: Repository, path: Path, state: Path) -> tuple[BackupResult, DatabaseEntry]:
    result = run_backup(repository, SourceSet(databases=(SqliteSource("app", path),)), state)
    (entry,) = repository.manifest(result.snapshot.id).databases
    return result, entry


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_declared_database_that_did_not_change_keeps_its_entry(
    repository: Repository, tmp_path: Path, opened: Opened, mode: str
) -> None:
    live = make_database(tmp_path / "app.db", mode=mode)
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("CREATE TABLE child (id REFERENCES t (rowid))")
        connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE orphan (id REFERENCES parent (id))")
        connection.execute("INSERT INTO orphan VALUES (7)")
        connection.commit()
    first, before = back_up_database(repository, live, tmp_path / "state")

    second, after = back_up_database(repository, live, tmp_path / "state")

    assert opened.databases == ["app"]
    assert after == before
    assert second.notices == first.notices != ()
    assert second.new_bytes < 20_000
    reader = repository.reader()
    assert b"".join(bytes(piece) for piece in iterate_bytes(reader, after.content)) == live.read_bytes()


def test_a_declared_database_written_just_now_is_captured_again(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "app.db")

    for _ in range(2):
        _, entry = back_up_database(repository, live, tmp_path / "state")

    assert opened.databases == ["app", "app"]
    assert "file" not in entry.details


@pytest.mark.usefixtures("settled")
def test_a_declared_database_that_changed_in_its_wal_only_is_captured_again(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "app.db", mode="wal")
    _, before = back_up_database(repository, live, tmp_path / "state")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("DELETE FROM t WHERE word = 'word 7'")
        connection.commit()

        _, after = back_up_database(repository, live, tmp_path / "state")

        assert opened.databases == ["app", "app"]
        assert (before.tables[0].rows, after.tables[0].rows) == (200, 199)
        assert "file" not in after.details
        back_up_database(repository, live, tmp_path / "state")
    assert opened.databases == ["app"] * 3


@pytest.mark.usefixtures("settled")
def test_another_database_in_the_place_of_the_declared_one_is_captured(
    repository: Repository, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "app.db")
    back_up_database(repository, live, tmp_path / "state")
    found = live.stat()
    other = make_database(tmp_path / "other.db")
    other.write_bytes(live.read_bytes().replace(b"word 1", b"WORD 1"))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(live)

    _, entry = back_up_database(repository, live, tmp_path / "state")

    assert opened.databases == ["app", "app"]
    reader = repository.reader()
    assert b"WORD 1" in b"".join(bytes(piece) for piece in iterate_bytes(reader, entry.content))


@pytest.mark.usefixtures("settled")
def test_after_lost_packs_databases_are_captured_whatever_their_times_say(
    repository: Repository, storage: MemoryStorage, tmp_path: Path, opened: Opened
) -> None:
    live = make_database(tmp_path / "app.db")
    back_up_database(repository, live, tmp_path / "state")
    for info in list(storage.list_objects("packs/")):
        storage.delete(info.name)

    _, entry = back_up_database(repository, live, tmp_path / "state")

    assert opened.databases == ["app", "app"]
    reader = repository.reader()
    assert b"".join(bytes(piece) for piece in iterate_bytes(reader, entry.content)) == live.read_bytes()
