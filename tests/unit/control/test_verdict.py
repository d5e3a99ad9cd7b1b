"""The verdict: protected only by what was read back, at risk with the reason."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, update

from backup_admin.control import perform, runs, schedules, verdict
from backup_admin.control.liveness import ProcessRole, say_alive, say_gone
from backup_admin.control.runs import NewRun
from backup_admin.control.schedules import ScheduleForm
from backup_admin.control.verdict import Protection
from backup_admin.records import BackupManifest, RestoreOperation, RestoreStatus, RunKind, RunStatus
from tests.installations import ADMIN, START, Host, back_up, make_host, set_up
from tests.unit.web import seeds

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from backup_admin.control.verdict import Verdict


def judge(host: Host) -> Verdict:
    with host.installation.database.new_session() as session:
        return verdict.judge(session, host.installation)


def alive(host: Host) -> None:
    with host.installation.database.new_session() as session:
        for role in ProcessRole:
            say_alive(session, host.clock, role, "here:1")


@pytest.fixture
def protected(host: Host) -> Host:
    """A host with a nightly schedule, a worker, and a good backup of this moment."""
    with host.installation.database.new_session() as session:
        form = ScheduleForm("nightly", "0 2 * * *", "UTC")
        schedules.create_schedule(session, host.installation, form, ADMIN)
    back_up(host)
    alive(host)
    return host


def later(host: Host, **parts: float) -> None:
    host.clock.advance(**parts)
    alive(host)


def test_a_backup_of_a_database_without_tables_puts_at_risk(host: Host) -> None:
    host.database_file.unlink()
    with closing(sqlite3.connect(host.database_file)) as connection:
        connection.execute("PRAGMA user_version = 3")
    back_up(host)
    alive(host)

    found = judge(host)

    assert found.state is Protection.AT_RISK
    assert found.sentence.startswith("At risk: main has no tables: is this the right database?")


def test_protected_says_when_and_when_verified(protected: Host) -> None:
    later(protected, hours=3)
    found = judge(protected)
    assert found.state is Protection.PROTECTED
    assert found.sentence == "Protected. Last good backup 3 h ago, what it added read back 3 h ago."
    assert "bytes of it were read back" in found.details[1]


def test_what_a_verification_read_is_told_from_what_a_backup_added(protected: Host) -> None:
    later(protected, hours=1)
    with protected.installation.database.new_session() as session:
        run = runs.create_run(session, protected.installation, NewRun(RunKind.VERIFY), ADMIN)
    perform.perform_verify(protected.installation, run.id)
    read = judge(protected)
    later(protected, hours=1)
    back_up(protected)

    assert read.sentence == "Protected. Last good backup 1 h ago, all of it read back just now."
    assert judge(protected).sentence.endswith("Last good backup just now, what it added read back just now.")


def test_without_key_nothing_is_protected(tmp_path: Path) -> None:
    found = judge(make_host(tmp_path, BACKUP_ADMIN_KEY=None))
    assert found.state is Protection.NOT_PROTECTED
    assert "no application key" in found.sentence


def test_without_sources_nothing_is_protected(tmp_path: Path) -> None:
    found = judge(make_host(tmp_path, BACKUP_ADMIN_DATABASES=None, BACKUP_ADMIN_FILES=None))
    assert "nothing is named to protect" in found.sentence


def test_each_step_of_the_set_up_is_asked_for(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    assert "no storage is set" in judge(host).sentence
    set_up(host)
    found = judge(host)
    assert found.state is Protection.NOT_PROTECTED
    assert found.sentence == "Not protected: there is no backup yet that was read back and found good."


def test_a_backup_that_was_not_read_back_protects_nothing(protected: Host, session: Session) -> None:
    session.execute(update(BackupManifest).values(verified_at=None))
    session.commit()
    assert judge(protected).state is Protection.NOT_PROTECTED


@pytest.mark.parametrize(
    "change", [{"present": False}, {"problem": "pack x is damaged"}, {"outcome": "degraded"}]
)
def test_a_lost_damaged_or_incomplete_backup_protects_nothing(
    protected: Host, session: Session, change: dict[str, object]
) -> None:
    session.execute(update(BackupManifest).values(**change))
    session.commit()
    assert judge(protected).state is Protection.NOT_PROTECTED


def test_what_a_restore_replaced_protects_nothing(protected: Host, session: Session) -> None:
    later(protected, hours=50)
    seeds.add_safety(session, protected.clock.now())
    session.commit()

    found = judge(protected)

    assert found.state is Protection.AT_RISK
    assert "is overdue" in found.sentence
    assert found.sentence.endswith("Last good backup 2 days ago, what it added read back 2 days ago.")
    session.execute(delete(BackupManifest).where(BackupManifest.kind != "safety"))
    session.commit()
    assert judge(protected).state is Protection.NOT_PROTECTED


def test_a_failed_run_stays_a_risk_after_what_a_restore_replaced(protected: Host, session: Session) -> None:
    later(protected, hours=1)
    (protected.folder / "uploads").rename(protected.folder / "gone")
    back_up(protected)
    later(protected, hours=1)
    seeds.add_safety(session, protected.clock.now())
    session.commit()

    assert judge(protected).sentence.startswith("At risk: the last backup was failed 60 min ago:") or (
        judge(protected).sentence.startswith("At risk: the last backup was failed 1 h ago:")
    )


def test_an_older_damaged_backup_is_a_risk_beside_a_good_one(protected: Host, session: Session) -> None:
    later(protected, minutes=1)
    back_up(protected)
    first = session.query(BackupManifest).order_by(BackupManifest.created_at).first()
    assert first is not None
    first.problem = "pack x is damaged"
    session.commit()
    found = judge(protected)
    assert (found.state, found.details[0]) == (
        Protection.AT_RISK,
        "1 backup was found damaged when read.",
    )


def test_a_failed_run_after_a_good_one_is_a_risk_with_its_reason(protected: Host) -> None:
    later(protected, hours=1)
    (protected.folder / "uploads").rename(protected.folder / "gone")
    back_up(protected)
    found = judge(protected)
    assert found.state is Protection.AT_RISK
    assert found.sentence.startswith("At risk: the last backup was failed just now:")
    assert found.sentence.endswith("Last good backup 60 min ago, what it added read back 60 min ago.") or (
        "Last good backup 1 h ago" in found.sentence
    )


def test_a_good_run_heals_a_failed_one(protected: Host) -> None:
    later(protected, hours=1)
    (protected.folder / "uploads").rename(protected.folder / "gone")
    back_up(protected)
    (protected.folder / "gone").rename(protected.folder / "uploads")
    later(protected, minutes=1)
    back_up(protected)
    assert judge(protected).state is Protection.PROTECTED


def test_an_interrupted_run_is_a_risk(protected: Host, session: Session) -> None:
    later(protected, minutes=1)
    run = runs.create_run(session, protected.installation, NewRun(), ADMIN)
    runs.start_run(session, protected.installation, run.id, "w")
    later(protected, minutes=2)
    runs.reconcile(session, protected.installation)
    assert judge(protected).state is Protection.AT_RISK


def test_an_overdue_backup_is_a_risk_after_an_hour_of_grace(protected: Host) -> None:
    slot = START.replace(hour=2) + timedelta(days=1)
    protected.clock.moment = slot + timedelta(minutes=59)
    alive(protected)
    assert judge(protected).state is Protection.PROTECTED
    protected.clock.moment = slot + timedelta(minutes=61)
    alive(protected)
    found = judge(protected)
    assert found.state is Protection.AT_RISK
    assert "'nightly' of 2026-03-11 02:00 UTC is overdue" in found.sentence


def test_no_schedule_is_a_risk(protected: Host, session: Session) -> None:
    (schedule,) = schedules.list_schedules(session)
    schedules.delete_schedule(session, protected.installation, schedule.id, ADMIN)
    found = judge(protected)
    assert (found.state, "no schedule is on" in found.sentence) == (Protection.AT_RISK, True)


def test_silent_worker_and_scheduler_are_risks(protected: Host, session: Session) -> None:
    protected.clock.advance(seconds=61)
    assert "no worker answers" in judge(protected).sentence
    protected.clock.advance(minutes=2)
    found = judge(protected)
    assert any("no scheduler answers" in line for line in found.details)
    alive(protected)
    assert judge(protected).state is Protection.PROTECTED
    say_gone(session, ProcessRole.WORKER, "here:1")
    assert judge(protected).state is Protection.AT_RISK


def test_a_run_that_waits_too_long_is_a_risk(protected: Host, session: Session) -> None:
    runs.create_run(session, protected.installation, NewRun(), ADMIN)
    later(protected, minutes=6)
    assert "has been waiting since 6 min ago" in judge(protected).sentence


def test_a_restore_that_needs_a_person_is_the_first_risk(protected: Host, session: Session) -> None:
    session.add(
        RestoreOperation(
            id="r1",
            created_at=START,
            started_at=START,
            status=RestoreStatus.NEEDS_ATTENTION,
            error_message="swap failed",
        )
    )
    session.commit()
    assert "the restore r1 did not end well: swap failed" in judge(protected).sentence


def test_an_app_left_closed_is_a_risk(protected: Host) -> None:
    protected.installation.state.maintenance_flag.write_text("r1")
    assert "still closed" in judge(protected).sentence


def test_running_is_no_reason_to_worry(protected: Host, session: Session) -> None:
    run = runs.create_run(session, protected.installation, NewRun(), ADMIN)
    runs.start_run(session, protected.installation, run.id, "w")
    assert run.status is RunStatus.QUEUED or run.status is RunStatus.RUNNING
    assert judge(protected).state is Protection.PROTECTED
