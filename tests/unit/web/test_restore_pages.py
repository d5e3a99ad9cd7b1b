"""The restore wizard, step by step, without JavaScript, with a real restore behind it."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pyotp
import pytest

from backup_admin.records import BackupManifest, RestoreOperation, RestoreStatus
from tests.unit.web import seeds
from tests.unit.web.forms import follow, get, post, title
from tests.unit.web.host import APP_NAME, PREFIX, Host, work_for

if TYPE_CHECKING:
    from flask.testing import FlaskClient

_CODE = re.compile(r"<code>([A-Z2-7]{32})</code>")
_RECOVERY = re.compile(r"<li>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){3})</li>")
_DIGEST = re.compile(r'name="digest" value="([0-9a-f]{64})"')


@pytest.fixture
def backed_up(ready: Host) -> Host:
    """A host with one backup, and rows and files that are newer."""
    post(ready.client(), "/backups")
    ready.work()
    with closing(sqlite3.connect(ready.folder / "gallery.db")) as database, database:
        database.execute("DELETE FROM photos WHERE id > 300")
        database.execute("INSERT INTO guests (name) VALUES ('late')")
    (ready.folder / "photos/2026/IMG_0003.jpg").unlink()
    (ready.folder / "photos/2026/new.jpg").write_bytes(b"new")
    return ready


def photos(host: Host) -> int:
    """Count the rows of the app's table."""
    with closing(sqlite3.connect(host.folder / "gallery.db")) as database:
        return int(database.execute("SELECT count(*) FROM photos").fetchone()[0])


def operation_of(host: Host, path: str) -> RestoreOperation:
    """Return the row of a restore as it is now."""
    with host.installation.database.new_session() as session:
        found = session.get(RestoreOperation, path.rpartition("/")[2])
        assert found is not None
        return found


def lose_photos(host: Host) -> None:
    """Lose what the newest backup has."""
    with closing(sqlite3.connect(host.folder / "gallery.db")) as database, database:
        database.execute("DELETE FROM photos WHERE id > 200")


def add_tables(host: Host, number: int) -> None:
    """Let the app have more tables."""
    with closing(sqlite3.connect(host.folder / "gallery.db")) as database, database:
        for n in range(number):
            database.execute(f'CREATE TABLE "extra {n}" (id INTEGER PRIMARY KEY)')


def unfolded(page: str) -> str:
    """Return what is seen of a page before anything is unfolded."""
    return re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)


def enrol(client: FlaskClient) -> list[str]:
    """Enrol an authenticator and return the recovery codes."""
    shown = post(client, "/settings/security/factor").text
    found = _CODE.search(shown)
    assert found is not None
    done = post(client, "/settings/security/factor/confirm", code=pyotp.TOTP(found[1]).now())
    return _RECOVERY.findall(done.text)


def plan(client: FlaskClient, restore_type: str = "full", **parts: str) -> str:
    """Go to the review, and return the path of the restore."""
    page = get(client, "/restore").text
    snapshot = re.search(r'name="snapshot" value="([0-9a-z]{26})"', page)
    assert snapshot is not None
    path = (
        str(post(client, "/restore", snapshot=snapshot[1]).location).removeprefix(PREFIX).rpartition("/")[0]
    )
    post(client, f"{path}/type", restore_type=restore_type)
    answer = post(client, f"{path}/components", **parts)
    assert answer.status_code == 303, answer.text
    work_for(client.application)
    return path


def confirm(client: FlaskClient, path: str, code: str, /, **more: str) -> str:
    """Confirm what the review shows; return where it leads, or the page that refuses."""
    digest = _DIGEST.search(get(client, f"{path}/review").text)
    fields = {"digest": digest[1] if digest else "", "reason": "test", "app_name": APP_NAME, "code": code}
    answer = post(client, f"{path}/review", **{**fields, **more})
    return str(answer.location) if answer.status_code == 303 else answer.text


