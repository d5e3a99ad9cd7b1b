"""Tables and rows in the wizard, step by step, without JavaScript."""

from __future__ import annotations

import html
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.control.rows_ended import as_planned
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.linked_files import Link, LinkedFiles
from backup_admin.operations.rows_plan import RowsPlan, RowsSelection
from backup_admin.records import RestoreOperation, RestoreStatus
from backup_admin.sources.merging.merge_model import MergeReport, OnConflict, TableMerge
from backup_admin.web.rows_view import view_rows
from tests.unit.web.conftest import ADMIN
from tests.unit.web.forms import follow, get, post, title
from tests.unit.web.host import PREFIX, Host, create_host, work_for
from tests.unit.web.test_restore_pages import confirm, enrol

if TYPE_CHECKING:
    from pathlib import Path

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse


def rows(host: Host, query: str) -> list[tuple[Any, ...]]:
    """Ask the app's database, or change it."""
    with closing(sqlite3.connect(host.folder / "gallery.db", isolation_level=None)) as database:
        return database.execute(query).fetchall()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with two databases and one backup, that lost a row since."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    places = {"gallery": str(tmp_path / "gallery.db"), "shop": str(tmp_path / "shop.db")}
    made = create_host(tmp_path, BACKUP_ADMIN_DATABASES=places)
    made.set_up(ADMIN)
    post(made.client(), "/backups")
    made.work()
    rows(made, "DELETE FROM events WHERE id = 5")
    return made


def begin(client: FlaskClient) -> str:
    """Go to step 3 and return the path of the restore."""
    snapshot = re.search(r'name="snapshot" value="([0-9a-z]{26})"', get(client, "/restore").text)
    assert snapshot is not None
    where = str(post(client, "/restore", snapshot=snapshot[1]).location)
    path = where.removeprefix(PREFIX).rpartition("/")[0]
    step = follow(client, post(client, f"{path}/type", restore_type="rows"))
    assert str(step.location).endswith(f"{path}/rows")
    return path


def ask(client: FlaskClient, path: str, /, **fields: str) -> TestResponse:
    """Send step 3."""
    return post(client, f"{path}/rows", **{"database": "gallery", "on_conflict": "skip", **fields})


def reviewed(client: FlaskClient, path: str, /, **fields: str) -> TestResponse:
    """Send step 3, let the worker make the plan, and return what is shown then."""
    asked = ask(client, path, **fields)
    work_for(client.application)
    shown = follow(client, asked)
    return shown if shown.status_code == 200 else follow(client, shown)


