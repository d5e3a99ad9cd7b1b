"""What a running job looks like, from its first second to its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backup_admin.records import BackupRun, RestoreOperation, RestoreStatus, RunKind, RunStatus
from backup_admin.web.job_view import BACKUP, RESTORE, UNDO, VERIFY, of_restore, of_run

NOW = datetime(2026, 11, 23, 16, 40, tzinfo=UTC)


def run(**more: Any) -> BackupRun:
    """Build a run that has just begun."""
    values: dict[str, Any] = {
        "id": "r",
        "kind": RunKind.BACKUP,
        "status": RunStatus.RUNNING,
        "created_at": NOW,
        "started_at": NOW,
        "heartbeat_at": NOW,
        "stage": "",
        "current": "",
        "cancel_requested": False,
    }
    counts = dict.fromkeys(("bytes_done", "bytes_total", "items_done", "items_total"), 0)
    return BackupRun(**{**values, **counts, **more})


def restore(**more: Any) -> RestoreOperation:
    """Build a restore that has just begun."""
    values: dict[str, Any] = {
        "id": "o",
        "action": "restore",
        "status": RestoreStatus.RUNNING,
        "created_at": NOW,
        "started_at": NOW,
        "heartbeat_at": NOW,
        "stage": "",
        "current": "",
        "cancel_requested": False,
    }
    counts = dict.fromkeys(("bytes_done", "bytes_total", "items_done", "items_total"), 0)
    return RestoreOperation(**{**values, **counts, **more})


@pytest.mark.parametrize("steps", [BACKUP, VERIFY, RESTORE, UNDO])
def test_the_shares_of_the_stages_make_a_whole(steps: tuple[Any, ...]) -> None:
    assert sum(step.weight for step in steps) == 100


def test_before_the_first_stage_nothing_is_promised() -> None:
    shown = of_run(run(status=RunStatus.QUEUED, started_at=None), NOW)

    assert (shown.percent, shown.text) == (None, "Waiting for a worker.")


def test_the_percentage_counts_stages_and_bytes() -> None:
    shown = of_run(run(stage="files", bytes_done=50, bytes_total=100), NOW)

    assert shown.percent == 50
    assert [stage.state for stage in shown.stages] == ["done", "now", "wait", "wait", "wait"]


def test_a_hundred_percent_is_left_to_the_end() -> None:
    assert of_run(run(stage="verify", bytes_done=100, bytes_total=100), NOW).percent == 99


def test_a_failed_run_shows_where_it_ended() -> None:
    shown = of_run(run(status=RunStatus.FAILED, stage="files"), NOW)

    assert shown.finished
    assert [stage.state for stage in shown.stages] == ["done", "fail", "wait", "wait", "wait"]


def test_a_run_that_never_began_has_no_stages() -> None:
    assert of_run(run(status=RunStatus.CANCELLED), NOW).stages == ()


@pytest.mark.parametrize(("age", "seconds"), [(0, 1), (9, 1), (11, 2), (59, 2), (61, 5), (9999, 5)])
def test_it_is_asked_less_often_with_time(age: int, seconds: int) -> None:
    shown = of_run(run(started_at=NOW - timedelta(seconds=age)), NOW)

    assert shown.poll_seconds == seconds


def test_a_worker_is_called_silent_after_a_minute() -> None:
    heartbeat = NOW - timedelta(seconds=61)

    assert of_run(run(heartbeat_at=heartbeat), NOW).silent_since == heartbeat
    assert of_run(run(heartbeat_at=NOW - timedelta(seconds=59)), NOW).silent_since is None
    assert of_run(run(heartbeat_at=heartbeat, status=RunStatus.FAILED), NOW).silent_since is None


@pytest.mark.parametrize(
    ("stage", "may"),
    [("stage", True), ("safety_backup", True), ("swap", False), ("check", False), ("reopen", False)],
)
def test_a_restore_can_be_cancelled_until_the_parts_change_places(stage: str, may: bool) -> None:
    assert of_restore(restore(stage=stage), NOW).can_cancel is may


def test_one_wish_to_cancel_is_enough() -> None:
    shown = of_run(run(stage="files", cancel_requested=True), NOW)

    assert (shown.can_cancel, shown.text) == (False, "Stopping at the next safe place.")


def test_an_undo_has_stages_of_its_own() -> None:
    shown = of_restore(restore(action="undo", stage="swap"), NOW)

    assert (shown.title, len(shown.stages)) == ("Undo", 3)
