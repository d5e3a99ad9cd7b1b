"""Is this app protected? Said from evidence, never from the absence of errors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim
from sqlalchemy import func, select

from backup_admin.control import app_clusters, app_streams, catalogue, onboarding, skipping, storage_tests
from backup_admin.control.liveness import ProcessRole, last_seen
from backup_admin.core.shown import agree, count_of
from backup_admin.operations.tables_there import RIGHT_ONE
from backup_admin.records import (
    BackupManifest,
    BackupRun,
    BackupSchedule,
    RestoreOperation,
    RestoreStatus,
    RunKind,
    RunStatus,
)
from backup_admin.storage.storage_report import StepOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation

GRACE = timedelta(hours=1)
"""How late a scheduled backup may be before it counts as overdue."""
STALE_AFTER = timedelta(days=7)
"""Without a schedule: how old the newest good backup may be."""
_STUCK_AFTER = timedelta(minutes=5)
_BAD = (RunStatus.FAILED, RunStatus.DEGRADED, RunStatus.INTERRUPTED)


class Protection(StrEnum):
    """The three answers."""

    PROTECTED = "protected"
    AT_RISK = "at_risk"
    NOT_PROTECTED = "not_protected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence, and each fact it rests on."""

    state: Protection
    sentence: str
    details: tuple[str, ...] = ()


def judge(session: Session, installation: Installation) -> Verdict:
    """Return the verdict, from the control database and the state folder alone."""
    now = installation.clock.now()
    good = _newest_good(session)
    unchanged = None if good is None else skipping.unchanged_at(session, good.snapshot_id)
    whole = good is not None and catalogue.was_read_whole(session, good)
    evidence = _evidence(good, unchanged, now, whole=whole)
    missing = tuple(_missing(session, installation, good))
    if missing:
        return Verdict(Protection.NOT_PROTECTED, f"Not protected: {missing[0]}", (*missing, *evidence))
    risks = tuple(_risks(session, installation, good, now))
    if risks:
        sentence = " ".join((f"At risk: {risks[0]}", *evidence[:1]))
        return Verdict(Protection.AT_RISK, sentence, (*risks, *evidence))
    return Verdict(Protection.PROTECTED, " ".join(("Protected.", *evidence[:1])), evidence)


