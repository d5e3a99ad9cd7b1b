"""A copy of a database is whole, whatever others do to the database meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Busy, SourceError, SourceInvalid, SourceMissing
from backup_admin.sources.base import FileStamp, FoundEntry, LiveUnusable, Skipped, SkipReason
from backup_admin.sources.files import FileSource
from backup_admin.sources.sqlite import (
    DatabaseAtRest,
    SqliteSource,
    inspect_copy,
    read_at_rest,
    write_into_live,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = pytest.mark.parametrize("mode", ["wal", "delete"])
ROOT = Path(__file__).parents[3]


def make(path: Path, *statements: str, mode: str = "delete", page_size: int = 4096) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA journal_mode={mode}")
        for statement in statements:
            connection.execute(statement)
    return path


def fill(path: Path, word: str, rows: int = 500, mode: str = "delete", page_size: int = 4096) -> Path:
    return make(
        path,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, pad TEXT)",
        "CREATE INDEX i ON t(pad)",
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
        f"INSERT INTO t SELECT i, '{word}', hex(randomblob(60)) FROM n",
        mode=mode,
        page_size=page_size,
    )


def words(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {row[0] for row in connection.execute("SELECT word FROM t NOT INDEXED")}


@contextmanager
def script(text: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python text in another process until it prints a line, end it after."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


HOLD = """
    import sqlite3, sys, time
    c = sqlite3.connect(sys.argv[1], isolation_level=None)
    for statement in sys.argv[2:]:
        c.execute(statement).fetchall()
    print("ready", flush=True)
    time.sleep(100)
"""


# --- capture ---------------------------------------------------------------


@MODES
def test_a_copy_is_whole_private_and_described(tmp_path: Path, mode: str) -> None:
    live = fill(tmp_path / "app.db", "x", mode=mode)
    make(live, "PRAGMA user_version=7", "PRAGMA application_id=99", mode=mode)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    copy = SqliteSource("app", live).capture(scratch)

    assert [path.name for path in scratch.iterdir()] == [copy.path.name]
    assert copy.path.stat().st_mode & 0o777 == 0o600
    assert copy.size == copy.path.stat().st_size
    assert (copy.page_size, copy.encoding, copy.journal_mode) == (4096, "UTF-8", mode)
    assert (copy.user_version, copy.application_id) == (7, 99)
    assert copy.checks == ("quick_check", "foreign_key_check")
    assert copy.warnings == ()
    assert [(table.name, table.rows) for table in copy.tables] == [("t", 500)]
    assert words(copy.path) == {"x"}


@MODES
def test_a_database_at_rest_is_left_exactly_as_it_was(tmp_path: Path, mode: str) -> None:
    (tmp_path / "app").mkdir()
    live = fill(tmp_path / "app/app.db", "x", mode=mode)
    before = live.read_bytes(), live.stat().st_mtime_ns

    SqliteSource("app", live).check()
    SqliteSource("app", live).capture(tmp_path)

    assert [path.name for path in live.parent.iterdir()] == ["app.db"]
    assert (live.read_bytes(), live.stat().st_mtime_ns) == before


@MODES
def test_a_database_in_a_folder_nobody_may_write_is_copied(tmp_path: Path, mode: str) -> None:
    (tmp_path / "app").mkdir()
    live = fill(tmp_path / "app/app.db", "x", mode=mode)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "app"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")
    try:
        live = fill(tmp_path / "app/app.db", "x", mode=mode)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "app"], check=True)

        assert words(SqliteSource("app", live).capture(tmp_path).path) == {"x"}
    finally:
        subprocess.run(["umount", tmp_path / "app"], check=True)


@MODES
@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_page_sizes_are_kept(tmp_path: Path, mode: str, page_size: int) -> None:
    live = fill(tmp_path / "app.db", "x", mode=mode, page_size=page_size)

    assert SqliteSource("app", live).capture(tmp_path).page_size == page_size


WRITER = """
    import sqlite3, sys, random
    c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    print("ready", flush=True)
    while True:
        c.execute("BEGIN IMMEDIATE")
        a, b = random.sample(range(1, 101), 2)
        c.execute("UPDATE account SET money = money - 7 WHERE id = ?", (a,))
        c.execute("UPDATE account SET money = money + 7 WHERE id = ?", (b,))
        c.execute("INSERT INTO log(a, b) VALUES (?, ?)", (a, b))
        c.execute("COMMIT")
