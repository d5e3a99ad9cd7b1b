"""Looking into a backup for the key of a row, in the third step of the wizard."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from backup_admin.operations import look_rows
from tests.unit.web.forms import get, post
from tests.unit.web.test_mistakes import mistakes
from tests.unit.web.test_rows_pages import begin, host, reviewed, rows, words

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from tests.unit.web.host import Host

__all__ = ["host"]


def look(client: FlaskClient, path: str, table: str, text: str = "", **more: str) -> TestResponse:
    """Press Search."""
    return post(client, f"{path}/rows/look", look_table=table, look_text=text, **more)


def test_a_deleted_row_is_found_by_its_name_and_taken(host: Host) -> None:
    client = host.client()
    path = begin(client)

    found = look(client, path, "0:events", "EVENTS 4", rows="guests:1", database="gallery")
    button = re.search(r'name="take" value="([^"]+)"', found.text)
    assert button is not None
    taken = look(client, path, "0:events", "EVENTS 4", rows="guests:1", take=button[1])
    review = reviewed(client, path, rows=button[1])

    assert "1 row found with “EVENTS 4”" in words(found)
    assert "12 rows looked at. That is the whole table." in words(found)
    assert button[1] == "events:5"
    assert ">guests:1</textarea>" in found.text
    assert ">guests:1\nevents:5</textarea>" in taken.text
    assert 'value="gallery" checked' in taken.text
    assert "Table New events 1" in words(review)
    assert rows(host, "SELECT * FROM events WHERE id = 5") == []


def test_every_look_is_in_the_audit_log_without_what_was_looked_for(host: Host) -> None:
    client = host.client()
    path = begin(client)
    look(client, path, "0:events", "a secret name")

    with host.app.app_context():
        entries = host.installation.audit().read_page(action="restore.look")

    assert [(one.actor, one.object) for one in entries] == [("id-admin", path.rpartition("/")[2])]
    assert entries[0].details["table"] == "events"
    assert "secret" not in str(entries)


def test_without_a_text_the_first_rows_are_shown(host: Host) -> None:
    client = host.client()

    found = look(client, begin(client), "0:photos")

    assert found.text.count('name="take"') == 20
    assert "These are the first 20; there may be more." in words(found)


@pytest.mark.parametrize("table", ["", "0:", "7:events", "0:sqlite_master", "0:nothing", "x:events"])
def test_a_table_that_is_not_there_is_said(host: Host, table: str) -> None:
    client = host.client()

    assert mistakes(look(client, begin(client), table)) == ["ba-look_table"]


def test_a_database_that_is_too_large_is_not_put_together(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_rows, "LARGEST_FILE", 1000)
    client = host.client()

    answer = look(client, begin(client), "0:events")

    assert "Export it on the server to look into it" in words(answer)
    assert mistakes(answer) == ["ba-look_table"]


def test_nothing_of_a_look_stays_in_the_state_folder(host: Host) -> None:
    client = host.client()
    look(client, begin(client), "0:events")

    assert list(host.installation.state.scratch.iterdir()) == []


def test_who_may_not_plan_a_restore_may_not_look(host: Host) -> None:
    path = begin(host.client())

    assert look(host.client("viewer"), path, "0:events").status_code == 403
    assert look(host.client("restorer"), path, "0:events").status_code == 404


def test_tables_of_sqlite_itself_are_not_offered(host: Host) -> None:
    rows(host, "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    rows(host, "INSERT INTO counted DEFAULT VALUES")
    client = host.client()
    post(client, "/backups")
    host.work()

    page = get(client, f"{begin(client)}/rows").text

    assert 'value="counted"' in page
    assert "sqlite_sequence" not in page


def test_unique_columns_that_a_copy_keeps_are_named_before_one_chooses(host: Host) -> None:
    client = host.client()
    path = begin(client)
    before = get(client, f"{path}/rows")
    rows(host, "CREATE TABLE albums (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, code TEXT, part TEXT)")
    rows(host, "CREATE UNIQUE INDEX both ON albums (code, part)")
    rows(host, "CREATE UNIQUE INDEX some ON albums (part) WHERE code IS NULL")
    rows(
        host,
        "CREATE TABLE pages (id INTEGER PRIMARY KEY, album INTEGER REFERENCES albums, number, "
        "UNIQUE (album, number))",
    )

    page = get(client, f"{path}/rows")

    assert "keeps a copy" not in words(before)
    assert "2 unique values keep a copy from standing beside its original in gallery" in words(page)
    assert sorted(re.findall(r"<dt>(\w+)</dt><dd><code>([^<]*)</code>", page.text)) == [
        ("albums", "code, part"),
        ("albums", "slug"),
    ]


def test_a_database_that_is_gone_keeps_nobody_from_the_wizard(host: Host) -> None:
    client = host.client()
    path = begin(client)
    (host.folder / "gallery.db").unlink()

    assert get(client, f"{path}/rows").status_code == 200
