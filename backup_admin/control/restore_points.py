"""Points in time: which backup is meant by one, and what it costs to have them every few minutes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sqlalchemy import select

from backup_admin.control.schedules import next_times
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.points import Chosen, Point, choose_point, parse_moment
from backup_admin.records import BackupManifest, BackupRun, RunKind, RunStatus
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

_RUNS = 10
_SLOTS = 60
_DAY = timedelta(days=1)
_MUCH = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a run took, and what it stored anew."""

    seconds: float
    new_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What points at these times cost; figures are of the last `runs`, 0 when none was measured.

    `gap_seconds` is the longest time between two slots, `per_day` how many there are on average.
    """

    gap_seconds: float
    shortest_seconds: float
    per_day: float
    runs: int
    seconds: float
    longest_seconds: float
    new_bytes: int

    @property
    def rpo_seconds(self) -> float:
        """How much can be lost at worst: until the next run has ended, its changes are nowhere else."""
        return self.gap_seconds + self.longest_seconds

    @property
    def share(self) -> float:
        """The part of the time in which a backup runs."""
        return self.seconds * self.per_day / _DAY.total_seconds()

    @property
    def new_bytes_per_day(self) -> int:
        """What a day adds to the storage, when it goes on like the last runs."""
        return round(self.new_bytes * self.per_day)

    @property
    def seconds_per_day(self) -> float:
        """How long backups run on a day."""
        return self.seconds * self.per_day

    @property
    def is_too_often(self) -> bool:
        """Whether a run may not have ended when the next is due: that slot makes none then."""
        return self.longest_seconds >= self.shortest_seconds

    @property
    def is_much(self) -> bool:
        """Whether backups run more than half of the time."""
        return self.share > _MUCH


def find_backup(session: Session, at: str, now: datetime, zone: str) -> Chosen:
    """Return the newest backup that can be restored as of a time, in a zone unless it names one.

    Reads no storage. Raises `UsageError` or `SnapshotMissing`.
    """
    moment = parse_moment(at, now, ZoneInfo(zone))
    columns = (BackupManifest.snapshot_id, BackupManifest.created_at, BackupManifest.kind)
    usable = select(*columns).where(BackupManifest.present.is_(True), BackupManifest.problem == "")
    found = session.execute(usable.order_by(BackupManifest.created_at, BackupManifest.snapshot_id))
    points = (Point(SnapshotId(name), created, kind == SAFETY) for name, created, kind in found)
    return choose_point(points, moment)


def cost_of(session: Session, cron: str, timezone: str, now: datetime) -> Cost:
    """Say what backups at these times cost; raise `UsageError` when the times are none."""
    return estimate(next_times(cron, timezone, now, count=_SLOTS), last_runs(session))


def last_runs(session: Session) -> tuple[Measured, ...]:
    """Return what the last backups took that made a snapshot, newest first."""
    made = (RunStatus.COMPLETED, RunStatus.DEGRADED)
    query = (
        select(BackupRun)
        .where(BackupRun.kind == RunKind.BACKUP, BackupRun.status.in_(made))
        .where(BackupRun.started_at.is_not(None), BackupRun.finished_at.is_not(None))
        .order_by(BackupRun.created_at.desc(), BackupRun.id.desc())
        .limit(_RUNS)
    )
    return tuple(
        Measured((run.finished_at - run.started_at).total_seconds(), run.new_bytes)
        for run in session.scalars(query)
        if run.started_at is not None and run.finished_at is not None
    )


def estimate(slots: Sequence[datetime], runs: Sequence[Measured]) -> Cost:
    """Compute the cost of slots that follow one another, from what runs took."""
    gaps = [(after - before).total_seconds() for before, after in pairwise(slots)]
    count = max(len(runs), 1)
    return Cost(
        gap_seconds=max(gaps),
        shortest_seconds=min(gaps),
        per_day=_DAY.total_seconds() * len(gaps) / sum(gaps),
        runs=len(runs),
        seconds=sum(run.seconds for run in runs) / count,
        longest_seconds=max((run.seconds for run in runs), default=0.0),
        new_bytes=sum(run.new_bytes for run in runs) // count,
    )