def words(answer: TestResponse) -> str:
    """Return the text of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_the_whole_way_and_what_is_said_on_it(host: Host) -> None:
    client = host.client()
    codes = enrol(client)
    path = begin(client)

    step = get(client, f"{path}/rows")
    planning = follow(client, ask(client, path, rows="events:5"))
    host.work()
    review = get(client, f"{path}/review")
    where = confirm(client, path, codes[0])
    waiting = client.get(where)
    host.work()
    result = follow(client, client.get(where))

    assert title(step) == "Which tables or rows?"
    assert title(planning) == "The plan is being made"
    assert "events:5, in gallery, from the backup of" in words(planning)
    assert "events 12 rows" in words(step)
    assert "No live row is changed or deleted" in words(review)
    assert "Table New events 1" in words(review)
    assert "It can be undone for 24 hours: exactly these rows go back" in words(review)
    assert "The app goes on meanwhile" in words(review)
    assert "is replaced too" not in words(review)
    assert re.search(r"flask backup restore [0-9a-z]{26} --rows gallery\.events:5", review.text)
    assert "it can be cancelled until the rows are written" in words(waiting)
    assert title(result) == "The rows are restored"
    assert "events 1 new 1 new As planned" in words(result)
    assert "The undo below takes back exactly what this restore did." in words(result)
    assert "If somebody has changed one of them since, nothing is touched" in words(result)
    assert rows(host, "SELECT name FROM events WHERE id = 5") == [("events 4",)]


def test_the_undo_takes_the_rows_away_again(host: Host) -> None:
    client = host.client()
    codes = enrol(client)
    path = begin(client)
    reviewed(client, path, rows="events:5")
    confirm(client, path, codes[0])
    host.work()
    fields = {"reason": "it was wrong", "code": codes[1]}

    wrong = post(client, f"{path}/undo", reason="it was wrong", code="000000")
    rows(host, "UPDATE events SET name = 'since' WHERE id = 5")
    waiting = follow(client, post(client, f"{path}/undo", **fields))
    host.work()
    refused = get(client, f"{path}/verify")
    rows(host, "UPDATE events SET name = 'events 4' WHERE id = 5")
    post(client, f"{path}/undo", reason="it was wrong", code=codes[2])
    host.work()
    undone = get(client, f"{path}/verify")

    assert wrong.status_code == 422
    assert "Put the rows back as they were, in one transaction" in words(waiting)
    assert title(refused) == "The rows are restored"
    assert "these rows are no longer what it left: events 5. Nothing was changed." in words(refused)
    assert "Undo this restore" in refused.text
    assert title(undone) == "The restore was undone"
    assert "Undo this restore" not in undone.text
    assert "What had been done, and was taken back" in undone.text
    assert rows(host, "SELECT name FROM events WHERE id = 5") == []


def test_a_wrong_answer_comes_back_as_it_was_typed(host: Host) -> None:
    client = host.client()
    path = begin(client)

    answer = ask(
        client, path, **{"rows": "events", "tables-0": "guests", "on_conflict": "copy", "linked": "<b>=x"}
    )

    assert answer.status_code == 422
    assert answer.text.count('aria-invalid="true"') == 3
    assert answer.text.count(" autofocus") == 1
    assert 'role="alert"' in answer.text
    assert re.search(r'<textarea id="ba-rows"[^>]*aria-invalid="true">events</textarea>', answer.text)
    assert ">&lt;b&gt;=x</textarea>" in answer.text
    assert 'name="tables-0" value="guests" checked' in answer.text
    assert re.search(r'value="copy" checked id="ba-on_conflict" aria-invalid="true"', answer.text)
    for name in ("rows", "on_conflict", "linked"):
        assert f'href="#ba-{name}"' in answer.text
        assert f'id="ba-{name}-error"' in answer.text
    assert title(get(client, f"{path}/rows")) == "Which tables or rows?"
    assert ">events</textarea>" in get(client, f"{path}/rows").text


def test_what_the_database_refuses_is_said_on_the_form(host: Host) -> None:
    client = host.client()
    path = begin(client)

    answer = reviewed(client, path, rows="events:77")

    assert title(answer) == "Which tables or rows?"
    assert 'role="alert"' in answer.text
    assert "The snapshot has no row of events with the key '77'" in words(answer)
    assert ">events:77</textarea>" in answer.text


def test_of_several_databases_one_is_chosen(host: Host) -> None:
    client = host.client()
    path = begin(client)
    fields = {"rows": "", "tables-0": "events", "on_conflict": "replace"}

    nothing = post(client, f"{path}/rows", **fields)
    other = post(client, f"{path}/rows", **fields, database="shop")
    right = post(client, f"{path}/rows", **fields, database="gallery")

    assert "Choose one of the databases." in words(nothing)
    assert "Tick a table, or name a row above." in words(other)
    assert right.status_code == 303


def test_losses_are_said_before_and_a_blocked_plan_has_no_form(host: Host) -> None:
    client = host.client()
    enrol(client)
    path = begin(client)
    rows(host, "INSERT INTO guests (name) VALUES ('late')")

    losing = reviewed(client, path, **{"rows": "", "tables-0": "guests", "on_conflict": "replace"})
    same = reviewed(client, path, rows="photos:1")

    assert "This is live now and will be gone guests: 1 row that the backup does not have" in words(losing)
    assert 'name="digest"' in losing.text
    assert "All of it is live already; there is nothing to restore." in words(same)
    assert 'name="digest"' not in same.text
    assert "Choose other tables or rows" in same.text


def test_checking_again_says_what_is_in_the_way(host: Host) -> None:
    client = host.client()
    path = begin(client)
    reviewed(client, path, rows="events:5")
    rows(host, "DROP TABLE events")
    rows(host, "CREATE TABLE events (name TEXT)")

    asked = post(client, f"{path}/plan")
    host.work()
    answer = follow(client, follow(client, asked))

    assert title(answer) == "Which tables or rows?"
    assert "has no primary key" in words(answer)


def test_the_fragment_of_the_plan_ends_itself_and_leads_on(host: Host) -> None:
    client = host.client()
    path = begin(client)
    ask(client, path, rows="events:5")

    waiting = client.get(f"{PREFIX}{path}/planning", headers={"HX-Request": "true"})
    host.work()
    done = client.get(f"{PREFIX}{path}/planning", headers={"HX-Request": "true"})

    ask(client, path, rows="events:77")
    host.work()
    wrong = client.get(f"{PREFIX}{path}/planning", headers={"HX-Request": "true"})
    page = get(client, path)
    while page.status_code == 302:
        page = client.get(str(page.location))

    assert "HX-Redirect" not in waiting.headers
    assert wrong.headers["HX-Redirect"] == f"{PREFIX}{path}"
    assert "The snapshot has no row of events with the key '77'" in words(page)
    assert f'hx-get="{PREFIX}{path}/planning"' in waiting.text
    assert "Do all of it in one transaction" in words(waiting)
    assert done.headers["HX-Redirect"] == f"{PREFIX}{path}"
    assert "hx-get" not in done.text


def test_what_is_chosen_while_the_plan_is_made_counts(host: Host) -> None:
    client = host.client()
    path = begin(client)
    rows(host, "DELETE FROM events WHERE id = 6")
    ask(client, path, rows="events:5")
    ask(client, path, rows="events:6")
    host.work()

    review = get(client, f"{path}/review")

    assert "--rows gallery.events:6" in review.text
    ask(client, path, rows="events:5")
    post(client, f"{path}/type", restore_type="files_only")
    host.work()
    assert "There is no plan yet" in get(client, f"{path}/review").text


def test_a_queue_that_is_away_is_said_on_the_form(host: Host) -> None:
    client = host.client()
    path = begin(client)
    host.queue.broken = True

    answer = ask(client, path, rows="events:5")

    assert answer.status_code == 422
    assert "queue" in words(answer)
    host.queue.broken = False
    assert title(reviewed(client, path, rows="events:5")) == "Review and confirm"


def test_the_step_of_parts_leads_to_rows_and_back(host: Host) -> None:
    client = host.client()
    path = begin(client)
    assert str(get(client, f"{path}/components").location).endswith("/rows")
    post(client, f"{path}/type", restore_type="partial")
    assert str(get(client, f"{path}/rows").location).endswith("/components")
    assert post(client, f"{path}/rows", rows="events:5").status_code == 400


def test_only_who_prepares_it_sees_the_draft(host: Host) -> None:
    path = begin(host.client())

    assert get(host.client("restorer"), f"{path}/rows").status_code == 404
    assert get(host.client("viewer"), f"{path}/rows").status_code == 403
    assert ask(host.client("restorer"), path, rows="events:5").status_code == 404


def test_an_interrupted_one_says_who_finds_out_how_it_ended(host: Host) -> None:
    client = host.client()
    path = begin(client)
    with host.app.app_context():
        session = host.installation.database.session()
        operation = session.get(RestoreOperation, path.rpartition("/")[2])
        assert operation is not None
        operation.status, operation.selection = (
            RestoreStatus.INTERRUPTED,
            {"database": "gallery", "rows": "events:5"},
        )
        session.commit()

    page = get(client, f"{path}/verify")

    assert title(page) == "The restore was interrupted"
    assert "Whether the rows are there is found out by the worker." in words(page)
    assert "Asked for events:5, in gallery" in words(page)


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ({}, ""),
        ({"events": False}, ""),
        ({"events": True}, "1 table is as planned"),
        ({"events": True, "photos": True, "guests": False}, "2 tables are as planned"),
        ({"Files of photos.path": True}, "1 column of files is as planned"),
        (
            {"events": True, "Files of photos.path": True, "Files of photos.thumb": True},
            "1 table and 2 columns of files are as planned",
        ),
    ],
)
def test_tables_and_columns_of_files_are_counted_apart(topics: dict[str, bool], said: str) -> None:
    assert as_planned([{"topic": topic, "ok": ok} for topic, ok in topics.items()]) == said


def test_a_plan_in_words() -> None:
    report = MergeReport((TableMerge("a", equal=2), TableMerge("b", insert=1, overwrite=3)))
    asked = RowsSelection(
        "shop", ("a",), (("b:c", "x y"),), OnConflict.OVERWRITE, (Link("b", "path", "up", "sub"),)
    )
    view = view_rows(
        RowsPlan(SnapshotId("s"), "m", "r", "/srv/a.db", asked, report, (LinkedFiles("l", present=1),))
    )

    assert view.tables.headings == ("New", "Overwritten")
    assert [(name, [(cell.number, cell.level) for cell in cells]) for name, cells in view.tables.lines] == [
        ("b", [(1, "ok"), (3, "warn")]),
    ]
    assert [(name, [cell.number for cell in cells]) for name, cells in view.same.lines] == [("a", [2])]
    assert view.files.headings == ("There already",)
    assert view.losses == ("b: what 3 rows became since the backup",)
    assert view.command == (
        "flask backup restore s --table shop.a --rows 'shop.\"b:c\":x y' "
        "--on-conflict overwrite --linked shop.b.path=up/sub"
    )
