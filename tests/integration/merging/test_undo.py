"""What a restore of rows changed is taken back: exactly that, and only where nobody changed it since."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Damaged, RestoreRefused
from backup_admin.sources.merging.merge_model import MergeRequest, OnConflict, TableUndo
from tests.services.small_gallery import PostgresDatabase, SqliteDatabase

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.small_gallery import Database

pytestmark = pytest.mark.integration

ONE_EVENT = MergeRequest(rows=(("events", "2"),))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "rows.record"


def restored(database: Database, request: MergeRequest, record: Path) -> list[str]:
    """Restore rows; return the database as it was before."""
    before = content(database)
    report = database.merge(request, record=record)
    assert not report.is_refused, report
    assert report.changes > 0
    assert content(database) != before
    return before


def content(database: Database) -> list[str]:
    """Return all of the database but where its sequences are, which do not go back."""
    if isinstance(database, SqliteDatabase):
        shell = subprocess.run(
            ["sqlite3", database.path, ".dump --nosys"], check=True, capture_output=True, timeout=60
        )
        lines = sorted(map(repr, shell.stdout.splitlines()))
    else:
        lines = database.dump()
    return [line for line in lines if "setval" not in line and "sqlite_sequence" not in line]


def changes(database: Database, record: Path) -> dict[str, TableUndo]:
    dry = database.undo(record, dry=True)
    report = database.undo(record)
    assert not report.is_refused, report
    assert dry.tables == report.tables
    return {table.table: table for table in report.tables if table.changes}


def test_an_event_that_came_back_goes_again_with_all_that_came_with_it(
    gallery: Database, record: Path
) -> None:
    gallery.run("DELETE FROM events WHERE id = 2", "UPDATE events SET title = 'mine' WHERE id = 1")
    before = restored(gallery, ONE_EVENT, record)

    found = changes(gallery, record)

    assert content(gallery) == before
    assert found["events"] == TableUndo("events", deleted=1)
    assert found["photos"] == TableUndo("photos", deleted=4)
    assert record.stat().st_mode & 0o777 == 0o600


def test_rows_that_were_written_over_are_put_back_as_they_were(gallery: Database, record: Path) -> None:
    gallery.run(
        "UPDATE events SET title = 'since \u00fc\u20ac\t''x', hero_photo_id = NULL WHERE id = 2",
        "UPDATE photos SET caption = 'mine' WHERE id IN (200, 201)",
        "DELETE FROM photos WHERE id = 202",
    )
    before = restored(
        gallery, MergeRequest(rows=(("events", "2"),), on_conflict=OnConflict.OVERWRITE), record
    )

    found = changes(gallery, record)

    assert content(gallery) == before
    assert found["events"] == TableUndo("events", put_back=1)
    assert found["photos"] == TableUndo("photos", deleted=1, put_back=2)


def test_rows_that_a_replaced_table_lost_come_back(gallery: Database, record: Path) -> None:
    gallery.run(
        "DELETE FROM photo_feedback WHERE photo_id < 200",
        "UPDATE event_types SET name = 'Other' WHERE id = 1",
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (9, 'nine', 'Nine', ''), (8, '8', '8', '')",
    )
    request = MergeRequest(tables=("event_types",), on_conflict=OnConflict.REPLACE)
    before = restored(gallery, request, record)
    assert gallery.rows("SELECT count(*) FROM event_types") == [(1,)]

    found = changes(gallery, record)

    assert content(gallery) == before
    assert found == {"event_types": TableUndo("event_types", put_back=1, brought_back=2)}


def test_rows_that_a_replaced_table_without_a_key_lost_come_back(database: Database, record: Path) -> None:
    database.run("CREATE TABLE word (w text)", "INSERT INTO word VALUES ('a'), ('a'), ('b'), ('c')")
    database.capture()
    database.run("DELETE FROM word WHERE w = 'c'", "INSERT INTO word VALUES ('a'), ('b'), ('new')")
    request = MergeRequest(tables=("word",), on_conflict=OnConflict.REPLACE)
    before = restored(database, request, record)

    found = changes(database, record)

    assert content(database) == before
    assert found == {"word": TableUndo("word", deleted=1, brought_back=3)}


def test_copies_beside_the_live_rows_go_again(database: Database, record: Path) -> None:
    database.run(
        "CREATE TABLE album (id int PRIMARY KEY, name text)",
        "CREATE TABLE song (id int PRIMARY KEY, album int NOT NULL REFERENCES album ON DELETE CASCADE)",
        "INSERT INTO album VALUES (1, 'one'), (2, 'two')",
        "INSERT INTO song VALUES (1, 1), (2, 1), (3, 2)",
    )
    database.capture()
    request = MergeRequest(rows=(("album", "1"),), on_conflict=OnConflict.COPY)
    before = restored(database, request, record)
    assert database.rows("SELECT count(*) FROM song") == [(5,)]

    found = changes(database, record)

    assert content(database) == before
    assert found == {"album": TableUndo("album", deleted=1), "song": TableUndo("song", deleted=2)}


def test_a_row_that_somebody_changed_since_keeps_all_of_it_as_it_is(gallery: Database, record: Path) -> None:
    gallery.run("DELETE FROM events WHERE id = 2", "UPDATE photos SET caption = 'mine' WHERE id = 100")
    request = MergeRequest(rows=(("events", "2"), ("photos", "100")), on_conflict=OnConflict.OVERWRITE)
    restored(gallery, request, record)
    gallery.run(
        "UPDATE photos SET caption = 'since' WHERE id IN (100, 201)", "DELETE FROM photos WHERE id = 202"
    )
    after = gallery.dump()

    report = gallery.undo(record)

    assert report.changed == ("photos 100", "photos 201")  # one that is gone has not to be deleted
    assert gallery.dump() == after
    gallery.run(
        "UPDATE photos SET caption = (SELECT caption FROM photos WHERE id = 101) WHERE id IN (100, 201)"
    )
    assert gallery.undo(record).changed == ()
    assert gallery.rows("SELECT count(*) FROM photos WHERE event_id = 2") == [(0,)]
    assert gallery.rows("SELECT caption FROM photos WHERE id = 100") == [("mine",)]


def test_rows_that_others_refer_to_since_do_not_go(gallery: Database, record: Path) -> None:
    gallery.run("DELETE FROM events WHERE id = 2")
    restored(gallery, ONE_EVENT, record)
    gallery.run("INSERT INTO photo_categories (id, event_id, slug, name) VALUES (999, 2, 'new', 'New')")
    after = gallery.dump()

    report = gallery.undo(record)

    (sentence,) = report.refusals
    assert sentence.startswith("1 row of photo_categories refers (event_id) to rows of events that came")
    assert gallery.dump() == after


def test_undoing_twice_changes_nothing_more(gallery: Database, record: Path) -> None:
    gallery.run(
        "UPDATE events SET title = 'since' WHERE id = 2",
        "DELETE FROM photos WHERE id = 202",
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (9, 'nine', 'Nine', '')",
    )
    before = restored(
        gallery, MergeRequest(rows=(("events", "2"),), on_conflict=OnConflict.OVERWRITE), record
    )
    changes(gallery, record)

    report = gallery.undo(record)

    assert (report.is_refused, report.left, report.already > 0) == (False, 0, True)
    assert content(gallery) == before


def test_the_record_of_a_transaction_that_was_never_committed_does_nothing(
    gallery: Database, record: Path, tmp_path: Path
) -> None:
    gallery.run("DELETE FROM events WHERE id = 2", "UPDATE photos SET caption = 'mine' WHERE id = 100")
    request = MergeRequest(rows=(("events", "2"), ("photos", "100")), on_conflict=OnConflict.OVERWRITE)
    before = restored(gallery, request, record)
    gallery.undo(record)  # now all is as when a transaction was taken back after its record was written
    assert content(gallery) == before

    report = gallery.undo(record, dry=True)

    assert (report.left, report.changed) == (0, ())
    assert report.already > 0


def test_without_room_for_the_record_nothing_is_restored(gallery: Database, tmp_path: Path) -> None:
    gallery.run("DELETE FROM events WHERE id = 2")
    before = gallery.dump()

    with pytest.raises(RestoreRefused, match="What an undo needs cannot be kept"):
        gallery.merge(ONE_EVENT, record=tmp_path / "missing" / "rows.record")

    assert gallery.dump() == before


def test_a_record_that_is_not_whole_is_refused(gallery: Database, record: Path) -> None:
    gallery.run("DELETE FROM events WHERE id = 2")
    restored(gallery, ONE_EVENT, record)
    after, whole = gallery.dump(), record.read_bytes()

    for harmed in (whole[:-2], whole.replace(b"photos", b"events"), b"".join(whole.splitlines(True)[:-1])):
        record.write_bytes(harmed)
        with pytest.raises(Damaged):
            gallery.undo(record)

    assert gallery.dump() == after


def test_rows_without_a_key_go_as_often_as_they_came(database: Database, record: Path) -> None:
    database.run(
        "CREATE TABLE tag (thing int, word text)",
        "INSERT INTO tag VALUES (1, 'x'), (1, 'x'), (1, NULL), (1, ''), (2, 'x')",
    )
    database.capture()
    database.run("DELETE FROM tag", "INSERT INTO tag VALUES (1, 'x'), (2, 'new')")
    before = restored(database, MergeRequest(tables=("tag",)), record)
    database.run("INSERT INTO tag VALUES (7, 'since')")

    found = changes(database, record)

    assert found == {"tag": TableUndo("tag", deleted=4)}
    database.run("DELETE FROM tag WHERE thing = 7")
    assert content(database) == before
    assert database.undo(record).left == 0


def test_a_table_without_a_key_that_was_replaced_is_as_it_was(database: Database, record: Path) -> None:
    database.run("CREATE TABLE tag (thing int, word text)", "INSERT INTO tag VALUES (1, 'x'), (1, 'x')")
    database.capture()
    database.run("DELETE FROM tag", "INSERT INTO tag VALUES (1, 'x'), (2, 'new'), (2, 'new'), (3, NULL)")
    before = restored(database, MergeRequest(tables=("tag",), on_conflict=OnConflict.REPLACE), record)
    assert database.rows("SELECT * FROM tag") == [(1, "x"), (1, "x")]

    found = changes(database, record)

    assert found == {"tag": TableUndo("tag", deleted=1, brought_back=3)}
    assert content(database) == before
    database.run("INSERT INTO tag VALUES (2, 'new')")
    assert database.undo(record).changed == ("tag (rows without a key)",)


def test_rows_in_a_circle_that_refer_to_each_other_go(database: Database, record: Path) -> None:
    database.run("CREATE TABLE a (id int PRIMARY KEY, v text)")
    if isinstance(database, PostgresDatabase):
        database.run(
            "ALTER TABLE a ADD COLUMN b int",
            "CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a ON DELETE CASCADE)",
            "ALTER TABLE a ADD CONSTRAINT circle FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE",
        )
    else:
        database.run(
            "ALTER TABLE a ADD COLUMN b int REFERENCES b ON DELETE CASCADE",
            "CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a ON DELETE CASCADE)",
        )
    database.run(
        "INSERT INTO a VALUES (1, 'one', NULL), (2, 'two', NULL), (3, 'three', NULL)",
        "INSERT INTO b VALUES (1, 1), (2, 2)",
        "UPDATE a SET b = id WHERE id < 3",
        "UPDATE a SET b = 2 WHERE id = 3",
    )
    database.capture()
    database.run("UPDATE a SET b = 1, v = 'mine' WHERE id = 3", "DELETE FROM a WHERE id = 2")
    request = MergeRequest(rows=(("a", "2"), ("a", "3")), on_conflict=OnConflict.OVERWRITE)
    before = restored(database, request, record)
    assert database.rows("SELECT * FROM a ORDER BY id") == [(1, "one", 1), (2, "two", 2), (3, "three", 2)]

    # Row 3 of `a` refers to a row that goes, and would go with it if it was not put back first.
    changes(database, record)

    assert content(database) == before


def test_values_of_every_kind_come_back_to_the_last_bit(database: Database, record: Path) -> None:
    if isinstance(database, PostgresDatabase):
        database.run(
            "CREATE TYPE mood AS ENUM ('sad', 'ok')",
            "CREATE DOMAIN filled AS text NOT NULL CHECK (VALUE <> '')",
            "CREATE TABLE kinds (id uuid PRIMARY KEY, m mood, n numeric, f float8, b bytea, j json, "
            "jb jsonb, t timestamptz, a int[], r int4range, i interval, d filled, c char(5), g int "
            "GENERATED ALWAYS AS (1) STORED, s text)",
            "INSERT INTO kinds VALUES ('00000000-0000-0000-0000-000000000001', 'ok', 1.10, 0.1, "
            "'\\xff00', '{\"a\": 1, \"a\": 2}', '[1.50]', 'infinity', '[2:3]={7,8}', '[1,5)', "
            "'1 mon -2 days', 'x', 'ab', DEFAULT, E'\\t\\n\\\\N')",
        )
        changed = (
            "UPDATE kinds SET m = NULL, n = 'NaN', f = '-0', b = NULL, j = '[1,  2]', t = '0044-03-15 BC', "
            "a = '{NULL}', d = 'y', s = E'\\\\N'"
        )
    else:
        database.run(
            "CREATE TABLE kinds (id BLOB PRIMARY KEY, a, b TEXT, c INTEGER, d REAL, e NUMERIC)",
            "INSERT INTO kinds VALUES (X'00ff', 1, 'x', 2, 0.1, '12')",
        )
        changed = (
            "UPDATE kinds SET a = CAST(X'ff61' AS TEXT), b = 'n' || char(0) || 'l', c = 9007199254740993, "
            "d = 9e999, e = X'00ff'"
        )
    database.capture()
    database.run(changed)
    before = restored(database, MergeRequest(tables=("kinds",), on_conflict=OnConflict.OVERWRITE), record)
    kept = [json.loads(line) for line in record.read_bytes().splitlines()]

    changes(database, record)

    if isinstance(database, SqliteDatabase):
        shown = "SELECT hex(a), typeof(a), hex(b), typeof(b), c, typeof(c), d, e, typeof(e) FROM kinds"
        (row,) = database.rows(shown)
        assert row[:6] == ("FF61", "text", "6E006C", "text", 9007199254740993, "integer")
        assert row[6:] == (float("inf"), b"\x00\xff", "blob")
    else:
        assert content(database) == before
    assert kept[0] == {"version": 1, "made": []}


def test_a_table_that_the_restore_made_goes_again_unless_it_is_in_use(tmp_path: Path, record: Path) -> None:
    database = SqliteDatabase(tmp_path / "app.db")
    database.run("CREATE TABLE other (id int)", "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
    database.run("INSERT INTO t VALUES (1, 'x')")
    database.capture()
    database.run("DROP TABLE t")
    before = restored(database, MergeRequest(tables=("t",)), record)

    database.run("INSERT INTO t VALUES (2, 'mine')")
    assert database.undo(record).left == 1
    assert database.rows("SELECT * FROM t") == [(2, "mine")]
    database.run("DELETE FROM t")
    assert database.undo(record).left == 0
    assert content(database) == before


def test_a_table_that_is_no_longer_what_it_was_refuses_the_undo(gallery: Database, record: Path) -> None:
    gallery.run("UPDATE photo_categories SET name = 'mine'")
    restored(
        gallery,
        MergeRequest(tables=("photo_categories",), on_conflict=OnConflict.OVERWRITE),
        record,
    )
    gallery.run("ALTER TABLE photo_categories RENAME COLUMN name TO title")

    with pytest.raises(RestoreRefused, match="photo_categories no longer has the column name"):
        gallery.undo(record)


def test_a_table_that_has_another_key_than_before_refuses_the_undo(database: Database, record: Path) -> None:
    database.run("CREATE TABLE t (a int PRIMARY KEY, b int)", "INSERT INTO t VALUES (1, 2), (2, 3)")
    database.capture()
    database.run("DELETE FROM t WHERE a = 1")
    restored(database, MergeRequest(rows=(("t", "1"),)), record)
    database.run("DROP TABLE t", "CREATE TABLE t (a int, b int PRIMARY KEY)", "INSERT INTO t VALUES (1, 2)")

    with pytest.raises(RestoreRefused, match="t has another primary key than when it was restored into"):
        database.undo(record)

    assert database.rows("SELECT * FROM t") == [(1, 2)]
