"""What the pages show, read from the control database alone: no storage is asked here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sqlalchemy import Select, func, select, tuple_

from backup_admin.control import skipping
from backup_admin.records import (
    ACTIVE_RESTORES,
    ACTIVE_RUNS,
    BackupManifest,
    BackupRun,
    BackupSchedule,
    RestoreOperation,
    RestoreStatus,
    RunKind,
    RunStatus,
    Trigger,
)
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

DAYS = 30
PAGE_ROWS = 25
_STARTED = {Trigger.SCHEDULED: "schedule", Trigger.COMMAND: "command line", Trigger.MANUAL: "unknown"}
# The worst of a day is what its mark shows; skipped says less than any result.
_WORST_FIRST = (
    RunStatus.FAILED,
    RunStatus.INTERRUPTED,
    RunStatus.DEGRADED,
    RunStatus.RUNNING,
    RunStatus.QUEUED,
    RunStatus.COMPLETED,
    RunStatus.CANCELLED,
    RunStatus.SKIPPED,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One operation in a list. `kind` is backup, verify or restore."""

    id: str
    kind: str
    status: str
    title: str
    actor: str
    created_at: datetime
    started_at: datetime | None
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BackupRow:
    """One backup in the list of backups."""

    line: Line
    label: str
    size: int | None
    new_bytes: int | None
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the strip; an empty status means that nothing ran."""

    date: date
    status: str
    runs: int
    good: int
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """How many snapshots there are, those that restores replaced apart, and what all need in the storage."""

    backups: int
    safety: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The facts of the first page."""

    newest_good: datetime | None
    unchanged_at: datetime | None
    """When everything was last found to be as in it; at least when it was made."""
    restore_seconds: float | None
    restore_measured_at: datetime | None
    next_run: datetime | None
    protected_bytes: int
    stored: Stored
    days: tuple[Day, ...]
    recent: tuple[Line, ...]

    @property
    def all_runs(self) -> int:
        """Count the runs of the strip that had something to do."""
        return sum(day.runs - day.skipped for day in self.days)

    @property
    def good_runs(self) -> int:
        """Count those of them that made a good backup."""
        return sum(day.good for day in self.days)


@dataclass(frozen=True, slots=True)
class BackupPage:
    """A part of the list of backups; `older` leads on."""

    rows: tuple[BackupRow, ...]
    older: str


def dashboard(session: Session, *, now: datetime, zone: str) -> Dashboard:
    """Gather the facts of the first page."""
    newest = session.scalar(_present().order_by(BackupManifest.created_at.desc()).limit(1))
    good = session.scalar(_good().order_by(BackupManifest.created_at.desc()).limit(1))
    checked = skipping.unchanged_at(session, good.snapshot_id) if good else None
    restore = _newest_restore(session)
    next_run = session.scalar(
        select(func.min(BackupSchedule.next_run_at)).where(BackupSchedule.enabled.is_(True))
    )
    return Dashboard(
        newest_good=good.created_at if good else None,
        unchanged_at=max(good.created_at, checked or good.created_at) if good else None,
        restore_seconds=_seconds(restore.started_at, restore.completed_at) if restore else None,
        restore_measured_at=restore.completed_at if restore else None,
        next_run=next_run,
        protected_bytes=newest.file_bytes + newest.database_bytes if newest else 0,
        stored=stored(session),
        days=days(session, now=now, zone=zone),
        recent=recent(session),
    )


def newest_good(session: Session) -> datetime | None:
    """Return the time of the newest complete snapshot whose bytes were read back."""
    return session.scalar(_good().with_only_columns(func.max(BackupManifest.created_at)))


def days(session: Session, *, now: datetime, zone: str) -> tuple[Day, ...]:
    """Return the last days, oldest first, in a time zone."""
    local = ZoneInfo(zone)
    today = now.astimezone(local).date()
    first = today - timedelta(days=DAYS - 1)
    rows = session.execute(
        select(BackupRun.created_at, BackupRun.status)
        .where(BackupRun.kind == RunKind.BACKUP)
        .where(BackupRun.created_at >= now - timedelta(days=DAYS + 1))
    )
    found: dict[date, list[RunStatus]] = {}
    for created_at, status in rows:
        found.setdefault(created_at.astimezone(local).date(), []).append(status)
    wanted = [first + timedelta(days=index) for index in range(DAYS)]
    return tuple(_day(day, found.get(day, [])) for day in wanted)


def recent(session: Session, *, limit: int = 10) -> tuple[Line, ...]:
    """Return the newest operations of every kind."""
    runs = session.scalars(
        select(BackupRun).order_by(BackupRun.created_at.desc(), BackupRun.id.desc()).limit(limit)
    )
    lines = [run_line(run) for run in runs] + list(restores(session, limit=limit))
    return tuple(sorted(lines, key=lambda line: line.created_at, reverse=True)[:limit])


def active(session: Session) -> tuple[BackupRun | RestoreOperation, ...]:
    """Return what waits or runs now, restores first."""
    operations = session.scalars(
        select(RestoreOperation).where(RestoreOperation.status.in_(ACTIVE_RESTORES))
    ).all()
    runs = session.scalars(
        select(BackupRun).where(BackupRun.status.in_(ACTIVE_RUNS)).order_by(BackupRun.created_at)
    ).all()
    return (*operations, *runs)