"""


@MODES
def test_a_never_resting_writer_neither_stops_nor_tears_a_copy(tmp_path: Path, mode: str) -> None:
    live = make(
        tmp_path / "bank.db",
        "CREATE TABLE account(id INTEGER PRIMARY KEY, money INT, pad TEXT)",
        "CREATE TABLE log(a, b)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
        "INSERT INTO account SELECT i, 1000, hex(randomblob(2000)) FROM n",
        mode=mode,
    )
    with script(WRITER, live) as writer:
        for _ in range(3):
            copy = SqliteSource("bank", live).capture(tmp_path, deadline_seconds=20)
            with closing(sqlite3.connect(copy.path)) as connection:
                assert connection.execute("SELECT sum(money) FROM account").fetchone() == (3_000_000,)
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert writer.poll() is None


def test_what_is_only_in_the_wal_is_in_the_copy(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "old", rows=5, mode="wal")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("UPDATE t SET word = 'new'")
        connection.commit()
        assert b"new" not in live.read_bytes()

        copy = SqliteSource("app", live).capture(tmp_path)

    assert words(copy.path) == {"new"}


def test_a_transaction_of_a_killed_writer_is_not_in_the_copy(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "old")
    update = "UPDATE t SET word = 'torn'"
    with script(HOLD, live, "PRAGMA cache_size=1", "BEGIN", update) as writer:
        writer.kill()
    assert (tmp_path / "app.db-journal").stat().st_size > 0

    copy = SqliteSource("app", live).capture(tmp_path)

    assert words(copy.path) == {"old"}


@MODES
def test_a_database_locked_for_ever_fails_at_the_deadline(tmp_path: Path, mode: str) -> None:
    live = fill(tmp_path / "app.db", "x", mode=mode)
    begin = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "INSERT INTO t(word) VALUES ('y')")
    with script(HOLD, live, *begin):
        started = time.monotonic()
        with pytest.raises(Busy, match=r"app\.db stayed locked"):
            SqliteSource("app", live).capture(tmp_path, deadline_seconds=0.5)

        assert time.monotonic() - started < 10
    assert list(tmp_path.glob("????????????????*.db")) == []


def test_what_is_no_database_is_refused_with_the_reason(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "x")
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("no database at all" * 100)
    (tmp_path / "cut.db").write_bytes(live.read_bytes()[:50])
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "link.db").symlink_to(live)
    os.mkfifo(tmp_path / "pipe.db")
    reasons = {
        "gone.db": "not there",
        "empty.db": "empty",
        "text.db": "not a SQLite database",
        "cut.db": "not a SQLite database",
        "folder.db": "not a file",
        "link.db": f"symlink to {live}",
        "pipe.db": "not a file",
    }
    for name, reason in reasons.items():
        source = SqliteSource("app", tmp_path / name)
        with pytest.raises(SourceMissing, match=reason):
            source.check()
        with pytest.raises(SourceMissing, match=f"Database app: .*{reason}"):
            source.capture(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"app.db", *reasons} - {"gone.db"}


def test_a_readable_database_passes_the_check(tmp_path: Path) -> None:
    SqliteSource("app", fill(tmp_path / "app.db", "x")).check()


def test_a_path_that_needs_care_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c=d#e%20"
    folder.mkdir()
    live = fill(folder / os.fsdecode(b"caf\xe9\xff?mode=memory.db"), "x")

    assert words(SqliteSource("app", live).capture(tmp_path).path) == {"x"}


def test_a_damaged_database_is_not_a_good_copy(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "x")
    with live.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)

    with pytest.raises(SourceInvalid):
        SqliteSource("app", live).capture(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]


def test_an_index_that_lost_a_row_is_found_by_the_thorough_check(tmp_path: Path) -> None:
    live = make(
        tmp_path / "app.db",
        "CREATE TABLE t(a)",
        "CREATE INDEX i ON t(a)",
        "INSERT INTO t VALUES (1), (2), (3)",
        "PRAGMA writable_schema=ON",
        "DELETE FROM sqlite_master WHERE name = 'i'",
    )
    make(
        live,
        "INSERT INTO t VALUES (4)",
        "PRAGMA writable_schema=ON",
        "INSERT INTO sqlite_master VALUES ('index', 'i', 't', 3, 'CREATE INDEX i ON t(a)')",
    )

    inspect_copy(live)
    with pytest.raises(SourceInvalid, match="integrity_check found faults"):
        inspect_copy(live, thorough=True)


def test_rows_without_their_parent_are_a_warning(tmp_path: Path) -> None:
    live = make(
        tmp_path / "app.db",
        "CREATE TABLE album(id INTEGER PRIMARY KEY)",
        "CREATE TABLE photo(album REFERENCES album(id))",
        "INSERT INTO photo VALUES (5), (6)",
    )

    copy = SqliteSource("app", live).capture(tmp_path)

    assert copy.checks == ("quick_check",)
    assert copy.warnings == ("2 rows of photo refer to missing rows of album.",)


def test_what_only_the_app_knows_is_a_warning_not_an_error(tmp_path: Path) -> None:
    live = tmp_path / "app.db"
    with closing(sqlite3.connect(live)) as connection:
        connection.create_collation("ours", lambda a, b: (a > b) - (a < b))
        connection.create_function("secret_sauce", 1, lambda value: value, deterministic=True)
        connection.execute("CREATE TABLE t(a TEXT COLLATE ours PRIMARY KEY) WITHOUT ROWID")
        connection.execute("CREATE TABLE u(a CHECK (secret_sauce(a) > 0))")
        connection.execute("INSERT INTO t VALUES ('x'), ('y')")
        connection.execute("INSERT INTO u VALUES (1)")
        connection.commit()

    copy = SqliteSource("app", live).capture(tmp_path)

    assert [(table.name, table.rows) for table in copy.tables] == [("t", 2), ("u", 1)]
    assert any("quick_check could not run" in warning for warning in copy.warnings)


def test_a_hostile_schema_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    copy = tmp_path / "hostile.db"
    with closing(sqlite3.connect(copy)) as connection:
        connection.create_function("load_extension", 1, lambda value: value, deterministic=True)
        connection.create_function("writefile", 2, lambda name, data: 1, deterministic=True)
        connection.execute(f"CREATE TABLE t(a, b AS (writefile('{marker}', 'x')))")
        connection.execute("CREATE TABLE u(a CHECK (load_extension('evil') IS NOT NULL))")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("INSERT INTO u VALUES (1)")
        connection.execute("CREATE VIEW v AS SELECT load_extension('evil')")
        connection.commit()

    result = inspect_copy(copy, thorough=True)

    assert [table.name for table in result.tables] == ["t", "u"]
    assert not marker.exists()


@MODES
def test_a_copy_described_meanwhile_is_described_alike(tmp_path: Path, mode: str) -> None:
    live = fill(tmp_path / "app.db", "x", mode=mode)
    make(live, "CREATE TABLE photo(album REFERENCES t(id))", "INSERT INTO photo VALUES (-1)", mode=mode)
    source = SqliteSource("app", live)
    at_once = source.capture(tmp_path)

    copy = source.copy(tmp_path)
    with source.describing(copy) as described:
        found = described()

    assert replace(found, path=at_once.path) == at_once
    assert found.path == copy.path
    assert found.warnings == ("1 row of photo refers to missing rows of t.",)


def test_damage_is_found_when_a_copy_is_described(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "x")
    with live.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    source = SqliteSource("app", live)

    copy = source.copy(tmp_path)

    with (
        source.describing(copy) as described,
        pytest.raises(SourceInvalid, match=r"Database app: quick_check (failed|found faults)") as caught,
    ):
        described()
    assert "\n" not in str(caught.value)


def test_a_description_whose_process_dies_is_an_error(tmp_path: Path) -> None:
    source = SqliteSource("app", fill(tmp_path / "app.db", "x", rows=100_000))
    copy = source.copy(tmp_path)
    before = set(children(os.getpid()))

    with source.describing(copy) as described:
        (reader,) = set(children(os.getpid())) - before
        os.kill(reader, signal.SIGKILL)
        with pytest.raises(SourceError, match="Database app: the SQLite process ended"):
            described()


def test_no_process_stays_when_a_description_is_given_up(tmp_path: Path) -> None:
    source = SqliteSource("app", fill(tmp_path / "app.db", "x", rows=100_000))
    copy = source.copy(tmp_path)
    before = set(children(os.getpid()))

    with source.describing(copy):
        assert set(children(os.getpid())) > before

    assert set(children(os.getpid())) <= before


# --- locks -----------------------------------------------------------------


INTRUDER = """
    import sqlite3, sys
    c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
    try:
        c.execute("INSERT INTO t(word) VALUES ('intruder')")
    except sqlite3.OperationalError as error:
        print(error)
    else:
        print("wrote")
