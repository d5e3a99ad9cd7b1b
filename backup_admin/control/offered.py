"""The backups that a restore can begin with, read from the control database alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_

from backup_admin.control import catalogue, overview
from backup_admin.records import BackupManifest
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from backup_admin.core.settings import Settings

PAGE_ROWS = 25
_SAFETY_ROWS = 100


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot one may restore, or why not; `missing` are the parts of this app that it does not hold."""

    snapshot_id: str
    created_at: datetime
    label: str
    states: tuple[str, ...]
    database_count: int
    file_count: int
    total_bytes: int
    blocked: bool
    problem: str
    newest_good: bool
    missing: tuple[str, ...]


def backups(session: Session, settings: Settings, *, before: str = "") -> tuple[tuple[SnapshotRow, ...], str]:
    """Return backups for the first step of a restore, newest first, and where to go on."""
    wanted = _newest_first().where(BackupManifest.kind != SAFETY)
    last = catalogue.find_row(session, before)
    if last is not None:
        key = tuple_(BackupManifest.created_at, BackupManifest.snapshot_id)
        wanted = wanted.where(key < (last.created_at, last.snapshot_id))
    found = session.scalars(wanted.limit(PAGE_ROWS + 1)).all()
    newest = overview.newest_good(session)
    rows = tuple(snapshot_row(row, settings, newest) for row in found[:PAGE_ROWS])
    return rows, rows[-1].snapshot_id if len(found) > PAGE_ROWS else ""


def safety_backups(session: Session, settings: Settings) -> tuple[SnapshotRow, ...]:
    """Return what restores replaced, newest first: offered, but never meant by itself."""
    found = session.scalars(_newest_first().where(BackupManifest.kind == SAFETY).limit(_SAFETY_ROWS))
    return tuple(snapshot_row(row, settings) for row in found)


def newest(session: Session, settings: Settings) -> tuple[SnapshotRow, ...]:
    """Return the newest snapshots of either kind."""
    found = session.scalars(_newest_first().limit(PAGE_ROWS))
    return tuple(snapshot_row(row, settings) for row in found)


def snapshot_row(row: BackupManifest, settings: Settings, newest: datetime | None = None) -> SnapshotRow:
    """Describe a snapshot for the wizard; `newest` is when the newest good backup was made."""
    return SnapshotRow(
        snapshot_id=row.snapshot_id,
        created_at=row.created_at,
        label=row.label,
        states=_states(row),
        database_count=row.database_count,
        file_count=row.file_count,
        total_bytes=row.file_bytes + row.database_bytes,
        blocked=bool(row.problem) or not row.present,
        problem=row.problem,
        newest_good=row.created_at == newest and row.kind != SAFETY,
        missing=missing_parts(row, settings),
    )


def missing_parts(row: BackupManifest, settings: Settings) -> tuple[str, ...]:
    """Return the databases and folders of this app that a snapshot does not hold."""
    if not row.manifest_version:
        return ()  # its manifest could not be read, so nobody knows
    databases = row.database_dump_path.split(", ")
    missing = [f"database {one.name}" for one in settings.databases if one.name not in databases]
    missing += [f"folder {one.name}" for one in settings.files if one.name not in row.files_manifest]
    return tuple(missing)


def _newest_first() -> Select[BackupManifest]:
    row = BackupManifest
    return select(row).order_by(row.created_at.desc(), row.snapshot_id.desc())


def _states(row: BackupManifest) -> tuple[str, ...]:
    if not row.present:
        return ("missing",)
    if row.problem:
        return ("problem",)
    read = "verified" if row.verified_at else "unverified"
    more = tuple(word for word, holds in (("degraded", row.outcome == "degraded"),) if holds)
    return (read, *more, *(("safety",) if row.kind == SAFETY else ()))
