"""Each page in each of its states: empty, running, failed, done."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from backup_admin.access.permissions import Actor
from backup_admin.records import BackupRun, RunKind, RunStatus
from backup_admin.web.headers import POLICY
from tests.unit.web import seeds
from tests.unit.web.forms import follow, get, post, title
from tests.unit.web.host import PREFIX, Host


def add_running(host: Host, **more: object) -> str:
    """Add a backup that is under way, and return its id."""
    with host.app.app_context():
        session = host.installation.database.session()
        run = seeds.add_running(session, host.installation.clock.now(), **more)
        session.commit()
        return run.id


def run_with(host: Host, status: RunStatus, kind: RunKind = RunKind.BACKUP) -> str:
    """Return the id of a seeded run."""
    with host.app.app_context():
        wanted = select(BackupRun.id).where(BackupRun.status == status, BackupRun.kind == kind)
        found = host.installation.database.session().scalar(wanted.order_by(BackupRun.id).limit(1))
    assert found is not None
    return found


def back_up(host: Host) -> str:
    """Make a real backup from the page, and return the path of its page."""
    answer = post(host.client(), "/backups")
    host.work()
    return str(answer.location).removeprefix(PREFIX)


def test_an_empty_dashboard_leads_to_the_setup(host: Host) -> None:
    page = get(host.client())

    assert title(page) == "Dashboard"
    assert "Nothing is protected yet" in page.text
    assert f'href="{PREFIX}/setup"' in page.text
    assert "Back up now" not in page.text


def test_the_dashboard_says_what_is_at_risk_and_what_comes_next(month: Host) -> None:
    page = get(month.client()).text

    for fact in ("Data at risk now", "Time to restore", "Next backup", "Stored", "Recent operations"):
        assert fact in page
    assert page.count('<svg class="ba-strip"') == 2
    # Before half past two this night's backup is still to come.
    assert "26 of 30 runs good" in page or "25 of 29 runs good" in page


def test_a_viewer_sees_no_button_that_would_refuse(month: Host) -> None:
    page = get(month.client("viewer")).text

    assert "Back up now" not in page
    assert "Restore a backup" not in page
    assert ">Audit<" not in page


def test_what_runs_is_shown_on_every_page_and_asks_again(ready: Host) -> None:
    run_id = add_running(ready)

    page = get(ready.client(), "/audit").text

    assert f'id="ba-running-{run_id}"' in page
    assert 'hx-trigger="every 5s"' in page


def test_the_line_about_what_runs_ends_itself(ready: Host) -> None:
    fragment = get(ready.client(), "/running").text

    assert "hx-get" not in fragment
    assert "<html" not in fragment


def test_backups_can_be_filtered_by_their_result(month: Host) -> None:
    page = get(month.client(), "/backups?status=failed").text

    assert page.count("<tr>") == 2  # the head and the one that failed
    assert "Clear filter" in page


def test_no_backup_of_a_result_says_how_to_go_on(month: Host) -> None:
    assert "No backups match" in get(month.client(), "/backups?status=queued").text


def test_an_unknown_filter_is_none(month: Host) -> None:
    assert get(month.client(), "/backups?status=<script>").status_code == 200


def test_older_backups_are_one_link_away(month: Host) -> None:
    client = month.client()
    first = get(client, "/backups").text
    older = [part.split('"')[0] for part in first.split('href="') if "before=" in part.split('"')[0]]
    second = client.get(older[0].replace("&amp;", "&")).text

    assert "Older" in first
    assert "Older" not in second
    assert second.count("<tr>") == 1 + 5


def test_a_real_backup_is_shown_with_what_was_read_back(ready: Host) -> None:
    page = get(ready.client(), back_up(ready)).text

    assert "Read back from the storage" in page
    assert "what this backup added, and it was as written." in page
    assert "Objects read" in page
    for table, rows in (("events", 12), ("photos", 340), ("guests", 57)):
        assert f'<th scope="row">{table}</th><td data-label="Rows" class="ba-right">{rows}</td>' in page
    assert "Restore this" in page
    assert "hx-get" not in page


def test_the_manifest_is_a_json_file(ready: Host) -> None:
    path = back_up(ready)

    answer = get(ready.client(), f"{path}/manifest.json")

    assert answer.mimetype == "application/json"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="manifest-')
    assert json.loads(answer.text)["files"]["count"] == 12


def test_a_verification_reads_the_backup_again(ready: Host) -> None:
    path, client = back_up(ready), ready.client()

    answer = post(client, f"{path}/verify")
    ready.work()

    assert "Every byte is there and as it was written" in follow(client, answer).text
    page = get(client, path).text
    assert "Later verifications" in page
    assert "all of it, and it was as written." in page
    assert "Objects read" not in page


def test_a_second_backup_leads_to_the_one_under_way(ready: Host) -> None:
    run_id, client = add_running(ready), ready.client()

    answer = post(client, "/backups")

    assert answer.location == f"{PREFIX}/backups/{run_id}"
    assert "is under way already" in follow(client, answer).text


def test_a_running_backup_shows_its_progress_and_can_be_cancelled(ready: Host) -> None:
    run_id, client = add_running(ready), ready.client()

    page = get(client, f"/backups/{run_id}").text
    post(client, f"/backups/{run_id}/cancel")

    assert 'max="100" value="41"' in page
    assert f'hx-get="{PREFIX}/backups/{run_id}/progress"' in page
    assert 'hx-trigger="every 2s"' in page
    assert "Refresh" in page
    assert "Stopping at the next safe place" in get(client, f"/backups/{run_id}").text
    assert "Cancel the backup" not in get(client, f"/backups/{run_id}").text


def test_a_silent_worker_is_named(ready: Host) -> None:
    now = ready.installation.clock.now()
    run_id = add_running(ready, heartbeat_at=now - timedelta(minutes=5))

    assert "The worker has been silent since" in get(ready.client(), f"/backups/{run_id}").text


def test_the_last_fragment_brings_the_whole_page(month: Host) -> None:
    path = f"{PREFIX}/backups/{run_with(month, RunStatus.COMPLETED)}/progress"

    answer = month.client().get(path, headers={"HX-Request": "true"})

    assert answer.headers["HX-Refresh"] == "true"
    assert "hx-get" not in answer.text


def test_a_failed_backup_says_what_was_not_touched(month: Host) -> None:
    page = get(month.client(), f"/backups/{run_with(month, RunStatus.FAILED)}").text

    assert "This backup did not succeed" in page
    assert "Earlier backups are untouched" in page
    assert "Restore this" not in page


def test_a_degraded_backup_lists_what_is_missing(month: Host) -> None:
    page = get(month.client(), f"/backups/{run_with(month, RunStatus.DEGRADED)}").text

    assert "Not everything is in this backup" in page
    assert "photos/2026/IMG_0007.jpg: Permission denied" in page


def test_a_backup_whose_storage_is_gone_is_still_shown(month: Host) -> None:
    page = get(month.client(), f"/backups/{run_with(month, RunStatus.COMPLETED)}")

    assert page.status_code == 200
    assert "The content cannot be listed now" in page.text


def test_the_setup_shows_the_recovery_key_once_and_asks_for_two_groups(host: Host) -> None:
    client = host.client()

    made = post(client, "/setup/repository").text
    again = get(client, "/setup").text
    groups = [part.split("</li>")[0] for part in made.split('<ol class="ba-key">')[1].split("<li>")[1:]]
    asked = [int(part.split('"')[0]) for part in again.split('name="group')[1:]]
    answer = post(client, "/setup/confirm", **{f"group{number}": groups[number - 1] for number in asked})

    assert len(groups) == 8
    assert len(asked) == 2
    assert groups[0] not in again
    assert title(follow(client, answer)) == "Make the first backup"


def test_wrong_groups_are_refused(host: Host) -> None:
    client = host.client()
    post(client, "/setup/repository")

    answer = post(client, "/setup/confirm", group1="AAAA", group2="BBBB")

    assert answer.status_code == 422
    assert "That did not work" in answer.text


def test_the_setup_ends_with_what_comes_next(ready: Host) -> None:
    back_up(ready)

    page = get(ready.client(), "/setup")

    assert title(page) == "Backups are set up"
    assert "Set a schedule" in page.text


def test_excludes_are_saved_and_audited(ready: Host) -> None:
    client = ready.client()

    answer = post(client, "/settings/sources", name="photos", excludes="*.tmp\n\n cache/ \n")

    assert "*.tmp\ncache/" in follow(client, answer).text
    assert "settings.exclude" in get(client, "/audit").text


def test_excludes_of_an_unknown_folder_are_refused(ready: Host) -> None:
    assert post(ready.client(), "/settings/sources", name="other", excludes="*").status_code == 422


def test_a_schedule_says_what_it_costs_and_what_can_be_lost(month: Host) -> None:
    client = month.client()
    form = {"name": "Often", "cron": "*/5 * * * *", "timezone": "UTC", "enabled": "on", "kind": "backup"}

    page = follow(client, post(client, "/settings/schedule/new", **form)).text

    assert "288 backups, running for" in page
    assert "From the last 10 runs" in page
    assert "up to 5 min" in page or "More often than a backup ends" in page


def test_a_schedule_is_made_changed_and_removed(ready: Host) -> None:
    client = ready.client()
    form = {"name": "Nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "enabled": "on"}

    made = follow(client, post(client, "/settings/schedule/new", **form)).text
    changed = post(client, "/settings/schedule/1", **{**form, "cron": "0 4 * * *", "version": "1"})
    after = follow(client, changed).text
    removed = follow(client, post(client, "/settings/schedule/1/delete")).text

    assert made.count("<time") >= 5
    assert "<code>0 4 * * *</code>" in after
    assert "No schedule yet" in removed


@pytest.mark.parametrize(
    ("field", "value"), [("cron", "every day"), ("timezone", "Europe/Atlantis"), ("name", "")]
)
def test_a_wrong_schedule_is_explained_and_what_was_typed_stays(ready: Host, field: str, value: str) -> None:
    form = {"name": "Nightly", "cron": "30 2 * * *", "timezone": "UTC", field: value}

    answer = post(ready.client(), "/settings/schedule/new", **form)

    assert answer.status_code == 422
    assert "The schedule has not been saved" in answer.text
    assert f'value="{value}"' in answer.text


def test_a_schedule_somebody_else_changed_is_not_overwritten(month: Host) -> None:
    form = {"name": "Mine", "cron": "0 5 * * *", "timezone": "UTC", "version": "77"}

    answer = post(month.client(), "/settings/schedule/1", **form)

    assert answer.status_code == 422
    assert "look at it again" in answer.text


def test_an_unknown_schedule_is_not_found(ready: Host) -> None:
    assert get(ready.client(), "/settings/schedule/99").status_code == 404


def test_the_audit_log_can_be_filtered(ready: Host) -> None:
    page = get(ready.client(), "/audit?action=repository.&actor=adm&outcome=done").text

    assert "repository.make" in page
    assert "recovery_key.confirm" not in page.split("<tbody>")[1]


def test_the_audit_log_shortens_the_digest_of_a_plan(ready: Host) -> None:
    digest = "0123456789abcdef" * 4
    ready.installation.audit().append(
        Actor("admin", "Admin"), "restore.start", details={"plan": digest, "snapshot": "s" * 26}
    )

    page = get(ready.client(), "/audit").text

    assert f'plan: <span title="{digest}">0123456789ab</span>' in page
    assert page.count(digest) == 1
    assert f"snapshot: {'s' * 26}" in page


def test_a_changed_audit_log_is_named(ready: Host) -> None:
    path = ready.installation.settings.state_dir / "audit.jsonl"
    path.write_text(path.read_text().replace("repository.make", "repository.fake"))

    assert "The log is not as it was written" in get(ready.client(), "/audit").text


def test_the_theme_is_a_cookie_and_leads_back_to_this_site_only(ready: Host) -> None:
    client = ready.client()

    answer = post(client, "/theme", theme="dark", next="//evil.example")

    assert answer.location == f"{PREFIX}/"
    assert 'data-theme="dark"' in get(client).text


def test_an_unknown_theme_is_refused(ready: Host) -> None:
    assert post(ready.client(), "/theme", theme="pink").status_code == 400


def test_our_pages_carry_our_headers_and_the_hosts_do_not(ready: Host) -> None:
    ours, theirs = get(ready.client()), ready.client().get("/")

    assert ours.headers["Content-Security-Policy"] == POLICY
    assert ours.headers["Cache-Control"] == "no-store"
    assert ours.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("Content-Security-Policy", "Cache-Control", "X-Frame-Options"):
        assert name not in theirs.headers


def test_pages_hold_nothing_inline(month: Host) -> None:
    for path in ("/", "/backups", "/settings/security", "/restore"):
        page = get(month.client(), path).text
        assert " style=" not in page
        assert "<style" not in page
        assert "hx-on" not in page
        assert "<script>" not in page


def test_a_link_boosted_by_the_host_is_loaded_as_a_page(ready: Host) -> None:
    headers = {"HX-Request": "true", "HX-Boosted": "true", "HX-Current-URL": "http://localhost/"}

    answer = ready.client().get(f"{PREFIX}/backups?status=failed", headers=headers)

    assert answer.headers["HX-Redirect"] == f"{PREFIX}/backups?status=failed"
    assert answer.text == ""


def test_names_from_outside_are_escaped(ready: Host) -> None:
    run_id = add_running(ready, label="<img src=x>", current="a<b>\u202ec", actor_name="<i>me</i>")

    page = get(ready.client(), f"/backups/{run_id}").text

    assert "<img src=x>" not in page
    assert "a<b>" not in page
    assert "<i>me" not in page


def test_an_unforeseen_error_shows_an_id_and_no_trace(ready: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_about: object, **_more: object) -> None:
        raise RuntimeError("the password is tiger")

    monkeypatch.setattr("backup_admin.control.overview.dashboard", fail)

    page = get(ready.client())

    assert page.status_code == 500
    assert "tiger" not in page.text
    assert "Traceback" not in page.text
    assert "What was not touched" in page.text


def test_pages_work_although_a_context_processor_of_the_host_fails(ready: Host) -> None:
    def fail() -> dict[str, object]:
        raise RuntimeError("the database of the host is being restored")

    ready.app.context_processor(fail)

    assert get(ready.client()).status_code == 200


def test_read_only_shows_everything_and_changes_nothing(month: Host) -> None:
    month.read_only()
    client = month.client()

    assert "Back up now" not in get(client).text
    assert post(client, "/backups").status_code == 503


def test_a_fragment_for_nobody_lets_the_page_lead_to_the_sign_in(ready: Host) -> None:
    answer = ready.client(person=None).get(f"{PREFIX}/running", headers={"HX-Request": "true"})

    assert (answer.status_code, answer.headers["HX-Refresh"], answer.text) == (200, "true", "")


def test_a_refused_fragment_leaves_the_words_to_its_page(ready: Host) -> None:
    path = f"{PREFIX}/backups/nothing/progress"

    answer = ready.client().get(path, headers={"HX-Request": "true"})

    assert (answer.status_code, answer.headers["HX-Refresh"]) == (404, "true")


def test_a_skipped_run_shows_its_reason_and_the_backup_that_holds_everything(month: Host) -> None:
    made = run_with(month, RunStatus.COMPLETED)
    with month.app.app_context():
        session = month.installation.database.session()
        kept = session.get(BackupRun, made)
        assert kept is not None
        more = {"reason": "Nothing changed since yesterday.", "unchanged_id": kept.snapshot_id}
        now = month.installation.clock.now()
        run_id = seeds.add_run(session, now, RunStatus.SKIPPED, snapshot_id="", error_message="", **more).id
        session.commit()

    page = get(month.client(), f"/backups/{run_id}").text

    assert "Nothing changed since yesterday." in page
    assert f'href="{PREFIX}/backups/{made}"' in page
    assert "did not succeed" not in page
    assert "Nothing changed since yesterday." in get(month.client(), "/backups?status=skipped").text