def test_the_whole_way_there_and_back(backed_up: Host) -> None:
    client = backed_up.client()
    codes = enrol(client)
    path = plan(client)

    review = get(client, f"{path}/review").text
    where = confirm(client, path, codes[0])
    waiting = client.get(where)
    backed_up.work()
    result = follow(client, client.get(where))
    rows_restored = photos(backed_up)
    ended = operation_of(backed_up, path).completed_at
    post(client, f"{path}/undo", code=codes[1], reason="wrong one")
    queued = operation_of(backed_up, path)
    backed_up.work()
    row = operation_of(backed_up, path)
    undone = get(client, f"{path}/verify")

    assert "40 rows more" in review
    assert "1 row more in guests than in the backup" in review
    assert "1 file made since the backup" in review
    assert title(waiting) == "Restore in progress"
    assert title(result) == "The restore is done and checked"
    assert result.text.count("As expected") >= 6
    assert rows_restored == 340
    assert (title(undone), photos(backed_up)) == ("The restore was undone", 300)
    assert "What was checked after the undo" in undone.text
    assert "Put back as it stood aside, without comparing it: folder photos." in undone.text
    checked = {check["topic"]: check["found"] for check in row.checks}
    assert checked == {
        "gallery: table events": "12 rows",
        "gallery: table guests": "58 rows",
        "gallery: table photos": "300 rows",
    }
    assert (row.completed_at, row.undone_at is not None) == (ended, True)
    assert queued.heartbeat_at is None


def test_what_stays_and_what_is_as_expected_is_folded_away_with_its_number(backed_up: Host) -> None:
    add_tables(backed_up, 24)
    client = backed_up.client()
    post(client, "/backups")
    backed_up.work()
    lose_photos(backed_up)
    codes = enrol(client)
    path = plan(client)

    review = get(client, f"{path}/review").text
    confirm(client, path, codes[0])
    backed_up.work()
    result = get(client, f"{path}/verify").text

    assert ">photos<" in unfolded(review)
    assert "extra" not in unfolded(review)
    assert re.search(r"<summary>2\d tables stay as they are</summary>", review)
    assert "checks are fine" in review
    assert "extra" not in unfolded(result)
    assert re.search(r"<summary>\d\d checks are as expected</summary>", result)
    assert result.count(">gallery: table extra") == 24


def test_a_check_that_failed_is_never_folded_away(backed_up: Host) -> None:
    add_tables(backed_up, 24)
    client = backed_up.client()
    post(client, "/backups")
    backed_up.work()
    codes = enrol(client)
    path = plan(client)
    confirm(client, path, codes[0])
    backed_up.work()
    with backed_up.app.app_context():
        session = backed_up.installation.database.session()
        row = session.get_one(RestoreOperation, path.rpartition("/")[2])
        row.checks = [{**check, "ok": "extra 7" not in check["topic"]} for check in row.checks]
        session.commit()

    result = unfolded(get(client, f"{path}/verify").text)

    assert "Differs" in result
    assert "extra 7" in result
    assert "extra 8" not in result


def test_without_a_second_factor_no_restore_starts(backed_up: Host) -> None:
    client = backed_up.client()
    path = plan(client)

    review = get(client, f"{path}/review").text
    confirm(client, path, "123456")

    assert "A restore needs your second factor" in review
    assert _DIGEST.search(review) is None
    assert backed_up.queue.waiting == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reason": " "}, "Say why"),
        ({"app_name": "gallery"}, "This is not the name of the app."),
        ({"code": "000000"}, "This code is not right"),
        ({"code": ""}, "Type the code"),
        ({"digest": "0" * 64}, "The plan has changed since you looked at it"),
    ],
)
def test_one_wrong_field_starts_nothing(backed_up: Host, wrong: dict[str, str], said: str) -> None:
    client = backed_up.client()
    codes = enrol(client)
    path = plan(client)

    page = confirm(client, path, codes[0], **wrong)

    assert said in page
    assert 'value="test"' in page or "reason" in wrong
    assert backed_up.queue.waiting == []


def test_a_code_works_once(backed_up: Host) -> None:
    client = backed_up.client()
    codes = enrol(client)
    confirm(client, plan(client), codes[0])
    backed_up.work()

    again = confirm(client, plan(client), codes[0])

    assert "This code is not right" in again


def test_an_address_that_is_not_allowed_is_told_so(backed_up: Host) -> None:
    client = backed_up.client()
    enrol(client)
    path = plan(client)
    backed_up.allow("10.0.0.0/8")

    review = get(client, f"{path}/review").text

    assert "Not from this address" in review
    assert "127.0.0.1 is not on the list" in review
    assert _DIGEST.search(review) is None


