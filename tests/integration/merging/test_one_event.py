"""One event of a gallery comes back into the live database, with all that belongs to it and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError, RestoreRefused, UsageError
from backup_admin.sources.merging.merge_model import MergeRequest, OnConflict, TableMerge
from tests.services.small_gallery import table_hash

if TYPE_CHECKING:
    from tests.services.small_gallery import Database

pytestmark = pytest.mark.integration

OWNED = {
    "events": "id = 2",
    "photos": "event_id = 2",
    "photo_categories": "event_id = 2",
    "gallery_guests": "event_id = 2",
    "photo_feedback": "photo_id BETWEEN 200 AND 299",
}
NEW_PHOTO = (
    "INSERT INTO photos (event_id, filename, path, thumbnail_path, preview_path, size_bytes, width, height, "
    "visibility, is_favorite, exif, taken_at, uploaded_at) "
    "SELECT event_id, filename, 'new', thumbnail_path, preview_path, size_bytes, width, height, "
    "visibility, is_favorite, exif, taken_at, uploaded_at FROM photos WHERE id = 300"
)
ONE_EVENT = MergeRequest(rows=(("events", "2"),))


def lose_the_event(gallery: Database) -> dict[str, str]:
    """Delete it with all that belongs to it, and go on working with the rest; return how the rest is."""
    gallery.run(
        "DELETE FROM events WHERE id = 2",
        "UPDATE photos SET caption = 'changed since' WHERE event_id = 1",
        "UPDATE events SET title = 'changed since' WHERE id = 3",
        "INSERT INTO event_types (id, slug, name, emoji) VALUES (2, 'new', 'New', 'n')",
    )
    return others(gallery)


def others(gallery: Database) -> dict[str, str]:
    return {
        table: table_hash(gallery, table, f"NOT ({OWNED.get(table, 'FALSE')})")
        for table in (*OWNED, "customer_accounts", "event_types", "admin_users", "roles")
    }


def test_exactly_the_owned_rows_come_back(gallery: Database) -> None:
    before = {table: table_hash(gallery, table, where) for table, where in OWNED.items()}
    rest = lose_the_event(gallery)

    report = gallery.merge(ONE_EVENT)

    assert {table: table_hash(gallery, table, where) for table, where in OWNED.items()} == before
    assert others(gallery) == rest
    assert gallery.rows("SELECT hero_photo_id FROM events WHERE id = 2") == [(201,)]
    assert report.tables == (
        TableMerge("events", insert=1),
        TableMerge("gallery_guests", insert=1),
        TableMerge("photo_categories", insert=2),
        TableMerge("photo_feedback", insert=4),
        TableMerge("photos", insert=4),
    )
    assert (report.clashes, report.refusals) == ((), ())


def test_a_dry_run_says_the_same_and_changes_nothing(gallery: Database) -> None:
    lose_the_event(gallery)
    before = gallery.dump()

    dry = gallery.merge(ONE_EVENT, dry=True)

    assert gallery.dump() == before
    assert dry == gallery.merge(ONE_EVENT)
    assert gallery.dump() != before


def test_rows_that_are_made_afterwards_get_numbers_of_their_own(gallery: Database) -> None:
    lose_the_event(gallery)
    if gallery.engine == "postgresql":  # as after a restore of the whole database from long ago
        gallery.run("SELECT setval('photos_id_seq', 5)", "SELECT setval('events_id_seq', 1)")
    gallery.merge(ONE_EVENT)

    gallery.run(NEW_PHOTO)

    assert gallery.rows("SELECT count(*), max(id) FROM photos") == [(13, 304)]


def test_rows_that_changed_since_stay_unless_they_are_to_be_overwritten(gallery: Database) -> None:
    gallery.run(
        "UPDATE events SET title = 'changed since', hero_photo_id = 202 WHERE id = 2",
        "UPDATE photos SET caption = 'changed since' WHERE id = 203",
        "DELETE FROM photos WHERE id = 201",
    )

    skipped = gallery.merge(ONE_EVENT)

    assert gallery.rows("SELECT title, hero_photo_id FROM events WHERE id = 2") == [("changed since", 202)]
    assert gallery.rows("SELECT caption FROM photos WHERE id IN (201, 203) ORDER BY id") == [
        (None,),
        ("changed since",),
    ]
    by_name = {table.table: table for table in skipped.tables}
    assert by_name["events"] == TableMerge("events", skip=1)
    assert by_name["photos"] == TableMerge("photos", insert=1, skip=1, equal=2)

    overwritten = gallery.merge(replace(ONE_EVENT, on_conflict=OnConflict.OVERWRITE))

    assert gallery.rows("SELECT title, hero_photo_id FROM events WHERE id = 2") == [("Event 2 ü", 201)]
    assert gallery.rows("SELECT caption FROM photos WHERE id = 203") == [(None,)]
    by_name = {table.table: table for table in overwritten.tables}
    assert by_name["events"] == TableMerge("events", overwrite=1)
    assert by_name["photos"] == TableMerge("photos", overwrite=1, equal=3)


def test_parents_that_are_missing_come_along_and_those_that_are_there_stay(gallery: Database) -> None:
    everything = gallery.dump()
    gallery.run(
        "DELETE FROM events",
        "DELETE FROM customer_accounts WHERE id = 2",
        "DELETE FROM admin_users WHERE id > 1",
        "UPDATE admin_users SET email = 'changed since'",
        "UPDATE event_types SET name = 'changed since'",
    )
    before = others(gallery)

    report = gallery.merge(ONE_EVENT)

    by_name = {table.table: table for table in report.tables}
    assert by_name["customer_accounts"] == TableMerge("customer_accounts", parents=1)
    assert by_name["admin_users"] == TableMerge("admin_users", parents=2)  # who made it, and who made him
    assert "event_types" not in by_name
    assert table_hash(gallery, "event_types") == before["event_types"]
    assert gallery.rows("SELECT email FROM admin_users ORDER BY id") == [
        ("changed since",),
        ("u2@x",),
        ("u3@x",),
    ]
    assert gallery.rows("SELECT count(*) FROM events") == [(1,)]  # not what else those parents own
    assert gallery.dump() != everything


def test_a_live_row_with_the_same_unique_value_is_named_and_nothing_is_done(gallery: Database) -> None:
    gallery.run(
        "DELETE FROM events WHERE id = 2",
        "UPDATE events SET slug = 'event-2' WHERE id = 3",
        "UPDATE photos SET path = 'event-2/1.jpg' WHERE id = 300",
    )
    before = gallery.dump()

    report = gallery.merge(ONE_EVENT)

    assert report.is_refused
    assert {(clash.table, clash.row, clash.live_row) for clash in report.clashes} == {
        ("events", "2", "3"),
        ("photos", "201", "300"),
    }
    assert gallery.dump() == before


def test_what_cannot_be_meant_is_refused_with_its_reason(gallery: Database) -> None:
    before = gallery.dump()
    wrong: list[tuple[MergeRequest, type[BackupAdminError], str]] = [
        (MergeRequest(rows=(("events", "99"),)), RestoreRefused, "no row of events with the key '99'"),
        (
            MergeRequest(rows=(("event", "2"),)),
            RestoreRefused,
            "'event'; the nearest names are event",
        ),
        (MergeRequest(rows=(("role_permissions", "1"),)), UsageError, "2 columns"),
        (
            MergeRequest(tables=("events",), on_conflict=OnConflict.COPY),
            UsageError,
            "--rows",
        ),
        (replace(ONE_EVENT, on_conflict=OnConflict.REPLACE), UsageError, "--table"),
        (replace(ONE_EVENT, links=(("photos", "no"),)), UsageError, "no column 'no'"),
    ]

    for request, kind, words in wrong:
        with pytest.raises(kind, match=words):
            gallery.merge(request)

    assert gallery.dump() == before