"""


def intrude(live: Path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(INTRUDER), str(live)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@MODES
@pytest.mark.parametrize("declared", [True, False])
def test_locks_of_this_process_survive_a_whole_backup(tmp_path: Path, mode: str, declared: bool) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    live = fill(folder / "app.db", "x", mode=mode)
    (folder / "plain").write_bytes(b"x" * 512)
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t(word) VALUES ('mine')")
        assert intrude(live) == "database is locked"

        source = FileSource("instance", folder, pinned=(live,) if declared else ())
        items = list(source.walk())
        for item in items:
            if isinstance(item, FoundEntry) and item.is_database:
                source.capture_database(item, tmp_path)
            elif isinstance(item, FoundEntry):
                with source.open(item) as file:
                    file.readinto(bytearray(1000))
        SqliteSource("app", live).capture(tmp_path)

        assert intrude(live) == "database is locked"
        connection.execute("COMMIT")
    databases = [item.path for item in items if isinstance(item, FoundEntry) and item.is_database]
    assert databases == ([] if declared else [b"app.db"])
    reasons = {item.reason for item in items if isinstance(item, Skipped)}
    assert reasons == {SkipReason.DECLARED_DATABASE if declared else SkipReason.SIDECAR}
    assert words(live) == {"x", "mine"}


def test_the_control_peeking_into_a_live_file_does_drop_its_locks(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "x")
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with live.open("rb") as file:
            file.read(100)

        assert intrude(live) == "wrote"


# --- an undeclared database ------------------------------------------------


def test_an_undeclared_database_is_copied_with_its_wal(tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    live = fill(tmp_path / "tree/deep/other.db", "old", rows=5, mode="wal")
    source = FileSource("tree", tmp_path / "tree")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("UPDATE t SET word = 'new'")
        connection.commit()
        entry = next(i for i in source.walk() if isinstance(i, FoundEntry) and i.is_database)

        copy = source.capture_database(entry, tmp_path).path

    assert words(copy) == {"new"}


def test_a_damaged_undeclared_database_is_kept_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    content = b"SQLite format 3\0" + os.urandom(2032)
    (tmp_path / "tree/upload.bin").write_bytes(content)
    source = FileSource("tree", tmp_path / "tree")
    entry = next(i for i in source.walk() if isinstance(i, FoundEntry) and i.is_database)

    assert source.capture_database(entry, tmp_path).path.read_bytes() == content


def test_a_vanished_undeclared_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    live = fill(tmp_path / "tree/other.db", "x")
    source = FileSource("tree", tmp_path / "tree")
    entry = next(i for i in source.walk() if isinstance(i, FoundEntry) and i.is_database)
    live.unlink()

    with pytest.raises(SourceError):
        source.capture_database(entry, tmp_path)


# --- a database at rest, read as it lies there -------------------------------

SETTLE_SECONDS = 2.1


def fill_and_rest(path: Path, mode: str, *, rows: int = 20_000) -> Path:
    """Make a database of some MB, more than a pipe holds, and leave it alone for long enough."""
    live = fill(path, "old", rows=rows, mode=mode)
    time.sleep(SETTLE_SECONDS)
    return live


def read_some(database: DatabaseAtRest, count: int) -> bytes:
    buffer = memoryview(bytearray(count))
    done = 0
    while done < count and (got := database.readinto(buffer[done:])):
        done += got
    return bytes(buffer[:done])


@MODES
def test_a_database_at_rest_is_read_byte_for_byte_and_left_as_it_was(tmp_path: Path, mode: str) -> None:
    (tmp_path / "app").mkdir()
    live = fill_and_rest(tmp_path / "app/app.db", mode)
    before = live.read_bytes(), live.stat()

    with read_at_rest(live) as database:
        assert database is not None
        data = read_some(database, 1 << 30)
        stamp = database.stamp()

    assert data == before[0]
    assert database.page_size == 4096
    now = live.stat()
    assert stamp == FileStamp(now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)
    assert (now.st_mtime_ns, now.st_ctime_ns) == (before[1].st_mtime_ns, before[1].st_ctime_ns)
    assert [path.name for path in live.parent.iterdir()] == ["app.db"]


@MODES
def test_a_database_written_just_now_is_not_read_as_it_lies_there(tmp_path: Path, mode: str) -> None:
    live = fill(tmp_path / "app.db", "x", mode=mode)

    with read_at_rest(live) as database:
        assert database is None


def test_a_database_with_something_in_its_wal_is_not_read_as_it_lies_there(tmp_path: Path) -> None:
    live = fill_and_rest(tmp_path / "app.db", "wal", rows=5)
    with script(HOLD, live, "UPDATE t SET word = 'new'"), read_at_rest(live) as database:
        assert database is None


@MODES
def test_who_writes_meanwhile_is_not_kept_waiting_and_what_was_read_is_worth_nothing(
    tmp_path: Path, mode: str
) -> None:
    live = fill_and_rest(tmp_path / "app.db", mode)
    size = live.stat().st_size

    with read_at_rest(live) as database:
        assert database is not None
        begun = read_some(database, 100_000)
        with closing(sqlite3.connect(live, timeout=0)) as connection:  # fails at once when it has to wait
            connection.execute("UPDATE t SET word = 'new'")
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert len(begun + read_some(database, 1 << 30)) == size
        assert database.stamp() is None

    assert words(live) == {"new"}


def test_a_database_that_shrinks_meanwhile_ends_and_is_worth_nothing(tmp_path: Path) -> None:
    live = fill_and_rest(tmp_path / "app.db", "delete")
    size = live.stat().st_size

    with read_at_rest(live) as database:
        assert database is not None
        os.truncate(live, 4096)
        assert len(read_some(database, 1 << 30)) == size
        assert database.stamp() is None


def test_no_process_stays_when_reading_is_given_up(tmp_path: Path) -> None:
    live = fill_and_rest(tmp_path / "app.db", "delete")
    before = set(children(os.getpid()))  # the session's own services: browser, Redis

    with read_at_rest(live) as database:
        assert database is not None
        read_some(database, 100)
        assert set(children(os.getpid())) > before

    assert set(children(os.getpid())) <= before


def test_a_process_that_dies_while_it_reads_is_an_error(tmp_path: Path) -> None:
    live = fill_and_rest(tmp_path / "app.db", "delete")
    before = set(children(os.getpid()))  # the session's own services: browser, Redis

    with read_at_rest(live) as database:
        assert database is not None
        read_some(database, 100)
        (reader,) = set(children(os.getpid())) - before
        os.kill(reader, signal.SIGKILL)
        with pytest.raises(SourceError, match="ended early"):
            read_some(database, 1 << 30)


def test_what_is_no_database_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database")
    with pytest.raises(SourceMissing), read_at_rest(tmp_path / "text"):
        pass

    (tmp_path / "damaged").write_bytes(b"SQLite format 3\0" + os.urandom(2032))
    with pytest.raises(SourceInvalid), read_at_rest(tmp_path / "damaged"):
        pass


# --- write into live -------------------------------------------------------


@MODES
@pytest.mark.parametrize("copy_mode", ["wal", "delete"])
@pytest.mark.parametrize("page_size", [1024, 4096])
def test_open_connections_see_the_restored_rows(
    tmp_path: Path, mode: str, copy_mode: str, page_size: int
) -> None:
    copy = fill(tmp_path / "copy.db", "restored", mode=copy_mode, page_size=page_size)
    live = fill(tmp_path / "app.db", "live", rows=3000, mode=mode)
    inode = live.stat().st_ino
    with closing(sqlite3.connect(live)) as connection:
        assert connection.execute("SELECT DISTINCT word FROM t").fetchall() == [("live",)]

        write_into_live(copy, live, deadline_seconds=10)

        assert connection.execute("SELECT DISTINCT word FROM t").fetchall() == [("restored",)]
        connection.execute("INSERT INTO t(word) VALUES ('after')")
        connection.commit()
    assert live.stat().st_ino == inode
    assert words(live) == {"restored", "after"}
    assert words(copy) == {"restored"}
    assert not (tmp_path / "copy.db.resized").exists()
    rows = {table.name: table.rows for table in SqliteSource("app", live).capture(tmp_path).tables}
    assert rows == {"t": 501}


TICKER = """
    import sqlite3, sys
    c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    log = open(sys.argv[2], "w", buffering=1)
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        c.execute("INSERT INTO tick VALUES (?)", (number,))
        print(number, file=log)