def test_only_chosen_parts_are_planned(backed_up: Host) -> None:
    client = backed_up.client()

    review = get(client, plan(client, "partial", files="photos") + "/review").text

    assert "Database gallery" not in review.split("What will change")[1]
    assert "Not touched although it is in the backup: database gallery." in review


def test_a_file_with_the_size_and_time_of_the_backup_is_not_said_to_be_the_same(backed_up: Host) -> None:
    client = backed_up.client()
    (backed_up.folder / "photos/2026/new.jpg").unlink()
    changed = backed_up.folder / "photos/2026/IMG_0001.jpg"
    before = changed.stat()
    changed.write_bytes(b"?" * before.st_size)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))

    review = get(client, plan(client, "files_only") + "/review").text

    assert "Nothing newer than the backup was found" in review
    assert "No file is new or differs in size or time." in review
    assert "Files are compared by size and time, not by their bytes." in review


@pytest.mark.parametrize(
    ("restore_type", "places"),
    [
        ("full", "the database and the folder"),
        ("database_only", "the database"),
        ("files_only", "the folder"),
    ],
)
def test_the_review_says_what_becomes_of_later_writes(
    backed_up: Host, restore_type: str, places: str
) -> None:
    client = backed_up.client()
    path = plan(client, restore_type)

    review = get(client, f"{path}/review").text

    planned = operation_of(backed_up, path).planned_at
    assert planned is not None
    assert f'This plan was made at <time datetime="{planned:%Y-%m-%dT%H:%M:%S}' in review
    assert f"What is written to {places} after that and before the restore is replaced too;" in review
    assert "the safety backup holds it, and an undo brings it back." in review


def test_what_a_restore_replaced_is_offered_last_and_never_ticked_by_itself(backed_up: Host) -> None:
    client = backed_up.client()
    path = plan(client, "database_only")
    confirm(client, path, enrol(client)[0])
    backed_up.work()
    with backed_up.app.app_context():
        session = backed_up.installation.database.session()
        kinds = {row.snapshot_id: row.kind for row in session.query(BackupManifest)}

    page = get(client, "/restore").text
    offers = re.findall(r'name="snapshot" value="([0-9a-z]{26})" required( checked)?', page)
    dashboard = get(client, "/").text
    safety = offers[-1][0]
    asked = get(client, f"/restore?chosen={safety}").text
    where = str(post(client, "/restore", snapshot=safety).location).removeprefix(PREFIX)
    chosen = get(client, where).text
    whole = where.rpartition("/")[0]
    post(client, f"{whole}/type", restore_type="full")
    post(client, f"{whole}/components")
    work_for(client.application)
    review = get(client, f"{whole}/review").text

    assert [(kinds[name], bool(ticked)) for name, ticked in offers] == [("manual", True), ("safety", False)]
    assert page.index("Safety backups") > page.index("Backups that can be restored")
    assert "1 database, no files" in page.split("Safety backups")[1]
    assert "Does not hold: folder photos" in page.split("Safety backups")[1]
    assert f'value="{safety}" required checked' in asked
    assert "1 backup of" in dashboard
    assert "and 1 safety backup" in dashboard
    assert "Not restored, whatever you choose: folder photos." in chosen
    assert "folder photos. This backup does not hold it; it stays as it is." in review


def test_a_partial_restore_of_nothing_is_refused(backed_up: Host) -> None:
    client = backed_up.client()
    path = plan(client)
    post(client, f"{path}/type", restore_type="partial")

    answer = post(client, f"{path}/components")

    assert answer.status_code == 422
    assert "Choose at least one part" in answer.text


def test_going_back_keeps_the_draft(backed_up: Host) -> None:
    client = backed_up.client()
    path = plan(client)

    assert "Go on with it" in get(client, "/restore").text
    assert follow(client, get(client, path)).status_code == 200
    assert title(get(client, f"{path}/components")) == "Which parts?"


def test_the_draft_of_another_person_is_not_found(backed_up: Host) -> None:
    path = plan(backed_up.client())

    assert get(backed_up.client("restorer"), f"{path}/review").status_code == 404


