"""One event of a gallery comes back into the live database, with all that belongs to it and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.sources.merging.merge_model import MergeRequest, TableMerge
from tests.services.small_gallery import (
    Database,
    PostgresDatabase,
    SqliteDatabase,
    fill,
    table_hash,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

OWNED = {
    "events": "id = 2",
    "photos": "event_id = 2",
    "photo_categories": "event_id = 2",
    "gallery_guests": "event_id = 2",
    "photo_feedback": "photo_id BETWEEN 200 AND 299",
}
ONE_EVENT = MergeRequest(rows=(("events", "2"),))


@pytest.fixture(params=["sqlite", "debian_postgres", "newest_postgres"])
def gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A filled gallery that was captured."""
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "app.db")
    else:
        server = request.getfixturevalue(request.param)
        database = PostgresDatabase(server, server.new_database())
    fill(database)
    database.capture()
    return database


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