"""


def wait_for_ticks(live: Path, count: int) -> None:
    with closing(sqlite3.connect(live, timeout=30)) as reader:
        while reader.execute("SELECT count(*) FROM tick").fetchone()[0] < count:
            time.sleep(0.01)


@MODES
def test_a_writer_that_goes_on_loses_nothing_it_committed_after_a_restore(tmp_path: Path, mode: str) -> None:
    copy = fill(tmp_path / "copy.db", "restored")
    live = fill(tmp_path / "app.db", "live", mode=mode)
    make(copy, "CREATE TABLE tick(number)", "INSERT INTO tick VALUES (-1)")
    make(live, "CREATE TABLE tick(number)", mode=mode)
    with script(TICKER, live, tmp_path / "log"):
        wait_for_ticks(live, 20)
        write_into_live(copy, live, deadline_seconds=20)
        wait_for_ticks(live, 30)
    committed = int((tmp_path / "log").read_text().splitlines()[-1])
    with closing(sqlite3.connect(live)) as connection:
        first, *later = [row[0] for row in connection.execute("SELECT number FROM tick ORDER BY rowid")]

    assert first == -1
    assert later == list(range(later[0], later[-1] + 1))  # none is missing from the restore on
    assert 20 < later[0] < committed <= later[-1]
    assert words(live) == {"restored"}


@MODES
def test_the_restored_tables_have_the_digests_of_the_copy(tmp_path: Path, mode: str) -> None:
    copy = inspect_copy(fill(tmp_path / "copy.db", "restored", page_size=1024))
    live = fill(tmp_path / "app.db", "live", mode=mode)

    write_into_live(copy.path, live, deadline_seconds=10)

    after = SqliteSource("app", live).capture(tmp_path)
    assert (after.tables, after.schema) == (copy.tables, copy.schema)


@MODES
def test_a_busy_live_database_stays_as_it_is(tmp_path: Path, mode: str) -> None:
    copy = fill(tmp_path / "copy.db", "restored")
    live = fill(tmp_path / "app.db", "live", mode=mode)
    with (
        script(HOLD, live, "BEGIN IMMEDIATE", "INSERT INTO t(word) VALUES ('y')"),
        pytest.raises(Busy, match="stayed locked"),
    ):
        write_into_live(copy, live, deadline_seconds=0.3)

    assert words(live) == {"live"}


def test_a_reader_in_rollback_mode_is_in_the_way(tmp_path: Path) -> None:
    copy = fill(tmp_path / "copy.db", "restored")
    live = fill(tmp_path / "app.db", "live")
    with script(HOLD, live, "BEGIN", "SELECT * FROM t LIMIT 1"), pytest.raises(Busy):
        write_into_live(copy, live, deadline_seconds=0.3)

    assert words(live) == {"live"}


def test_a_reader_in_wal_mode_keeps_what_it_sees(tmp_path: Path) -> None:
    copy = fill(tmp_path / "copy.db", "restored")
    live = fill(tmp_path / "app.db", "live", mode="wal")
    with closing(sqlite3.connect(live, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT DISTINCT word FROM t").fetchall() == [("live",)]

        write_into_live(copy, live, deadline_seconds=10)

        assert reader.execute("SELECT DISTINCT word FROM t").fetchall() == [("live",)]
        reader.execute("COMMIT")
        assert reader.execute("SELECT DISTINCT word FROM t").fetchall() == [("restored",)]


def test_a_live_database_that_is_missing_or_damaged_is_told_apart(tmp_path: Path) -> None:
    copy = fill(tmp_path / "copy.db", "restored")
    (tmp_path / "text.db").write_bytes(b"no database" * 1000)
    (tmp_path / "link.db").symlink_to(fill(tmp_path / "real.db", "live"))

    with pytest.raises(LiveUnusable):
        write_into_live(copy, tmp_path / "gone.db", deadline_seconds=5)
    with pytest.raises(LiveUnusable):
        write_into_live(copy, tmp_path / "text.db", deadline_seconds=5)
    with pytest.raises(SourceError, match="symlink"):
        write_into_live(copy, tmp_path / "link.db", deadline_seconds=5)

    assert not (tmp_path / "gone.db").exists()
    assert words(tmp_path / "real.db") == {"live"}


def test_a_missing_copy_leaves_live_alone(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "live")

    with pytest.raises(SourceMissing):
        write_into_live(tmp_path / "gone.db", live, deadline_seconds=5)

    assert words(live) == {"live"}


@pytest.mark.parametrize("copy_mode", ["wal", "delete"])
@MODES
def test_live_keeps_its_journal_mode(tmp_path: Path, mode: str, copy_mode: str) -> None:
    copy = fill(tmp_path / "copy.db", "restored", mode=copy_mode)
    live = fill(tmp_path / "app.db", "live", mode=mode)
    with script(HOLD, live, "SELECT * FROM t LIMIT 1"):
        write_into_live(copy, live, deadline_seconds=5)

    assert words(live) == {"restored"}
    assert live.read_bytes()[18:20] == (b"\2\2" if mode == "wal" else b"\1\1")


def fill_with_a_collation_of_the_app(path: Path) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_collation("ours", lambda first, second: (first < second) - (first > second))
        connection.execute("PRAGMA page_size=1024")
        connection.execute("CREATE TABLE t(word TEXT COLLATE ours PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO t VALUES ('restored'), ('too')")
    return path


@MODES
def test_what_only_the_app_knows_is_restored_over_other_pages(tmp_path: Path, mode: str) -> None:
    copy = inspect_copy(fill_with_a_collation_of_the_app(tmp_path / "copy.db"))
    live = fill(tmp_path / "app.db", "live", mode=mode)

    write_into_live(copy.path, live, deadline_seconds=5)

    after = SqliteSource("app", live).capture(tmp_path)
    assert (after.tables, after.schema, after.page_size) == (copy.tables, copy.schema, 1024)
    assert after.journal_mode == mode


def test_other_pages_of_what_only_the_app_knows_wait_for_those_who_have_it_open(tmp_path: Path) -> None:
    copy = fill_with_a_collation_of_the_app(tmp_path / "copy.db")
    live = fill(tmp_path / "app.db", "live", mode="wal")
    with script(HOLD, live, "SELECT * FROM t LIMIT 1"), pytest.raises(Busy, match="stayed locked"):
        write_into_live(copy, live, deadline_seconds=0.3)

    assert words(live) == {"live"}
    assert live.read_bytes()[18:20] == b"\2\2"


def test_live_keeps_its_mode(tmp_path: Path) -> None:
    copy = fill(tmp_path / "copy.db", "restored")
    live = fill(tmp_path / "app.db", "live")
    live.chmod(0o640)

    write_into_live(copy, live, deadline_seconds=5)

    assert live.stat().st_mode & 0o777 == 0o640


RESTORE = """
    import sys
    from pathlib import Path
    from backup_admin.sources.sqlite import write_into_live
    print("ready", flush=True)
    write_into_live(Path(sys.argv[1]), Path(sys.argv[2]), deadline_seconds=20)
    print("done", flush=True)
