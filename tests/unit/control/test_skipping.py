"""A scheduled run is skipped when nothing changed, and never hides that something is wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from backup_admin.control import overview, perform, runs, schedules, verdict
from backup_admin.control.liveness import ProcessRole, say_alive
from backup_admin.control.schedules import ScheduleForm
from backup_admin.control.verdict import Protection
from backup_admin.operations import known, look_for_changes
from backup_admin.operations.changes import OWN_TABLES
from backup_admin.records import BackupManifest, BackupRun, Base, ChangeTracking, RunStatus, Trigger
from tests.installations import ADMIN, Host, back_up, make_host, set_up

if TYPE_CHECKING:
    from pathlib import Path

_SETTLED = -(10**12)


@pytest.fixture
def nightly(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with a schedule and a good backup; times are trusted at once."""
    monkeypatch.setattr(known, "SETTLE_NS", _SETTLED)
    monkeypatch.setattr(look_for_changes, "SETTLE_NS", _SETTLED)
    with host.installation.database.new_session() as session:
        schedules.create_schedule(
            session, host.installation, ScheduleForm("often", "0 * * * *", "UTC"), ADMIN
        )
    back_up(host)
    return host


def plan(host: Host) -> None:
    with host.installation.database.new_session() as session:
        form = ScheduleForm("often", "0 * * * *", "UTC")
        schedules.create_schedule(session, host.installation, form, ADMIN)


def alive(host: Host) -> None:
    with host.installation.database.new_session() as session:
        for role in ProcessRole:
            say_alive(session, host.clock, role, "here:1")


def tick(host: Host, **ahead: float) -> BackupRun:
    """Let the schedule start a run some time later, and carry it out."""
    host.clock.advance(**(ahead or {"hours": 1}))
    with host.installation.database.new_session() as session:
        (run_id,) = schedules.tick(session, host.installation)
    perform.perform_backup(host.installation, run_id)
    with host.installation.database.new_session() as session:
        return runs.find_run(session, run_id)


def judge(host: Host) -> verdict.Verdict:
    with host.installation.database.new_session() as session:
        return verdict.judge(session, host.installation)


def change_a_row(host: Host) -> None:
    with closing(sqlite3.connect(host.database_file)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS more (id)")
        connection.execute("INSERT INTO more VALUES (1)")
        connection.commit()


def test_a_scheduled_run_is_skipped_with_its_reason_and_the_backup_it_rests_on(nightly: Host) -> None:
    with nightly.installation.database.new_session() as session:
        made = session.scalar(select(BackupManifest.snapshot_id))

    run = tick(nightly)

    assert (run.status, run.snapshot_id, run.unchanged_id) == (RunStatus.SKIPPED, "", made)
    assert run.reason.startswith(f"Nothing changed since snapshot {made}")
    assert (run.trigger, run.error_message, run.new_bytes) == (Trigger.SCHEDULED, "", 0)


def test_a_change_makes_a_backup_and_is_named(nightly: Host) -> None:
    change_a_row(nightly)

    run = tick(nightly)

    assert (run.status, run.reason) == (
        RunStatus.COMPLETED,
        "Database main: its schema or its version changed.",
    )


def test_what_a_person_asks_for_is_never_skipped(nightly: Host) -> None:
    nightly.clock.advance(minutes=5)
    assert back_up(nightly).status is RunStatus.COMPLETED


def test_after_a_day_a_backup_is_made_although_nothing_changed(nightly: Host) -> None:
    assert tick(nightly, hours=22).status is RunStatus.SKIPPED
    assert tick(nightly, hours=2).status is RunStatus.COMPLETED


def test_zero_hours_skip_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SETTLE_NS", _SETTLED)
    host = make_host(tmp_path, BACKUP_ADMIN_MAX_SKIP_HOURS=0)
    set_up(host)
    back_up(host)
    with host.installation.database.new_session() as session:
        schedules.create_schedule(
            session, host.installation, ScheduleForm("often", "0 * * * *", "UTC"), ADMIN
        )
    assert tick(host).status is RunStatus.COMPLETED


def test_ignored_tables_make_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path, BACKUP_ADMIN_CHANGE_IGNORE_TABLES=["main.more"])
    set_up(host)
    change_a_row(host)
    monkeypatch.setattr(known, "SETTLE_NS", _SETTLED)
    back_up(host)
    with host.installation.database.new_session() as session:
        schedules.create_schedule(
            session, host.installation, ScheduleForm("often", "0 * * * *", "UTC"), ADMIN
        )
    change_a_row(host)
    assert tick(host).status is RunStatus.SKIPPED


