"""Rows come back while the app reads and writes, and one customer's invoices with all they need."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.core.errors import Busy
from backup_admin.sources.merging.merge_model import MergeRequest, TableMerge
from backup_admin.sources.sqlite_rows import merge_into_sqlite
from tests.services.small_gallery import fill, postgres_database, sqlite_database

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.postgres import PostgresServer
    from tests.services.small_gallery import Database

pytestmark = pytest.mark.integration

ONE_EVENT = MergeRequest(rows=(("events", "2"),))


def test_open_connections_to_sqlite_see_the_rows_at_their_next_statement(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    fill(database)
    database.capture()
    database.run("DELETE FROM events WHERE id = 2")
    count = "SELECT count(*) FROM photos WHERE event_id = 2"

    with (
        closing(sqlite3.connect(database.path, isolation_level=None)) as reader,
        closing(sqlite3.connect(database.path, isolation_level=None)) as other,
    ):
        reader.execute("BEGIN")
        assert reader.execute(count).fetchone() == (0,)
        database.merge(ONE_EVENT)
        assert reader.execute(count).fetchone() == (0,)  # one state for the whole transaction
        reader.execute("COMMIT")
        assert reader.execute(count).fetchone() == (4,)
        other.execute("UPDATE photos SET caption = 'after' WHERE id = 200")
    assert database.rows("PRAGMA integrity_check") == [("ok",)]
    assert database.rows("PRAGMA journal_mode") == [("wal",)]


def test_a_writer_that_never_rests_keeps_sqlite_as_it_is(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    fill(database)
    database.capture()
    database.run("DELETE FROM events WHERE id = 2")
    before = database.dump()
    assert database.copy is not None

    with closing(sqlite3.connect(database.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="stayed locked"):
            merge_into_sqlite(database.copy, database.path, ONE_EVENT, dry=False, deadline_seconds=0.3)
        writer.execute("ROLLBACK")

    assert database.dump() == before
    assert sorted(path.name for path in database.copy.parent.iterdir()) == [database.copy.name]


def test_writers_of_postgresql_wait_and_lose_nothing(debian_postgres: PostgresServer) -> None:
    database = postgres_database(debian_postgres)
    fill(database)
    database.capture()
    database.run("DELETE FROM events WHERE id = 2")
    stop = threading.Event()
    done: list[int] = []

    def write() -> None:
        with psycopg.connect(database.address, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("UPDATE photos SET width = width + 1 WHERE id = 100")
                connection.execute(
                    "INSERT INTO gallery_guests (event_id, name, invite_token, created_at) "
                    "VALUES (1, 'x', gen_random_uuid(), now())"
                )
                done.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(3):
            database.merge(ONE_EVENT, dry=True)
        database.merge(ONE_EVENT)
    finally:
        stop.set()
        thread.join()

    assert len(done) > 5
    assert database.rows("SELECT width FROM photos WHERE id = 100") == [(4 + len(done),)]
    assert database.rows("SELECT count(*) FROM gallery_guests WHERE name = 'x'") == [(len(done),)]
    assert database.rows("SELECT count(*) FROM photos WHERE event_id = 2") == [(4,)]


def test_the_invoices_of_a_customer_bring_what_they_cannot_be_without(database: Database) -> None:
    database.run(
        "CREATE TABLE genre (id int PRIMARY KEY, name text)",
        "CREATE TABLE track (id int PRIMARY KEY, name text, genre int REFERENCES genre)",
        "CREATE TABLE employee (id int PRIMARY KEY, boss int REFERENCES employee)",
        "CREATE TABLE customer (id int PRIMARY KEY, rep int REFERENCES employee)",
        "CREATE TABLE invoice (id int PRIMARY KEY, customer int NOT NULL REFERENCES customer)",
        "CREATE TABLE line (invoice int REFERENCES invoice, n int, track int REFERENCES track, "
        "PRIMARY KEY (invoice, n))",
        "INSERT INTO genre VALUES (1, 'Rock'), (2, 'Jazz'), (3, 'Pop')",
        "INSERT INTO track VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
        "INSERT INTO employee VALUES (1, NULL), (2, 1), (3, 1)",
        "INSERT INTO customer VALUES (1, 3), (2, 2)",
        "INSERT INTO invoice VALUES (10, 1), (20, 2), (21, 2)",
        "INSERT INTO line VALUES (10, 1, 3), (20, 1, 1), (20, 2, 2), (21, 1, 1)",
    )
    database.capture()
    database.run(
        "DELETE FROM line", "DELETE FROM invoice", "DELETE FROM customer", "DELETE FROM track",
        "DELETE FROM genre WHERE id > 1", "DELETE FROM employee WHERE id > 1",
        "UPDATE genre SET name = 'changed since'",
    )  # fmt: skip

    report = database.merge(MergeRequest(rows=(("customer", "2"),)))

    assert report.tables == (
        TableMerge("customer", insert=1),
        TableMerge("employee", parents=1),
        TableMerge("genre", parents=1),
        TableMerge("invoice", insert=2),
        TableMerge("line", insert=3),
        TableMerge("track", parents=2),
    )
    assert database.rows("SELECT name FROM genre ORDER BY id") == [("changed since",), ("Jazz",)]
    assert database.rows("SELECT id FROM employee ORDER BY id") == [(1,), (2,)]
