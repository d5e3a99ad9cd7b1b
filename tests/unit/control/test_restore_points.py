"""What a schedule costs: from the times themselves, and from runs that were measured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.control.restore_points import Measured, cost_of, estimate, last_runs
from backup_admin.control.schedules import next_times
from backup_admin.core.errors import UsageError
from backup_admin.records import BackupRun, RunKind, RunStatus, Trigger

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.installations import Host

NOW = datetime(2026, 1, 12, tzinfo=UTC)


def add_run(
    session: Session,
    number: int,
    seconds: float,
    status: RunStatus = RunStatus.COMPLETED,
    kind: RunKind = RunKind.BACKUP,
) -> None:
    began = NOW + timedelta(minutes=number)
    session.add(
        BackupRun(
            id=f"{number:026d}",
            target=f"t{number}",
            kind=kind,
            trigger=Trigger.MANUAL,
            status=status,
            created_at=began,
            started_at=began,
            finished_at=began + timedelta(seconds=seconds),
            new_bytes=1000,
        )
    )
    session.commit()


def test_five_minutes_are_five_minutes_and_as_long_as_a_run_takes() -> None:
    cost = estimate(next_times("*/5 * * * *", "UTC", NOW, count=60), [Measured(6, 100), Measured(12, 300)])

    assert (cost.rpo_seconds, cost.per_day, cost.seconds) == (312, 288, 9)
    assert cost.share == pytest.approx(0.03)
    assert (cost.new_bytes_per_day, cost.seconds_per_day) == (288 * 200, 288 * 9)
    assert not cost.is_too_often
    assert not cost.is_much


def test_the_longest_gap_counts() -> None:
    office_hours = estimate(next_times("0 9-17 * * 1-5", "UTC", NOW, count=60), [])
    uneven = estimate(next_times("*/7 * * * *", "UTC", NOW, count=60), [Measured(299, 0)])

    assert office_hours.gap_seconds == 64 * 3600
    assert (uneven.gap_seconds, uneven.shortest_seconds) == (420, 240)
    assert uneven.is_too_often


def test_more_than_half_of_the_time_is_much() -> None:
    assert estimate(next_times("*/5 * * * *", "UTC", NOW, count=60), [Measured(151, 0)]).is_much


def test_only_the_last_ten_backups_that_made_a_snapshot_count(bare_host: Host, session: Session) -> None:
    for number in range(12):
        add_run(session, number, seconds=number)
    add_run(session, 50, 900, RunStatus.FAILED)
    add_run(session, 51, 900, kind=RunKind.VERIFY)
    add_run(session, 52, 40, RunStatus.DEGRADED)

    measured = [run.seconds for run in last_runs(session)]

    assert measured == [40, 11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert cost_of(session, "0 * * * *", "UTC", NOW).longest_seconds == 40


def test_without_runs_only_the_times_are_known(bare_host: Host, session: Session) -> None:
    cost = cost_of(session, "0 * * * *", "UTC", NOW)

    assert (cost.runs, cost.rpo_seconds, cost.share, cost.is_too_often) == (0, 3600, 0, False)
    with pytest.raises(UsageError):
        cost_of(session, "whenever", "UTC", NOW)