def test_skipped_runs_keep_the_app_protected_and_the_verdict_tells_both_times(nightly: Host) -> None:
    for _ in range(3):
        assert tick(nightly).status is RunStatus.SKIPPED
    nightly.clock.advance(minutes=30)
    alive(nightly)

    found = judge(nightly)

    assert found.state is Protection.PROTECTED, found
    assert found.sentence == (
        "Protected. Last good backup 3 h ago, what it added read back 3 h ago; "
        "nothing had changed 30 min ago."
    )


def test_without_those_runs_it_would_be_overdue(nightly: Host) -> None:
    for _ in range(3):
        tick(nightly)
    with nightly.installation.database.new_session() as session:
        session.execute(
            update(BackupRun).where(BackupRun.status == RunStatus.SKIPPED).values(unchanged_id="other")
        )
        session.commit()

    assert "overdue" in judge(nightly).sentence


def test_what_was_proven_falls_with_the_backup_it_rests_on(nightly: Host) -> None:
    tick(nightly)
    with nightly.installation.database.new_session() as session:
        session.execute(update(BackupManifest).values(problem="a chunk is gone"))
        session.commit()

    assert judge(nightly).state is Protection.NOT_PROTECTED
    run = tick(nightly)
    assert (run.status, run.reason) == (
        RunStatus.COMPLETED,
        "The newest snapshot was not read back and found good.",
    )


def test_after_a_run_that_failed_none_is_skipped(nightly: Host) -> None:
    away = nightly.uploads.with_name("away")
    nightly.uploads.rename(away)
    assert tick(nightly).status is RunStatus.FAILED
    away.rename(nightly.uploads)

    run = tick(nightly)

    assert (run.status, run.reason) == (RunStatus.COMPLETED, "The run before did not end well.")


def test_the_overview_tells_what_is_at_risk_since_the_last_look(nightly: Host) -> None:
    tick(nightly)
    run = tick(nightly)
    with nightly.installation.database.new_session() as session:
        page = overview.dashboard(session, now=nightly.clock.now(), zone="UTC")
        (first, *_) = overview.backups(session).rows

    assert page.unchanged_at == run.started_at
    assert page.newest_good is not None
    assert page.unchanged_at == page.newest_good + timedelta(hours=2)
    assert (page.good_runs, page.all_runs) == (1, 1)
    assert (first.line.status, first.line.reason, first.size) == ("skipped", run.reason, None)


def test_tables_are_tracked_with_rows_digest_and_times(nightly: Host) -> None:
    with nightly.installation.database.new_session() as session:
        before = {
            row.table_name: row.last_change_timestamp for row in session.scalars(select(ChangeTracking))
        }
    change_a_row(nightly)
    tick(nightly)
    with nightly.installation.database.new_session() as session:
        after = {row.table_name: row for row in session.scalars(select(ChangeTracking))}

    assert after["more"].row_count == 1
    assert after["more"].last_change_timestamp == after["more"].last_backed_up
    for name, when in before.items():
        assert after[name].last_change_timestamp == when
        assert after[name].last_backed_up == after["more"].last_backed_up


def test_every_table_of_the_control_database_is_known_as_ours() -> None:
    names = set(Base.metadata.tables)
    assert {name for name in names if not name.startswith("backup_admin_")} == OWN_TABLES