def ago(since: datetime, now: datetime) -> str:
    """Say how long ago something was."""
    seconds = max(0, int((now - since).total_seconds()))
    if seconds < 60:
        return "just now"
    for size, unit in ((86_400 * 2, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // (86_400 if unit == 'days' else size)} {unit} ago"
    return "just now"


def _newest_good(session: Session) -> BackupManifest | None:
    row = BackupManifest
    return session.scalar(select(row).where(*skipping.is_good()).order_by(row.created_at.desc()).limit(1))


def _evidence(
    good: BackupManifest | None, unchanged: datetime | None, now: datetime, *, whole: bool
) -> tuple[str, ...]:
    if good is None or good.verified_at is None:
        return ()
    checked = "" if unchanged is None else f"; nothing had changed {ago(unchanged, now)}"
    read = f"{'all of it' if whole else 'what it added'} read back {ago(good.verified_at, now)}"
    return (
        f"Last good backup {ago(good.created_at, now)}, {read}{checked}.",
        f"{good.verified_bytes:,} bytes of it were read back and were as written.",
    )


def _missing(session: Session, installation: Installation, good: BackupManifest | None) -> Iterator[str]:
    """Say what keeps this app from being protected at all."""
    setup = onboarding.look(session, installation)
    if setup.key_problem:
        yield setup.key_problem
    if not setup.has_sources:
        yield "nothing is named to protect."
    if not setup.storage:
        yield "no storage is set."
    elif not setup.has_repository:
        yield "there is no repository in the storage yet."
    elif not setup.recovery_confirmed:
        yield "no recovery key is confirmed, so backups would be lost with this server."
    if good is None:
        yield _why_none(session)


def _why_none(session: Session) -> str:
    last = _last_run(session)
    if last is not None and last.status in _BAD:
        return f"no backup was ever good; the last one was {last.status.value}: {last.error_message}"
    return "there is no backup yet that was read back and found good."


def _risks(
    session: Session, installation: Installation, good: BackupManifest | None, now: datetime
) -> Iterator[str]:
    """Say what may soon keep this app from being protected, the worst first."""
    yield from _restore_risks(session, installation)
    last = _last_run(session)
    if last is not None and last.status in _BAD:
        when = ago(last.finished_at or last.created_at, now)
        yield f"the last backup was {last.status.value} {when}: {last.error_message}"
    yield from _damage(session)
    if good is not None:
        yield from (f"{name} {RIGHT_ONE}" for name in good.details.get("without_tables", ()))
        yield from _overdue(session, good, now)
    yield from app_streams.risks(session, installation)
    yield from app_clusters.risks(session, installation)
    yield from _storage_risks(session, installation, now)
    yield from _silence(session, installation, now)


def _restore_risks(session: Session, installation: Installation) -> Iterator[str]:
    row = RestoreOperation
    open_ends = (RestoreStatus.NEEDS_ATTENTION, RestoreStatus.INTERRUPTED)
    newest = session.scalar(
        select(row).where(row.started_at.is_not(None)).order_by(row.started_at.desc()).limit(1)
    )
    if newest is not None and newest.status in open_ends:
        yield f"the restore {newest.id} did not end well: {newest.error_message or newest.message}"
    if installation.state.maintenance_flag.exists() and (
        newest is None or newest.status is not RestoreStatus.RUNNING
    ):
        yield "the app is still closed for a restore that is not running; run `flask backup recover`."


def _damage(session: Session) -> Iterator[str]:
    row = BackupManifest
    damaged = session.scalar(select(func.count(row.id)).where(row.problem != "", row.present.is_(True)))
    if damaged:
        yield f"{count_of(damaged, 'backup')} {agree(damaged, 'was', 'were')} found damaged when read."
    missing = session.scalar(select(func.count(row.id)).where(row.present.is_(False)))
    if missing:
        yield f"{count_of(missing, 'backup')} {agree(missing, 'is', 'are')} missing from the repository."


def _storage_risks(session: Session, installation: Installation, now: datetime) -> Iterator[str]:
    report = storage_tests.newest_test(session, installation.settings)
    if report is None:
        return
    if report.outcome is StepOutcome.FAILED:
        yield f"the test of the storage failed {ago(report.at, now)}, {storage_tests.first_failure(report)}"
    elif now - report.at > storage_tests.STALE_AFTER:
        yield f"the storage was last tested {ago(report.at, now)}."


def _overdue(session: Session, good: BackupManifest, now: datetime) -> Iterator[str]:
    # A skipped run proved that the good backup still held everything then: it did what was due.
    covered = max(good.created_at, skipping.unchanged_at(session, good.snapshot_id) or good.created_at)
    schedules = session.scalars(
        select(BackupSchedule).where(BackupSchedule.enabled.is_(True), BackupSchedule.kind == RunKind.BACKUP)
    ).all()
    if not schedules:
        yield "no schedule is on, so nothing is backed up by itself."
        if now - good.created_at > STALE_AFTER:
            yield f"the last good backup was made {ago(good.created_at, now)}."
    for schedule in schedules:
        slot = _last_slot(schedule, now - GRACE)
        if slot is not None and covered < slot and schedule.updated_at < slot:
            note = f" {schedule.last_note}" if schedule.last_note else ""
            yield f"the backup {schedule.name!r} of {slot:%Y-%m-%d %H:%M} UTC is overdue.{note}"


def _last_slot(schedule: BackupSchedule, before: datetime) -> datetime | None:
    """Return the newest time of a schedule before a moment."""
    times = CronSim(schedule.cron, before.astimezone(ZoneInfo(schedule.timezone)), reverse=True)
    return next(times, None)


def _silence(session: Session, installation: Installation, now: datetime) -> Iterator[str]:
    if (
        installation.queue is not None
        and not last_seen(session, installation.clock, ProcessRole.WORKER).alive
    ):
        yield "no worker answers; start one with `flask backup worker`."
    enabled = session.scalar(select(BackupSchedule.id).where(BackupSchedule.enabled.is_(True)).limit(1))
    scheduler = last_seen(session, installation.clock, ProcessRole.SCHEDULER)
    if enabled is not None and not scheduler.alive:
        yield "no scheduler answers, so nothing starts by itself; `flask backup worker` runs one."
    waiting = session.scalar(
        select(func.min(BackupRun.created_at)).where(BackupRun.status == RunStatus.QUEUED)
    )
    if waiting is not None and now - waiting > _STUCK_AFTER:
        yield f"a run has been waiting since {ago(waiting, now)}."


def _last_run(session: Session) -> BackupRun | None:
    """Return the newest backup run that has ended, other than by a person's wish."""
    ended = (*_BAD, RunStatus.COMPLETED, RunStatus.SKIPPED)
    return session.scalar(
        select(BackupRun)
        .where(BackupRun.kind == RunKind.BACKUP, BackupRun.status.in_(ended))
        .order_by(BackupRun.created_at.desc())
        .limit(1)
    )
