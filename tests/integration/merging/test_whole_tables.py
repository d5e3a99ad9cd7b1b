"""One table goes back: filled up, written over, or made exactly what it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.merging.merge_model import MergeRequest, OnConflict, TableMerge
from tests.services.small_gallery import PostgresDatabase, table_hash

if TYPE_CHECKING:
    from tests.services.small_gallery import Database

pytestmark = pytest.mark.integration

TYPES = MergeRequest(tables=("event_types",))


def change_types(gallery: Database) -> None:
    gallery.run(
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (2, 'a', 'A', 'a')",
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (3, 'b', 'B', 'b')",
    )
    gallery.capture()
    gallery.run(
        "DELETE FROM event_types WHERE id = 2",
        "UPDATE event_types SET name = 'changed since' WHERE id = 3",
        # What is new has what a row of the snapshot had, which only goes in when this one is gone.
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (9, 'c', 'C', 'c')",
    )


@pytest.mark.parametrize(
    ("policy", "names", "done"),
    [
        (OnConflict.SKIP, "A C Wedding changed since", TableMerge("event_types", insert=1, skip=1, equal=1)),
        (OnConflict.OVERWRITE, "A B C Wedding", TableMerge("event_types", insert=1, overwrite=1, equal=1)),
        (
            OnConflict.REPLACE,
            "A B Wedding",
            TableMerge("event_types", insert=1, overwrite=1, equal=1, delete=1),
        ),
    ],
)
def test_a_table_becomes_what_was_asked_for(
    gallery: Database, policy: OnConflict, names: str, done: TableMerge
) -> None:
    change_types(gallery)
    rest = {name: table_hash(gallery, name) for name in ("events", "photos", "admin_users")}
    request = replace(TYPES, on_conflict=policy)
    before = gallery.dump()

    assert gallery.merge(request, dry=True).tables == (done,)
    assert gallery.dump() == before
    assert gallery.merge(request).tables == (done,)

    found = sorted(name for (name,) in gallery.rows("SELECT name FROM event_types"))
    assert " ".join(found) == names
    assert {name: table_hash(gallery, name) for name in rest} == rest


def test_a_replaced_table_lets_no_row_go_that_others_refer_to(gallery: Database) -> None:
    gallery.run(
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (9, 'c', 'C', 'c')",
        "UPDATE events SET type_id = 9 WHERE id = 3",
    )
    before = gallery.dump()

    report = gallery.merge(replace(TYPES, on_conflict=OnConflict.REPLACE))

    assert report.refusals == ("1 live row of events refers (type_id) to rows of event_types that would go.",)
    assert gallery.dump() == before


def test_a_unique_value_moves_on_when_its_row_goes(gallery: Database) -> None:
    gallery.run(
        "UPDATE events SET type_id = 1",
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (2, 'taken', 'A', 'a')",
    )
    gallery.capture()
    gallery.run(
        "DELETE FROM event_types WHERE id = 2",
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (9, 'taken', 'A', 'a')",
    )

    assert gallery.merge(TYPES).clashes
    report = gallery.merge(replace(TYPES, on_conflict=OnConflict.REPLACE))

    assert report.clashes == ()
    assert gallery.rows("SELECT id, slug FROM event_types ORDER BY id") == [(1, "wedding"), (2, "taken")]


def test_tables_that_refer_to_each_other_are_replaced_together(gallery: Database) -> None:
    tables = ("events", "photos", "photo_categories", "gallery_guests", "photo_feedback")
    before = gallery.dump()
    gallery.run(
        "DELETE FROM events WHERE id = 2",
        "UPDATE photos SET caption = 'changed since'",
        "UPDATE events SET hero_photo_id = NULL",
    )

    gallery.merge(MergeRequest(tables=tables, on_conflict=OnConflict.REPLACE))

    assert gallery.dump() == before


def test_children_stay_away_when_only_a_table_is_wanted(gallery: Database) -> None:
    gallery.run("DELETE FROM events WHERE id = 2")

    report = gallery.merge(MergeRequest(tables=("events",)))

    # Its hero photo is a parent, which it cannot be without; its other photos are not asked for.
    assert gallery.rows("SELECT id FROM photos WHERE event_id = 2") == [(201,)]
    assert {table.table: (table.insert, table.parents) for table in report.tables if table.changes} == {
        "events": (1, 0),
        "photos": (0, 1),
        "photo_categories": (0, 1),
    }


def test_a_table_without_a_key_is_replaced_as_a_whole(database: Database) -> None:
    database.run("CREATE TABLE word (w text)", "INSERT INTO word VALUES ('a'), ('a'), ('b')")
    database.capture()
    database.run("DELETE FROM word", "INSERT INTO word VALUES ('new')")

    database.merge(MergeRequest(tables=("word",), on_conflict=OnConflict.REPLACE))

    assert database.rows("SELECT w FROM word ORDER BY w") == [("a",), ("a",), ("b",)]


def test_of_a_replaced_table_without_a_key_only_what_differs_is_touched(database: Database) -> None:
    database.run(
        "CREATE TABLE word (w text, n int)",
        "INSERT INTO word VALUES ('a', 1), ('a', 1), ('a', 1), ('b', 2), ('b', 2), ('c', NULL), ('', 0)",
    )
    database.capture()
    before = sorted(database.rows("SELECT w, n FROM word WHERE w <> 'c'"))
    database.run(
        "DELETE FROM word WHERE w = 'a' OR w = 'b'",
        "INSERT INTO word VALUES ('a', 1), ('b', 2), ('b', 2), ('b', 2), ('new', NULL), ('new', NULL)",
    )
    request = MergeRequest(tables=("word",), on_conflict=OnConflict.REPLACE)
    done = (TableMerge("word", insert=2, equal=5, delete=3),)

    assert database.merge(request, dry=True).tables == done
    assert database.merge(request).tables == done

    assert sorted(database.rows("SELECT w, n FROM word WHERE w <> 'c'")) == before
    assert database.rows("SELECT w, n FROM word WHERE w = 'c'") == [("c", None)]
    assert database.merge(request).tables == (TableMerge("word", equal=7),)


def test_rows_without_a_key_that_stay_keep_what_they_have_in_newer_columns(database: Database) -> None:
    database.run("CREATE TABLE word (w text)", "INSERT INTO word VALUES ('a'), ('a'), ('b')")
    database.capture()
    database.run("ALTER TABLE word ADD COLUMN seen int DEFAULT 7", "UPDATE word SET seen = 1")
    database.run("DELETE FROM word WHERE w = 'b'", "INSERT INTO word VALUES ('a', 1), ('c', 1)")

    report = database.merge(MergeRequest(tables=("word",), on_conflict=OnConflict.REPLACE))

    assert report.tables == (TableMerge("word", insert=1, equal=2, delete=2),)
    assert database.rows("SELECT w, seen FROM word ORDER BY w") == [("a", 1), ("a", 1), ("b", 7)]


def test_rows_without_a_key_that_stay_or_go_are_told_apart_where_keys_lead(database: Database) -> None:
    database.run(
        "CREATE TABLE kind (code text UNIQUE, name text)",
        "CREATE TABLE item (kind text REFERENCES kind (code), v int)",
        "INSERT INTO kind VALUES ('x', 'X'), ('y', 'Y')",
        "INSERT INTO item VALUES ('x', 1), ('y', 2), ('y', 2)",
    )
    database.capture()
    before = database.dump()
    database.run("INSERT INTO kind VALUES ('z', 'Z')", "INSERT INTO item VALUES ('z', 3), ('y', 2)")

    kinds = database.merge(MergeRequest(tables=("kind",), on_conflict=OnConflict.REPLACE))
    both = database.merge(MergeRequest(tables=("kind", "item"), on_conflict=OnConflict.REPLACE))

    assert kinds.refusals == ("1 live row of item refers (kind) to rows of kind that would go.",)
    assert both.tables == (
        TableMerge("item", equal=3, delete=2),
        TableMerge("kind", equal=2, delete=1),
    )
    assert database.dump() == before


def test_rows_without_a_key_clash_with_those_that_stay_only(database: Database) -> None:
    database.run("CREATE TABLE seat (n int UNIQUE, who text)", "INSERT INTO seat VALUES (1, 'a'), (2, 'b')")
    database.capture()
    before = database.dump()
    database.run("UPDATE seat SET who = 'other' WHERE n = 2")

    report = database.merge(MergeRequest(tables=("seat",), on_conflict=OnConflict.REPLACE))

    assert (report.clashes, report.tables) == ((), (TableMerge("seat", insert=1, equal=1, delete=1),))
    assert database.dump() == before


def test_a_table_that_is_gone_comes_back_in_sqlite_and_is_explained_in_postgresql(database: Database) -> None:
    database.run(
        "CREATE TABLE word (id int PRIMARY KEY, w text)",
        "CREATE UNIQUE INDEX words ON word (w)",
        "INSERT INTO word VALUES (1, 'a')",
    )
    database.capture()
    before = database.dump()
    database.run("DROP TABLE word")

    if isinstance(database, PostgresDatabase):
        with pytest.raises(RestoreRefused, match="no table 'word' to restore into"):
            database.merge(MergeRequest(tables=("word",)))
        return
    database.merge(MergeRequest(tables=("word",)), dry=True)
    assert database.rows("SELECT count(*) FROM sqlite_master") == [(0,)]
    database.merge(MergeRequest(tables=("word",)))
    assert database.dump() == before


@pytest.mark.parametrize(
    "request_",
    [MergeRequest(rows=(("event", "1"),)), MergeRequest(tables=("event",), on_conflict=OnConflict.OVERWRITE)],
)
def test_rows_that_lost_their_reference_to_what_comes_back_are_counted(
    database: Database, request_: MergeRequest
) -> None:
    database.run(
        "CREATE TABLE event (id int PRIMARY KEY, title text)",
        "CREATE TABLE mail (id int PRIMARY KEY, event_id int REFERENCES event (id) ON DELETE SET NULL)",
        "CREATE TABLE task (id int PRIMARY KEY, event_id int REFERENCES event (id) ON DELETE SET NULL)",
        "CREATE TABLE photo (id int PRIMARY KEY, event_id int REFERENCES event (id) ON DELETE CASCADE)",
        "INSERT INTO event VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO mail VALUES (1, 1), (2, 1), (3, 1), (4, 2), (5, NULL), (6, 1)",
        "INSERT INTO task VALUES (1, 2), (2, 1)",
        "INSERT INTO photo VALUES (1, 1), (2, 2)",
    )
    database.capture()
    database.run(
        "DELETE FROM event WHERE id = 1",
        "UPDATE mail SET event_id = 2 WHERE id = 3",
        "DELETE FROM mail WHERE id = 2",
        "UPDATE mail SET event_id = NULL WHERE id = 4",  # its event was never away
        "UPDATE task SET event_id = 2",
    )
    before = database.rows("SELECT id, event_id FROM mail ORDER BY id")

    dry = database.merge(request_, dry=True)
    report = database.merge(request_)
    again = database.merge(request_, dry=True)

    lost = [
        "3 rows of mail referred (event_id) to rows of event that come back here, and no longer do; "
        "that is not put back.",
        "1 row of task referred (event_id) to rows of event that come back here, and no longer does; "
        "that is not put back.",
    ]
    assert sorted(dry.notes) == sorted(report.notes) == sorted(lost)
    assert again.notes == ()
    assert database.rows("SELECT id, event_id FROM mail ORDER BY id") == before


def test_a_table_that_is_nowhere_is_misspelt(database: Database) -> None:
    database.run("CREATE TABLE events (id int PRIMARY KEY)", "CREATE TABLE zebra (id int PRIMARY KEY)")
    database.capture()

    with pytest.raises(RestoreRefused) as refused:
        database.merge(MergeRequest(tables=("evnts",)))
    with pytest.raises(RestoreRefused, match="they have events, zebra"):
        database.merge(MergeRequest(tables=("q",)))

    assert str(refused.value) == (
        "Neither the snapshot nor the live database has a table 'evnts'; the nearest names are events. "
        "Nothing was touched."
    )
