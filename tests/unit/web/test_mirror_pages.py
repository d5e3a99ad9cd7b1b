"""The page of the mirrors: what each storage came to, and a form that takes a second factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.records import BackupRun
from tests.unit.web import seeds
from tests.unit.web.forms import follow, get, post
from tests.unit.web.test_restore_pages import enrol

if TYPE_CHECKING:
    from tests.unit.web.host import Host


def test_before_the_first_backup_there_is_nothing_to_tell(ready: Host) -> None:
    page = get(ready.client(), "/settings/mirrors").text

    assert "The next backup shows here" in page
    assert "Enrol one first" in page


def test_a_mirror_is_added_with_a_code_and_filled_by_the_next_backup(ready: Host) -> None:
    client = ready.client()
    codes = enrol(client)
    place = ready.folder / "mirror"

    refused = post(client, "/settings/mirrors", mirrors=str(place), code="000000")
    unfit = post(client, "/settings/mirrors", mirrors="ftp://host/x", code=codes[0])
    saved = post(client, "/settings/mirrors", mirrors=f"{place}\n\n", code=codes[1])
    post(client, "/backups")
    ready.work()
    page = get(client, "/settings/mirrors").text

    assert (refused.status_code, unfit.status_code, saved.status_code) == (422, 422, 303)
    assert f"{place}</textarea>" in refused.text
    assert "The mirrors have not been changed" in unfit.text
    assert "Change the mirrors" in follow(client, saved).text
    assert page.count("Complete") == 2
    assert "3 copies, on 1 kind of storage, 0 of them elsewhere" in page
    assert (place / "config").is_file()


def test_a_storage_that_is_behind_is_named_with_its_reason(month: Host) -> None:
    with month.app.app_context():
        session, now = month.installation.database.session(), month.installation.clock.now()
        run = (
            session.query(BackupRun).filter(BackupRun.snapshot_id != "").order_by(BackupRun.id.desc()).first()
        )
        assert run is not None
        seeds.add_storages(session, run, now)
        session.commit()
        path = f"/backups/{run.id}"

    of_run, mirrors, dashboard = (
        get(month.client(), place).text for place in (path, "/settings/mirrors", "/")
    )

    for page in (of_run, mirrors):
        assert page.count("Complete") == 2
        assert "Behind" in page
        assert "connection timed out" in page
    assert "3 copies: 3-2-1 kept" in dashboard


def test_mirrors_of_the_deployment_are_shown_and_not_changed(ready: Host) -> None:
    object.__setattr__(ready.installation.settings, "mirrors", ("/mnt/usb",))

    page = get(ready.client(), "/settings/mirrors").text

    assert "BACKUP_ADMIN_MIRRORS decides" in page
    assert "<textarea" not in page
