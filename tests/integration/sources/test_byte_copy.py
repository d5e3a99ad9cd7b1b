"""A quiet database is copied as the file it is, and stays so while it is copied."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin.sources import sqlite_worker
from backup_admin.sources.sqlite import SqliteSource, copy_database
from backup_admin.sources.sqlite_open import Deadline, copy_file, open_source

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

MODES = pytest.mark.parametrize("mode", ["wal", "delete", "persist"])

_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
try:
    connection.execute("UPDATE t SET word = 'new'")
    print("written", connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
except sqlite3.OperationalError as error:
    print(error)
"""


def make(path: Path, mode: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t (word TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [("old",)] * 3000)
    return path


def words(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {word for (word,) in connection.execute("SELECT word FROM t")}


def write_elsewhere(live: Path) -> str:
    command = [sys.executable, "-c", _WRITER, str(live)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def capture(live: Path, copy: Path) -> list[int] | None:
    stamp: list[int] | None = sqlite_worker.capture(str(live), str(copy), 5, describe=False)["stamp"]
    return stamp


@MODES
def test_a_database_that_rests_gives_its_own_bytes(tmp_path: Path, mode: str) -> None:
    live = make(tmp_path / "app.db", mode)
    found = live.stat()

    stamp = copy_database(live, tmp_path / "copy.db")
    described = SqliteSource("app", live).capture(tmp_path)

    assert (tmp_path / "copy.db").read_bytes() == described.path.read_bytes() == live.read_bytes()
    assert stamp is not None
    assert stamp == described.stamp
    assert (stamp.size, stamp.mtime_ns) == (found.st_size, found.st_mtime_ns)
    assert (stamp.ctime_ns, stamp.inode) == (found.st_ctime_ns, found.st_ino)


def test_an_open_database_with_an_empty_wal_gives_its_own_bytes(tmp_path: Path) -> None:
    live = make(tmp_path / "app.db", "wal")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("SELECT * FROM t").fetchone()

        assert capture(live, tmp_path / "copy.db") is not None

    assert (tmp_path / "copy.db").read_bytes() == live.read_bytes()


def test_what_stands_in_the_wal_is_in_the_copy_and_no_stamp_is_given(tmp_path: Path) -> None:
    live = make(tmp_path / "app.db", "wal")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("UPDATE t SET word = 'new'")
        connection.commit()

        assert capture(live, tmp_path / "copy.db") is None

    assert words(tmp_path / "copy.db") == {"new"}


@MODES
def test_nobody_writes_into_the_file_while_it_is_copied(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make(tmp_path / "app.db", mode)
    before = live.read_bytes()
    said = []

    def write_first(file: FileIO, copy: str) -> list[int] | None:
        said.append(write_elsewhere(live))
        return copy_file(file, copy)

    monkeypatch.setattr(sqlite_worker, "copy_file", write_first)

    stamp = capture(live, tmp_path / "copy.db")

    assert said == ["written 1" if mode == "wal" else "database is locked"]
    assert stamp is not None
    assert (tmp_path / "copy.db").read_bytes() == before
    monkeypatch.undo()
    if mode == "wal":
        capture(live, tmp_path / "again.db")
        assert words(tmp_path / "again.db") == {"new"}


def test_a_file_that_changes_all_the_same_is_copied_through_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make(tmp_path / "app.db", "delete")

    def touch_while_copying(file: FileIO, copy: str) -> list[int] | None:
        sendfile = os.sendfile

        def send(*arguments: int) -> int:
            os.utime(live)
            return sendfile(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, "sendfile", send)
            return copy_file(file, copy)

    monkeypatch.setattr(sqlite_worker, "copy_file", touch_while_copying)

    assert capture(live, tmp_path / "copy.db") is None
    assert words(tmp_path / "copy.db") == {"old"}


def test_a_file_put_in_the_place_of_the_opened_one_is_the_one_that_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make(tmp_path / "app.db", "delete")
    other = make(tmp_path / "other.db", "delete")
    write_elsewhere(other)

    def replace_first(path: str, deadline: Deadline) -> sqlite3.Connection:
        other.replace(live)
        return open_source(path, deadline)

    monkeypatch.setattr(sqlite_worker, "open_source", replace_first)

    assert capture(live, tmp_path / "copy.db") is None
    assert words(tmp_path / "copy.db") == {"new"}
