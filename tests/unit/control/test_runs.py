"""Runs: the row is the truth, and its silence is told."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from backup_admin.access.audit import AuditOutcome
from backup_admin.control import perform, runs
from backup_admin.control.reporting import RowReporter
from backup_admin.control.runs import NewRun, RunActive
from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import Cancelled, ConfigurationError, UsageError
from backup_admin.records import BackupManifest, BackupRun, ChangeTracking, RunKind, RunStatus
from tests.installations import ADMIN, Host, back_up, find_run, make_host

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.orm import Session


def request(session: Session, host: Host) -> BackupRun:
    return runs.request_run(session, host.installation, NewRun(), ADMIN)


def test_a_request_is_a_row_then_a_job_and_audited(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    assert (run.status, run.actor_name) == (RunStatus.QUEUED, "Ada")
    assert bare_host.queue.jobs == {run.id: "backup_admin.jobs.run_backup"}
    (entry,) = bare_host.installation.audit().read_page()
    assert (entry.action, entry.object) == ("backup.request", run.id)


def test_a_second_request_names_the_run_under_way(bare_host: Host, session: Session) -> None:
    first = request(session, bare_host)
    with pytest.raises(RunActive) as caught:
        request(session, bare_host)
    assert caught.value.run_id == first.id
    assert len(bare_host.queue.jobs) == 1


def test_without_a_queue_no_row_waits_for_ever(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    without = type(host.installation)(
        host.installation.settings,
        host.installation.database,
        host.installation.hooks,
        host.clock,
        host.installation.attempts,
        None,
    )
    with host.installation.database.new_session() as session:
        with pytest.raises(ConfigurationError, match="BACKUP_ADMIN_REDIS_URL"):
            runs.request_run(session, without, NewRun(), ADMIN)
        assert session.query(BackupRun).count() == 0


def test_a_queue_that_is_down_keeps_the_run_waiting(bare_host: Host, session: Session) -> None:
    bare_host.queue.down = True
    run = request(session, bare_host)
    assert run.status is RunStatus.QUEUED
    assert "does not answer" in run.error_message


def test_a_waiting_run_is_taken_once(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    assert runs.start_run(session, bare_host.installation, run.id, "one") is not None
    assert runs.start_run(session, bare_host.installation, run.id, "two") is None
    assert find_run(bare_host, run.id).worker == "one"


def test_cancel_ends_what_waits_and_asks_what_runs(bare_host: Host, session: Session) -> None:
    waiting = request(session, bare_host)
    assert runs.cancel_run(session, bare_host.installation, waiting.id, ADMIN).status is RunStatus.CANCELLED
    running = request(session, bare_host)
    runs.start_run(session, bare_host.installation, running.id, "w")
    cancelled = runs.cancel_run(session, bare_host.installation, running.id, ADMIN)
    assert (cancelled.status, cancelled.cancel_requested) == (RunStatus.RUNNING, True)


def test_a_cancelled_run_is_not_started_by_its_job(host: Host, session: Session) -> None:
    run = request(session, host)
    runs.cancel_run(session, host.installation, run.id, ADMIN)
    perform.perform_backup(host.installation, run.id)
    assert find_run(host, run.id).status is RunStatus.CANCELLED


def test_a_run_whose_locks_could_not_be_extended_is_degraded_and_says_that_nothing_is_missing(
    host: Host, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = "3 objects could not be locked for longer: not allowed."
    monkeypatch.setattr("backup_admin.operations.backup.keep_locked", lambda *_, **__: (problem,))
    run = request(session, host)

    perform.perform_backup(host.installation, run.id)

    found = find_run(host, run.id)
    assert found.status is RunStatus.DEGRADED
    assert found.error_message.startswith("Everything is in this snapshot, but not all of it is locked")
    assert problem in found.warnings


def test_silence_makes_a_run_interrupted_with_its_cause(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    runs.start_run(session, bare_host.installation, run.id, "host:42")
    bare_host.clock.advance(seconds=60)
    assert runs.reconcile(session, bare_host.installation) == ()
    bare_host.clock.advance(seconds=1)
    assert len(runs.reconcile(session, bare_host.installation)) == 1
    found = find_run(bare_host, run.id)
    assert found.status is RunStatus.INTERRUPTED
    assert "host:42" in found.error_message
    request(session, bare_host)


def test_a_run_that_speaks_up_just_in_time_is_not_given_up(
    bare_host: Host, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (RunKind.BACKUP, RunKind.VERIFY):
        run = runs.create_run(session, bare_host.installation, NewRun(kind), ADMIN)
        runs.start_run(session, bare_host.installation, run.id, kind.value)
    bare_host.clock.advance(minutes=5)
    gone = runs._gone

    def speak_up(heartbeat: datetime | None, worker: str) -> str:
        with bare_host.installation.database.new_session() as own:
            alive = update(BackupRun).where(BackupRun.kind == RunKind.VERIFY)
            own.execute(alive.values(heartbeat_at=bare_host.clock.now()))
            own.commit()
        return gone(heartbeat, worker)

    monkeypatch.setattr(runs, "_gone", speak_up)
    runs.reconcile(session, bare_host.installation)
    statuses = {run.kind: run.status for run in session.query(BackupRun)}
    assert statuses == {RunKind.BACKUP: RunStatus.INTERRUPTED, RunKind.VERIFY: RunStatus.RUNNING}


def test_what_was_given_up_and_ends_after_all_tells_the_truth(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    runs.start_run(session, bare_host.installation, run.id, "w")
    bare_host.clock.advance(minutes=5)
    runs.reconcile(session, bare_host.installation)
    assert runs.end_run(session, bare_host.installation, run.id, {"status": RunStatus.COMPLETED})
    assert find_run(bare_host, run.id).status is RunStatus.COMPLETED
    assert not runs.end_run(session, bare_host.installation, run.id, {"status": RunStatus.FAILED})


def test_a_row_the_queue_lost_is_handed_on_again(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    bare_host.queue.jobs.clear()
    assert runs.reconcile(session, bare_host.installation) == ()
    bare_host.clock.advance(seconds=16)
    assert len(runs.reconcile(session, bare_host.installation)) == 1
    assert run.id in bare_host.queue.jobs
    assert runs.reconcile(session, bare_host.installation) == ()


def test_unknown_runs_are_refused(bare_host: Host, session: Session) -> None:
    with pytest.raises(UsageError):
        runs.find_run(session, "nothing")


def test_a_backup_ends_with_its_evidence(host: Host, session: Session) -> None:
    run = back_up(host, label="first")
    assert run.status is RunStatus.COMPLETED
    assert run.error_message == ""
    assert run.bytes_read > 0
    assert run.objects_read > 0
    assert run.verified_at is not None
    assert run.stage == "verify"
    manifest = session.query(BackupManifest).one()
    assert (manifest.snapshot_id, manifest.backup_run_id) == (run.snapshot_id, run.id)
    assert manifest.verified_at == run.verified_at
    assert manifest.files_manifest["uploads"]["files"] == 2
    (table,) = session.query(ChangeTracking).all()
    assert (table.database_name, table.table_name, table.row_count) == ("main", "photos", 3)
    assert "databases" in run.log
    entry = host.installation.audit().read_page(action="backup.finish")[0]
    assert (entry.outcome, entry.details["snapshot"]) == (AuditOutcome.DONE, run.snapshot_id)


def test_a_missing_source_fails_the_run_and_makes_no_snapshot(host: Host, session: Session) -> None:
    (host.folder / "uploads").rename(host.folder / "gone")
    run = back_up(host)
    assert run.status is RunStatus.FAILED
    assert run.snapshot_id == ""
    assert str(host.folder / "uploads") in run.error_message
    assert session.query(BackupManifest).count() == 0
    entry = host.installation.audit().read_page(action="backup.finish")[0]
    assert entry.outcome is AuditOutcome.FAILED


def test_an_unforeseen_error_shows_an_id_and_nothing_of_itself(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def burst(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the password is hunter2")

    monkeypatch.setattr("backup_admin.control.perform.back_up", burst)
    run = back_up(host)
    assert run.status is RunStatus.FAILED
    assert run.error_id
    assert run.error_id in run.error_message
    assert "hunter2" not in run.error_message
    assert any(getattr(record, "error_id", "") == run.error_id for record in caplog.records)


def test_a_full_disk_of_the_machine_is_said_in_plain_words(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/shop/state/heads/x")

    monkeypatch.setattr("backup_admin.control.perform.back_up", fill_up)
    run = back_up(host)
    assert run.status is RunStatus.FAILED
    assert "/var/lib/shop/state/heads/x" in run.error_message
    assert "Make room" in run.error_message


def test_a_verify_run_reads_the_newest_snapshot(host: Host, session: Session) -> None:
    made = back_up(host)
    run = verify(host, session)
    assert run.status is RunStatus.COMPLETED
    assert run.snapshot_id == made.snapshot_id
    assert run.bytes_read > 0


def test_a_verify_run_names_damage_and_takes_the_proof_away(host: Host, session: Session) -> None:
    back_up(host)
    for pack in (host.folder / "storage" / "packs").rglob("*"):
        if pack.is_file():
            pack.write_bytes(pack.read_bytes()[:60] + b"damaged" + pack.read_bytes()[67:])
    run = verify(host, session)
    assert run.status is RunStatus.FAILED
    assert run.warnings
    session.expire_all()
    manifest = session.query(BackupManifest).one()
    assert manifest.problem
    assert manifest.verified_at is None


def verify(host: Host, session: Session) -> BackupRun:
    new = NewRun(RunKind.VERIFY)
    run = runs.create_run(session, host.installation, new, ADMIN)
    perform.perform_verify(host.installation, run.id)
    return find_run(host, run.id)


def test_the_reporter_writes_and_hears_the_wish_to_stop(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    runs.start_run(session, bare_host.installation, run.id, "w")
    with reporter(bare_host, run.id) as told:
        told.stage("files", total_bytes=100)
        told.advance(size=40, items=2, current="a.txt")
        wait_until(lambda: find_run(bare_host, run.id).bytes_done == 40)
        found = find_run(bare_host, run.id)
        assert (found.stage, found.stage_index, found.bytes_total, found.items_done, found.current) == (
            "files",
            1,
            100,
            2,
            "a.txt",
        )
        told.check_cancelled()
        runs.cancel_run(session, bare_host.installation, run.id, ADMIN)
        wait_until(lambda: stopped(told))


def test_the_reporter_stops_a_run_that_others_gave_up(bare_host: Host, session: Session) -> None:
    run = request(session, bare_host)
    runs.start_run(session, bare_host.installation, run.id, "w")
    with reporter(bare_host, run.id) as told:
        runs.give_up(session, bare_host.installation, run.id, "killed")
        told.advance(size=1)
        wait_until(lambda: stopped(told))
        assert told.given_up
    assert find_run(bare_host, run.id).status is RunStatus.INTERRUPTED


def reporter(host: Host, run_id: str) -> RowReporter:
    database = host.installation.database
    return RowReporter(database, SystemClock(), BackupRun, run_id, heartbeat_seconds=10)


def stopped(told: RowReporter) -> bool:
    try:
        told.check_cancelled()
    except Cancelled:
        return True
    return False


def wait_until(true: object) -> None:
    for _ in range(100):
        if true():  # type: ignore[operator] # a function
            return
        threading.Event().wait(0.1)
    raise AssertionError("it did not become true in ten seconds")