def backups(session: Session, *, status: str = "", before: str = "") -> BackupPage:
    """Return one page of backups, newest first, after the one whose id is `before`."""
    wanted = (
        select(BackupRun, BackupManifest)
        .outerjoin(BackupManifest, BackupManifest.snapshot_id == BackupRun.snapshot_id)
        .where(BackupRun.kind == RunKind.BACKUP)
    )
    if status:
        wanted = wanted.where(BackupRun.status == RunStatus(status))
    last = session.get(BackupRun, before) if before else None
    if last is not None:
        key = tuple_(BackupRun.created_at, BackupRun.id)
        wanted = wanted.where(key < (last.created_at, last.id))
    ordered = wanted.order_by(BackupRun.created_at.desc(), BackupRun.id.desc()).limit(PAGE_ROWS + 1)
    found = session.execute(ordered).all()
    rows = tuple(_backup_row(run, manifest) for run, manifest in found[:PAGE_ROWS])
    return BackupPage(rows, rows[-1].line.id if len(found) > PAGE_ROWS else "")


def verifications(session: Session, snapshot_id: str) -> tuple[Line, ...]:
    """Return the later verifications of a snapshot, newest first."""
    if not snapshot_id:
        return ()
    runs = session.scalars(
        select(BackupRun)
        .where(BackupRun.kind == RunKind.VERIFY, BackupRun.snapshot_id == snapshot_id)
        .order_by(BackupRun.created_at.desc())
        .limit(5)
    )
    return tuple(run_line(run) for run in runs)


def backup_of(session: Session, snapshot_id: str) -> BackupRun | None:
    """Return the run that made a snapshot."""
    return session.scalar(
        select(BackupRun).where(BackupRun.kind == RunKind.BACKUP, BackupRun.snapshot_id == snapshot_id)
    )


def manifest_of(session: Session, snapshot_id: str) -> BackupManifest | None:
    """Return what we know of a snapshot."""
    if not snapshot_id:
        return None
    return session.scalar(select(BackupManifest).where(BackupManifest.snapshot_id == snapshot_id))


def restores(session: Session, *, limit: int = 20) -> tuple[Line, ...]:
    """Return restores that were started, newest first."""
    found = session.scalars(
        select(RestoreOperation)
        .where(RestoreOperation.status != RestoreStatus.DRAFT)
        .order_by(RestoreOperation.created_at.desc(), RestoreOperation.id.desc())
        .limit(limit)
    )
    return tuple(restore_line(each) for each in found)


def drafts(session: Session, user_id: str) -> tuple[Line, ...]:
    """Return the restores a person prepares, newest first."""
    found = session.scalars(
        select(RestoreOperation)
        .where(RestoreOperation.status == RestoreStatus.DRAFT, RestoreOperation.restored_by == user_id)
        .where(RestoreOperation.snapshot_id != "")
        .order_by(RestoreOperation.created_at.desc())
    )
    return tuple(restore_line(each) for each in found)


def active_restore(session: Session) -> Line | None:
    """Return the restore that waits or runs now."""
    found = session.scalar(
        select(RestoreOperation).where(RestoreOperation.status.in_(ACTIVE_RESTORES)).limit(1)
    )
    return restore_line(found) if found is not None else None


def stored(session: Session) -> Stored:
    """Return how many snapshots there are, and what they needed in the storage."""
    row = BackupManifest
    counts = select(row.kind, func.count(row.id), func.sum(row.new_bytes)).where(row.present.is_(True))
    kinds = session.execute(counts.group_by(row.kind)).all()
    safety = sum(count for kind, count, _ in kinds if kind == SAFETY)
    every = sum(count for _, count, _ in kinds)
    return Stored(every - safety, safety, sum(size or 0 for *_, size in kinds))


def run_line(run: BackupRun) -> Line:
    """Describe a run for a list."""
    titles = {RunKind.VERIFY: "Verification", RunKind.CLUSTER: f"Base backup of {run.label}"}
    return Line(
        id=run.id,
        kind=run.kind.value,
        status=run.status.value,
        title=titles.get(run.kind, "Backup"),
        actor=run.actor_name or _STARTED[run.trigger],
        created_at=run.created_at,
        started_at=run.started_at,
        seconds=_seconds(run.started_at, run.finished_at),
        reason=run.reason,
    )


def restore_line(operation: RestoreOperation) -> Line:
    """Describe a restore for a list."""
    return Line(
        id=operation.id,
        kind="restore",
        status=operation.status.value,
        title="Restore",
        actor=operation.restored_by_name or operation.restored_by,
        created_at=operation.created_at,
        started_at=operation.started_at,
        seconds=_seconds(operation.started_at, operation.completed_at),
        reason=operation.reason,
    )


def _present() -> Select[BackupManifest]:
    row = BackupManifest
    return select(row).where(row.present.is_(True), row.kind != SAFETY)


def _good() -> Select[BackupManifest]:
    return select(BackupManifest).where(*skipping.is_good())


def _backup_row(run: BackupRun, manifest: BackupManifest | None) -> BackupRow:
    made = bool(run.snapshot_id)
    size = manifest.file_bytes + manifest.database_bytes if manifest else run.total_bytes
    return BackupRow(
        line=run_line(run),
        label=run.label,
        size=size if made else None,
        new_bytes=run.new_bytes if made else None,
        verified_at=manifest.verified_at if manifest else run.verified_at,
    )


def _day(day: date, statuses: Sequence[RunStatus]) -> Day:
    worst = next((status.value for status in _WORST_FIRST if status in statuses), "")
    good, skipped = (statuses.count(status) for status in (RunStatus.COMPLETED, RunStatus.SKIPPED))
    return Day(day, worst, len(statuses), good, skipped)


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _newest_restore(session: Session) -> RestoreOperation | None:
    return session.scalar(
        select(RestoreOperation)
        .where(RestoreOperation.status == RestoreStatus.RESTORED, RestoreOperation.completed_at.is_not(None))
        .order_by(RestoreOperation.completed_at.desc())
        .limit(1)
    )
