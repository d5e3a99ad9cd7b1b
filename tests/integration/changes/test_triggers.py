"""Triggers that count changes come and go without a trace, and are never a proof that nothing changed."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from backup_admin.core.errors import Busy, SourceError
from backup_admin.operations.results import SourceSet
from backup_admin.sources.postgres import triggers
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.source import PostgresSource
from backup_admin.sources.sqlite import SqliteSource, ask_about
from tests.services.changes import Watched
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.sources.postgres.address import PostgresAddress
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def gallery(postgres: PostgresServer) -> str:
    name = postgres.new_database()
    with psycopg.connect(postgres.address(name), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    return name


def place(server: PostgresServer, name: str) -> PostgresAddress:
    return parse_postgres_address(server.address(name))


def test_a_schema_is_what_it_was_after_they_are_gone(postgres: PostgresServer, gallery: str) -> None:
    before = dump_text(postgres, gallery)
    installed = triggers.install(place(postgres, gallery))
    with psycopg.connect(postgres.address(gallery), autocommit=True) as connection:
        connection.execute("UPDATE photos SET path = path")
    assert dump_text(postgres, gallery) != before

    assert triggers.uninstall(place(postgres, gallery)) == len(installed) == 11

    assert dump_text(postgres, gallery) == before


def test_each_statement_of_a_table_is_counted(postgres: PostgresServer, gallery: str) -> None:
    triggers.install(place(postgres, gallery))
    again = triggers.install(place(postgres, gallery))
    with psycopg.connect(postgres.address(gallery), autocommit=True) as connection:
        connection.execute("UPDATE photos SET path = path")
        connection.execute("DELETE FROM sessions")
        connection.execute("TRUNCATE sessions")
        connection.execute("INSERT INTO logs VALUES ('2025-03-01', 'through the whole')")
        connection.execute("CREATE TABLE later (id int)")

    found = {row.table: row.changes for row in triggers.show(place(postgres, gallery))}

    assert {row.changes for row in again} == {0}
    assert (found["photos"], found["sessions"], found["logs"]) == (1, 2, 1)
    assert (found["events"], found["later"]) == (0, -1)


def test_writers_without_a_right_to_the_counters_write_all_the_same(
    postgres: PostgresServer, gallery: str
) -> None:
    triggers.install(place(postgres, gallery))
    postgres.run(
        "DROP ROLE IF EXISTS just_a_writer;\nCREATE ROLE just_a_writer LOGIN;\n"
        "GRANT INSERT ON sessions TO just_a_writer",
        gallery,
    )
    with psycopg.connect(postgres.by_socket(gallery, user="just_a_writer"), autocommit=True) as writer:
        writer.execute("INSERT INTO sessions VALUES ('a')")
    found = {row.table: row.changes for row in triggers.show(place(postgres, gallery))}
    assert found["sessions"] == 1
    postgres.run("REVOKE ALL ON sessions FROM just_a_writer;\nDROP ROLE just_a_writer", gallery)


def test_a_table_that_stays_locked_leaves_everything_as_it_was(
    postgres: PostgresServer, gallery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump_text(postgres, gallery)
    monkeypatch.setattr(triggers, "_LOCK_WAIT", "200ms")
    with psycopg.connect(postgres.address(gallery)) as writer:
        writer.execute("UPDATE secret_rows SET who = who")
        with pytest.raises(SourceError, match="lock timeout"):
            triggers.install(place(postgres, gallery))
    assert dump_text(postgres, gallery) == before


def test_with_them_a_database_is_skipped_and_seen_as_before(
    postgres: PostgresServer, gallery: str, tmp_path: Path
) -> None:
    triggers.install(place(postgres, gallery))
    source = PostgresSource("app", place(postgres, gallery))
    watched = Watched(SourceSet(postgres=(source,)), tmp_path)
    watched.back_up()
    watched.says_skip()
    with psycopg.connect(postgres.address(gallery), autocommit=True) as connection:
        connection.execute("UPDATE photos SET path = path")  # counted, and nothing changed
        watched.says_skip()
        connection.execute("UPDATE photos SET path = 'x' WHERE id = 9")
        assert "photos changed" in watched.says_run()
        # Whoever drops one has changed the schema, and is seen.
    triggers.uninstall(place(postgres, gallery))
    assert "schema" in watched.says_run()


SCHEMA = '''
CREATE TABLE photos (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT);
CREATE TABLE "odd 'name' ""x""" (a);
CREATE VIRTUAL TABLE words USING fts5(text);
CREATE VIEW v AS SELECT 1;
CREATE TRIGGER theirs AFTER INSERT ON photos BEGIN INSERT INTO words VALUES (new.path); END;
INSERT INTO photos (path) VALUES ('a'), ('b');
'''


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.executescript(SCHEMA)
    return path


def ask(path: Path, what: str, seconds: float = 5) -> Any:
    return ask_about(path, f"triggers_{what}", deadline_seconds=seconds)["tables"]


def shell(path: Path, command: str) -> str:
    return subprocess.run(["sqlite3", path, command], check=True, capture_output=True, text=True).stdout


def test_a_sqlite_schema_is_what_it_was_after_they_are_gone(database: Path) -> None:
    before, rows = shell(database, ".schema"), shell(database, ".dump")
    assert ask(database, "install") == [["odd 'name' \"x\"", 0], ["photos", 0]]
    assert shell(database, ".schema") != before
    assert ask(database, "uninstall") == 2

    assert (shell(database, ".schema"), shell(database, ".dump")) == (before, rows)
    assert ask(database, "uninstall") == 0


def test_each_row_of_a_sqlite_table_is_counted(database: Path) -> None:
    ask(database, "install")
    shell(database, "INSERT INTO photos (path) VALUES ('c'); UPDATE photos SET path = 'd' WHERE id = 1")
    shell(database, 'DELETE FROM "odd \'name\' ""x"""; CREATE TABLE later (x)')

    assert ask(database, "show") == [["later", -1], ["odd 'name' \"x\"", 0], ["photos", 2]]
    assert ask(database, "install") == [["later", 0], ["odd 'name' \"x\"", 0], ["photos", 2]]


def test_a_sqlite_database_that_stays_locked_is_left_as_it_was(database: Path) -> None:
    before = shell(database, ".schema")
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="stayed locked"):
            ask(database, "install", 0.2)
    assert shell(database, ".schema") == before


def test_what_they_counted_ends_a_look_before_anything_is_copied(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(database, "install")
    watched = Watched(SourceSet(databases=(SqliteSource("app", database),)), tmp_path / "state")
    watched.back_up()
    watched.says_skip()
    shell(database, "UPDATE photos SET path = 'e'")

    def never(*_arguments: object, **_more: object) -> None:
        raise AssertionError("this was not to be done")

    monkeypatch.setattr(SqliteSource, "capture", never)
    assert "triggers counted changes" in watched.says_run()


def test_they_are_no_proof_that_nothing_changed(database: Path, tmp_path: Path) -> None:
    ask(database, "install")
    watched = Watched(SourceSet(databases=(SqliteSource("app", database),)), tmp_path / "state")
    watched.back_up()
    shell(database, "DROP TRIGGER theirs")
    assert "schema" in watched.says_run()