def test_looking_at_the_review_makes_no_plan(backed_up: Host) -> None:
    client = backed_up.client()
    path = plan(client)
    post(client, f"{path}/type", restore_type="files_only")

    before = get(client, f"{path}/review").text
    asked = post(client, f"{path}/plan")
    waiting = follow(client, asked).text
    work_for(client.application)
    after = follow(client, asked).text

    assert "There is no plan yet" in before
    assert "The plan is being made" in waiting
    assert "Waiting for a worker." in waiting
    assert "Can it be carried out?" in after


def test_a_waiting_restore_can_be_cancelled(backed_up: Host) -> None:
    client = backed_up.client()
    path = plan(client)
    confirm(client, path, enrol(client)[0])

    post(client, f"{path}/cancel")
    backed_up.work()

    assert title(get(client, f"{path}/verify")) == "The restore was cancelled"
    assert photos(backed_up) == 300


def test_there_is_nothing_to_restore_at_first(ready: Host) -> None:
    assert "There is no backup to restore" in get(ready.client(), "/restore").text


def test_a_point_in_time_leads_to_the_newest_backup_by_then(month: Host) -> None:
    client = month.client()
    now = month.installation.clock.now()
    with month.app.app_context():
        rows = [
            (row.created_at, row.snapshot_id)
            for row in month.installation.database.session().query(BackupManifest)
        ]
    moment = now - timedelta(days=5)
    _, wanted = max(row for row in rows if row[0] <= moment)

    page = get(client, f"/restore?at={moment:%Y-%m-%dT%H:%M:%SZ}").text
    ago = get(client, "/restore?at=5d").text

    for text in (page, ago):
        assert text.count('type="radio"') == 1
        assert f'value="{wanted}" required checked' in text
        assert "What changed in between is not in it" in text


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2999-01-01T00:00", "is still to come"),
        ("2001-01-01T00:00", "the first is"),
        ("soon", "is no point in time"),
    ],
)
def test_a_point_in_time_that_cannot_be_is_explained_beside_the_list(
    month: Host, at: str, words: str
) -> None:
    page = get(month.client(), f"/restore?at={at}").text

    assert words in page
    assert page.count('type="radio"') == 25


def test_a_damaged_backup_cannot_be_chosen(month: Host) -> None:
    with month.app.app_context():
        session = month.installation.database.session()
        session.query(BackupManifest).update({"problem": "2 chunks are gone"})
        session.commit()

    page = get(month.client(), "/restore").text

    assert "Damaged" in page
    assert page.count(" disabled>") == 25


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        (RestoreStatus.ROLLED_BACK, "The restore was taken back"),
        (RestoreStatus.NEEDS_ATTENTION, "A person has to look"),
        (RestoreStatus.FAILED, "The restore failed"),
        (RestoreStatus.INTERRUPTED, "The restore was interrupted"),
    ],
)
def test_each_end_of_a_restore_has_its_words(month: Host, status: RestoreStatus, headline: str) -> None:
    with month.app.app_context():
        session, now = month.installation.database.session(), month.installation.clock.now()
        operation = seeds.add_restore(session, now - timedelta(hours=1), status)
        session.commit()

    page = get(month.client(), f"/restore/{operation.id}/verify")

    assert title(page) == headline
    assert "Undo this restore" not in page.text


def test_a_wrong_code_does_not_enrol(ready: Host) -> None:
    client = ready.client()
    post(client, "/settings/security/factor")

    answer = post(client, "/settings/security/factor/confirm", code="\uff11\uff12\uff13\uff14\uff15\uff16")

    assert answer.status_code == 422
    assert "This code is not right" in answer.text
    assert "Show a new QR code" in answer.text


def test_another_authenticator_takes_a_code_of_the_present_one(ready: Host) -> None:
    client = ready.client()
    codes = enrol(client)

    refused = post(client, "/settings/security/factor", code="000000")
    begun = post(client, "/settings/security/factor", code=codes[0])

    assert (refused.status_code, begun.status_code) == (422, 200)
    assert 'aria-label="QR code for the authenticator app"' in begun.text


def test_the_secret_is_in_no_later_page(ready: Host) -> None:
    client = ready.client()
    shown = _CODE.search(post(client, "/settings/security/factor").text)
    assert shown is not None

    assert shown[1] not in get(client, "/settings/security").text
