"""A restore plan in words, and the strip of days."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from backup_admin.control.overview import Day
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.plans import DatabasePart, FilesPart, RestorePlan, TableEffect
from backup_admin.web.charts import strip, strips
from backup_admin.web.plan_view import PlanView, view_plan

FIRST = date(2026, 10, 25)


def plan(*tables: TableEffect, files: tuple[FilesPart, ...] = ()) -> PlanView:
    """View a plan with one database."""
    part = DatabasePart("gallery", "/srv/gallery.db", 10, True, tables)
    whole = RestorePlan(SnapshotId("s"), "digest", "repo", (part,), files)
    view = view_plan(json.dumps(whole.to_json()))
    assert isinstance(view, PlanView)
    return view


@pytest.mark.parametrize(
    ("now", "then", "same", "text", "level"),
    [
        (5, 5, True, "Stays as it is", ""),
        (5, 5, False, "Same number of rows, other content", "warn"),
        (6, 5, False, "1 row fewer", "warn"),
        (5, 1240, False, "1,235 rows more", "ok"),
        (-1, 5, False, "Comes back", "ok"),
        (5, -1, False, "Is not in the backup and goes away", "bad"),
    ],
)
def test_what_happens_to_a_table(now: int, then: int, same: bool, text: str, level: str) -> None:
    database = plan(TableEffect("photos", now, then, same)).databases[0]
    (table,) = database.same if same else database.tables

    assert (table.text, table.level) == (text, level)


def test_what_will_be_lost_is_said_in_rows_and_files() -> None:
    tree = FilesPart("photos", "/srv/photos", 5, 3, True, added=1, changed=2, removed=3, unchanged=9)

    losses = plan(TableEffect("orders", 412, 0, False), files=(tree,)).losses

    assert losses == (
        "gallery: 412 rows more in orders than in the backup",
        "photos: 3 files made since the backup",
        "photos: what changed in 2 files since the backup",
    )


def test_an_empty_table_made_since_is_lost_and_one_emptied_since_is_not() -> None:
    losses = plan(TableEffect("new", 0, -1, False), TableEffect("emptied", 0, 5, False)).losses

    assert losses == ("gallery: the table new with 0 rows",)


def test_when_nothing_differs_nothing_is_lost() -> None:
    assert plan(TableEffect("orders", 5, 5, True)).losses == ()


@pytest.mark.parametrize(
    ("databases", "folders", "said"),
    [
        (
            True,
            True,
            "No table has gained or changed anything that the backup does not hold. "
            "No file is new or differs in size or time.",
        ),
        (True, False, "No table has gained or changed anything that the backup does not hold."),
        (False, True, "No file is new or differs in size or time."),
    ],
)
def test_of_what_does_not_differ_no_more_is_said_than_was_looked_at(
    *, databases: bool, folders: bool, said: str
) -> None:
    part = DatabasePart("gallery", "/srv/gallery.db", 10, True, (TableEffect("orders", 5, 5, True),))
    tree = FilesPart("photos", "/srv/photos", 5, 3, True, added=0, changed=0, removed=0, unchanged=3)
    whole = RestorePlan(
        SnapshotId("s"), "digest", "repo", (part,) if databases else (), (tree,) if folders else ()
    )

    view = view_plan(json.dumps(whole.to_json()))

    assert isinstance(view, PlanView)
    assert (view.losses, view.unchanged) == ((), said)


def test_what_would_be_replaced_has_a_name() -> None:
    part = DatabasePart("gallery", "/srv/gallery.db", 10, True, ())
    tree = FilesPart("photos", "/srv/photos", 5, 3, True, added=0, changed=0, removed=0, unchanged=3)

    def places(databases: int, folders: int) -> str:
        return RestorePlan(SnapshotId("s"), "d", "r", (part,) * databases, (tree,) * folders).places

    assert places(1, 0) == "the database"
    assert places(0, 2) == "the folders"
    assert places(2, 1) == "the databases and the folder"


def test_what_stays_as_it_is_stands_apart() -> None:
    view = plan(TableEffect("a", 1, 1, True), TableEffect("b", 2, 1, False))

    database = view.databases[0]
    assert [table.name for table in database.tables] == ["b"]
    assert [table.name for table in database.same] == ["a"]


def test_each_day_is_told_by_shape_and_words() -> None:
    states = ["completed", "degraded", "failed", "skipped", "running", ""]
    days = [Day(FIRST + timedelta(days=at), state, 1, 0) for at, state in enumerate(states)]

    picture = str(strip(days, "x"))

    for words in ("Good", "Degraded", "Failed", "Skipped", "Running", "no run"):
        assert words in picture
    assert "1 day good, 2 with trouble, 1 without a run." in picture
    assert " style=" not in picture


def test_a_month_is_drawn_in_two_halves() -> None:
    days = [Day(FIRST + timedelta(days=at), "", 0, 0) for at in range(30)]

    assert str(strips(days)).count("<svg") == 2