"""


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@MODES
@pytest.mark.parametrize("victim", ["worker", "parent"])
@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.long)])
def test_killed_at_any_moment_live_is_all_old_or_all_new(
    tmp_path: Path, mode: str, victim: str, rounds: int
) -> None:
    copy = fill(tmp_path / "copy.db", "new", rows=40_000)
    model = fill(tmp_path / "model.db", "old", rows=40_000, mode=mode)
    live = tmp_path / "app.db"
    journal = tmp_path / ("app.db-wal" if mode == "wal" else "app.db-journal")
    chance = random.Random(f"{mode}{victim}")
    seen: list[str] = []
    for number in range(rounds):
        for path in tmp_path.glob("app.db*"):
            path.unlink()
        shutil.copy(model, live)
        with script(RESTORE, copy, live) as parent:
            worker = wait_for_child(parent)
            while not journal.exists() and is_running(worker):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.15) if number else 0)
            with suppress(ProcessLookupError):
                os.kill(worker if victim == "worker" else parent.pid, signal.SIGKILL)
            while is_running(worker):
                time.sleep(0.001)
        (state,) = words(live)
        seen.append(state)

    assert set(seen) <= {"old", "new"}
    assert "old" in seen


def wait_for_child(parent: subprocess.Popen[str]) -> int:
    while True:
        found = children(parent.pid)
        if found:
            return found[0]
        assert parent.poll() is None
        time.sleep(0.001)


def test_a_worker_whose_parent_is_gone_does_nothing(tmp_path: Path) -> None:
    live = fill(tmp_path / "app.db", "live")
    copy = fill(tmp_path / "copy.db", "restored")
    worker = ROOT / "backup_admin/sources/sqlite_worker.py"
    request = (
        f'{{"operation": "write", "parent": 1, "arguments": {{"copy": "{copy}", '
        f'"live": "{live}", "deadline_seconds": 5}}}}'
    )

    result = subprocess.run(
        [sys.executable, "-I", str(worker)], input=request, text=True, capture_output=True, check=False
    )

    assert (result.returncode, result.stdout) == (1, "")
    assert words(live) == {"live"}
