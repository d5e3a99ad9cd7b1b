"""Schedules: the right times, each slot once, whoever ticks."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.control import runs, schedules
from backup_admin.control.runs import NewRun
from backup_admin.control.schedules import ScheduleChanged, ScheduleForm, next_times, slot_of
from backup_admin.core.errors import UsageError
from backup_admin.records import BackupRun, BackupSchedule, RunKind, RunStatus, Trigger
from tests.installations import ADMIN, START, Host, make_host

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

NIGHTLY = ScheduleForm("nightly", "30 2 * * *", "Europe/Berlin")
HOURLY = ScheduleForm("hourly", "0 * * * *", "UTC")


def create(session: Session, host: Host, form: ScheduleForm = HOURLY) -> BackupSchedule:
    return schedules.create_schedule(session, host.installation, form, ADMIN)


def test_a_night_in_spring_moves_behind_the_gap_and_an_autumn_hour_counts_once() -> None:
    spring = next_times("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), count=2)
    assert spring == (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC))
    autumn = next_times("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), count=2)
    assert autumn == (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC))


@pytest.mark.parametrize("cron", ["", "* * *", "61 * * * *", "every day", "0 0 31 2 *", "* * * * * * *"])
def test_what_is_no_time_is_refused(cron: str) -> None:
    with pytest.raises(UsageError):
        next_times(cron, "UTC", START)


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="time zone"):
        next_times("0 * * * *", "Mars/Olympus", START)


def test_the_times_shown_are_the_times_claimed(bare_host: Host, session: Session) -> None:
    schedule = create(session, bare_host, NIGHTLY)
    (shown,) = next_times(schedule.cron, schedule.timezone, bare_host.clock.now(), count=1)
    assert schedule.next_run_at == shown
    bare_host.clock.moment = shown - timedelta(seconds=1)
    assert schedules.tick(session, bare_host.installation) == ()
    bare_host.clock.moment = shown
    (run_id,) = schedules.tick(session, bare_host.installation)
    run = runs.find_run(session, run_id)
    assert (run.slot, run.trigger, run.label) == (slot_of(shown), Trigger.SCHEDULED, "nightly")
    assert bare_host.queue.jobs == {run_id: "backup_admin.jobs.run_backup"}


def test_a_slot_is_claimed_once(bare_host: Host, session: Session) -> None:
    create(session, bare_host)
    bare_host.clock.advance(hours=1)
    assert len(schedules.tick(session, bare_host.installation)) == 1
    assert schedules.tick(session, bare_host.installation) == ()


def test_of_many_schedulers_one_starts_the_run(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    with host.installation.database.new_session() as session:
        for number in range(5):
            kind = RunKind.BACKUP if number == 0 else RunKind.VERIFY
            create(session, host, ScheduleForm(f"s{number}", "0 * * * *", "UTC", kind, number < 2))
    host.clock.advance(hours=1)
    started: list[str] = []
    gate = threading.Barrier(6)

    def compete() -> None:
        with host.installation.database.new_session() as own:
            gate.wait()
            started.extend(schedules.tick(own, host.installation))

    threads = [threading.Thread(target=compete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 2
    with host.installation.database.new_session() as session:
        assert session.query(BackupRun).count() == 2
        # Who came too late did not even try.
        assert {one.last_note for one in schedules.list_schedules(session)} == {""}


def test_of_missed_slots_only_the_newest_runs(bare_host: Host, session: Session) -> None:
    create(session, bare_host)
    bare_host.clock.advance(hours=30, minutes=20)
    (run_id,) = schedules.tick(session, bare_host.installation)
    assert runs.find_run(session, run_id).slot == slot_of(START + timedelta(hours=30))
    (schedule,) = schedules.list_schedules(session)
    assert schedule.next_run_at == START + timedelta(hours=31)


def test_a_year_without_scheduler_costs_one_run(bare_host: Host, session: Session) -> None:
    create(session, bare_host, ScheduleForm("minutely", "* * * * *", "UTC"))
    bare_host.clock.advance(days=365)
    assert len(schedules.tick(session, bare_host.installation)) == 1
    assert schedules.tick(session, bare_host.installation) == ()


def test_a_slot_during_a_run_is_noted_and_not_queued_up(bare_host: Host, session: Session) -> None:
    schedule = create(session, bare_host)
    runs.create_run(session, bare_host.installation, NewRun(), ADMIN)
    bare_host.clock.advance(hours=1)
    assert schedules.tick(session, bare_host.installation) == ()
    session.refresh(schedule)
    assert "did not start: A backup is under way" in schedule.last_note


def test_a_queue_that_is_down_loses_no_slot(bare_host: Host, session: Session) -> None:
    create(session, bare_host)
    bare_host.queue.down = True
    bare_host.clock.advance(hours=1)
    (run_id,) = schedules.tick(session, bare_host.installation)
    run = runs.find_run(session, run_id)
    assert run.status is RunStatus.QUEUED
    assert run.error_message.startswith("Waiting:")
    bare_host.queue.down = False
    bare_host.clock.advance(minutes=1)
    runs.reconcile(session, bare_host.installation)
    assert run_id in bare_host.queue.jobs


def test_an_edit_is_followed_at_the_next_tick(bare_host: Host, session: Session) -> None:
    schedule = create(session, bare_host)
    form = ScheduleForm("renamed", "30 * * * *", "UTC")
    schedules.update_schedule(session, bare_host.installation, schedule.id, schedule.version, form, ADMIN)
    bare_host.clock.advance(minutes=30)
    (run_id,) = schedules.tick(session, bare_host.installation)
    assert runs.find_run(session, run_id).label == "renamed"


def test_an_edit_of_what_changed_meanwhile_is_refused(bare_host: Host, session: Session) -> None:
    schedule = create(session, bare_host)
    seen = schedule.version
    bare_host.clock.advance(hours=1)
    schedules.tick(session, bare_host.installation)
    with pytest.raises(ScheduleChanged):
        schedules.update_schedule(session, bare_host.installation, schedule.id, seen, NIGHTLY, ADMIN)
    session.refresh(schedule)
    assert schedule.name == "hourly"


def test_a_schedule_switched_off_starts_nothing(bare_host: Host, session: Session) -> None:
    schedule = create(session, bare_host, ScheduleForm("off", "* * * * *", "UTC", enabled=False))
    assert schedule.next_run_at is None
    bare_host.clock.advance(hours=1)
    assert schedules.tick(session, bare_host.installation) == ()


def test_names_are_unique_and_said(bare_host: Host, session: Session) -> None:
    create(session, bare_host)
    with pytest.raises(UsageError, match="already"):
        create(session, bare_host)
    with pytest.raises(UsageError, match="name"):
        create(session, bare_host, ScheduleForm(" ", "* * * * *", "UTC"))


def test_deleting_keeps_the_runs(bare_host: Host, session: Session) -> None:
    schedule = create(session, bare_host)
    bare_host.clock.advance(hours=1)
    (run_id,) = schedules.tick(session, bare_host.installation)
    schedules.delete_schedule(session, bare_host.installation, schedule.id, ADMIN)
    session.expire_all()
    assert runs.find_run(session, run_id).schedule_id is None
    assert [e.action for e in bare_host.installation.audit().read_page()] == [
        "schedule.delete",
        "schedule.create",
    ]


def test_read_only_starts_nothing(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    with host.installation.database.new_session() as session:
        create(session, host)
    frozen = make_host(
        tmp_path, BACKUP_ADMIN_READ_ONLY=True, BACKUP_ADMIN_KEY=host.installation.key().reveal()
    )
    frozen.clock.advance(hours=2)
    with frozen.installation.database.new_session() as session:
        assert schedules.tick(session, frozen.installation) == ()
