"""What we know of the snapshots without asking the storage; rebuilt from it at will."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from backup_admin.core.clock import format_time
from backup_admin.core.errors import RepositoryError
from backup_admin.operations.tables_there import has_something
from backup_admin.records import BackupManifest, BackupRun, ChangeTracking, RunKind
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.operations.results import VerifyReport
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, Manifest, Snapshot

_HEADER = (
    "kind",
    "label",
    "outcome",
    "parent",
    "file_count",
    "file_bytes",
    "database_count",
    "database_bytes",
    "new_bytes",
    "warning_count",
)


def remember_snapshot(session: Session, snapshot: Snapshot, *, run_id: str | None = None) -> BackupManifest:
    """Note the header of a snapshot; the caller commits."""
    row = find_row(session, snapshot.id)
    if row is None:
        row = BackupManifest(snapshot_id=snapshot.id, created_at=snapshot.created_at)
        session.add(row)
    for name in _HEADER:
        setattr(row, name, getattr(snapshot, name))
    row.backup_run_id = run_id or row.backup_run_id
    row.present = True
    return row


def remember_manifest(session: Session, manifest: Manifest, *, run_id: str | None = None) -> BackupManifest:
    """Note a whole manifest, and what its tables looked like; the caller commits."""
    row = remember_snapshot(session, manifest.snapshot, run_id=run_id)
    row.manifest_version = "1"
    row.database_dump_path = ", ".join(database.name for database in manifest.databases)
    row.database_checksum = _checksum(manifest.databases)
    row.files_manifest = {
        root.name: {
            "entries": root.entry_count,
            "files": root.file_count,
            "bytes": root.size,
            "read_at": format_time(datetime.fromtimestamp(root.scan_started_ns / 1e9, UTC)),
        }
        for root in manifest.files
    }
    row.details = {
        "system": dict(manifest.system),
        "warnings": list(manifest.warnings),
        "without_tables": [one.name for one in manifest.databases if not has_something(one)],
    }
    for database in manifest.databases:
        _track_changes(session, database, manifest.snapshot.created_at)
    return row


def remember_verification(session: Session, report: VerifyReport, at: datetime) -> None:
    """Note what reading a whole snapshot showed; the caller commits."""
    row = find_row(session, report.snapshot_id)
    if row is None:
        return
    row.problem = "; ".join(report.problems[:5])[:2000]
    row.verified_at = at if report.ok else None
    row.verified_bytes = report.bytes_read


def was_read_whole(session: Session, row: BackupManifest) -> bool:
    """Say whether a verification read all of a snapshot last; a backup reads back only what it added."""
    run = BackupRun
    read = (
        run.kind == RunKind.VERIFY,
        run.snapshot_id == row.snapshot_id,
        run.verified_at == row.verified_at,
    )
    return row.verified_at is not None and session.scalar(select(run.id).where(*read).limit(1)) is not None


def find_row(session: Session, snapshot_id: str) -> BackupManifest | None:
    """Return what we know of a snapshot."""
    return session.scalar(select(BackupManifest).where(BackupManifest.snapshot_id == snapshot_id))


def newest_snapshot_id(session: Session) -> str:
    """Return the id of the newest snapshot we know of; empty when there is none.

    What a restore replaced is the newest only when there is nothing else.
    """
    newest = (
        select(BackupManifest.snapshot_id)
        .where(BackupManifest.present.is_(True))
        .order_by(BackupManifest.kind == SAFETY, BackupManifest.created_at.desc())
    )
    return session.scalar(newest.limit(1)) or ""


def reindex(session: Session, repository: Repository) -> tuple[str, ...]:
    """Learn all snapshots from the repository; return a sentence for each problem.

    A snapshot we knew and the repository no longer has was forgotten on purpose when
    its history is whole; else it stays here, marked as missing.
    """
    known = {row.snapshot_id: row for row in session.scalars(select(BackupManifest))}
    problems = []
    ids = set(repository.snapshot_ids())
    for snapshot_id in ids:
        try:
            row = remember_snapshot(session, repository.snapshot(snapshot_id))
        except RepositoryError as error:
            problems.append(f"Snapshot {snapshot_id} cannot be read: {error}")
            continue
        if not row.manifest_version:
            problems += _fill(session, repository, snapshot_id)
    for row in known.values():
        row.present = row.snapshot_id in ids
        if not row.present and not repository.history_warning:
            session.delete(row)
    session.commit()
    return tuple(problems)


def forget_all(session: Session) -> None:
    """Drop what we know: another repository is in use. The caller commits."""
    session.execute(delete(BackupManifest))
    session.execute(delete(ChangeTracking))


def _fill(session: Session, repository: Repository, snapshot_id: str) -> list[str]:
    try:
        remember_manifest(session, repository.manifest(snapshot_id))
    except RepositoryError as error:
        return [f"Snapshot {snapshot_id} has a damaged manifest: {error}"]
    return []


def _checksum(databases: tuple[DatabaseEntry, ...]) -> str:
    return f"sha256:{databases[0].content.sha256}" if len(databases) == 1 else ""


def _track_changes(session: Session, database: DatabaseEntry, at: datetime) -> None:
    """Note rows and digest of each table, and when they last differed."""
    known = {
        row.table_name: row
        for row in session.scalars(
            select(ChangeTracking).where(ChangeTracking.database_name == database.name)
        )
    }
    for table in database.tables:
        row = known.pop(table.name, None)
        if row is None:
            row = ChangeTracking(database_name=database.name, table_name=table.name, checksum="")
            session.add(row)
        if row.last_backed_up is not None and row.last_backed_up > at:
            continue  # a reindex meets older snapshots after newer ones
        if row.checksum != table.checksum:
            row.last_change_timestamp = at
        row.row_count, row.checksum, row.last_backed_up = table.rows, table.checksum, at
    for row in known.values():
        if row.last_backed_up is None or row.last_backed_up <= at:
            session.delete(row)
