"""Rows that make the pages show every state: a month of runs and restores."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from backup_admin.control.app_clusters import STATE_KEY as STATE_KEY_OF_CLUSTERS
from backup_admin.control.copies import Medium
from backup_admin.control.destinations import STATES_KEY, PlaceState, Role
from backup_admin.control.stored import write_value
from backup_admin.core.clock import SystemClock, format_time
from backup_admin.core.ids import new_ulid
from backup_admin.records import (
    BackupManifest,
    BackupRun,
    BackupSchedule,
    RestoreOperation,
    RestoreStatus,
    RunKind,
    RunStatus,
    Trigger,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

GIB = 1 << 30
MIB = 1 << 20


def add_run(
    session: Session, at: datetime, status: RunStatus = RunStatus.COMPLETED, **more: Any
) -> BackupRun:
    """Add a backup that began at a time, with its snapshot where it made one."""
    backup = more.get("kind", RunKind.BACKUP) == RunKind.BACKUP
    made = backup and status in (RunStatus.COMPLETED, RunStatus.DEGRADED)
    values: dict[str, Any] = {
        "id": new_ulid(at),
        "target": new_ulid(at),
        "kind": RunKind.BACKUP,
        "trigger": Trigger.SCHEDULED,
        "status": status,
        "label": "Every night",
        "created_at": at,
        "started_at": at,
        "finished_at": at + timedelta(seconds=42),
        "stage": "verify" if made else "files",
        "heartbeat_at": at + timedelta(seconds=42),
    }
    if made:
        values |= {"snapshot_id": new_ulid(at), "total_bytes": 21 * GIB, "new_bytes": 180 * MIB}
        values |= {"objects_read": 412, "bytes_read": 190 * MIB, "verified_at": at + timedelta(seconds=42)}
    run = BackupRun(**{**values, **more})
    session.add(run)
    session.flush()
    if made:
        session.add(_manifest(run))
    return run


def add_safety(session: Session, at: datetime) -> BackupManifest:
    """Add what a restore of the database replaced, read back like any backup."""
    row = BackupManifest(
        snapshot_id=new_ulid(at),
        manifest_version="1",
        created_at=at,
        kind="safety",
        label="before restore 01m",
        outcome="completed",
        database_count=1,
        database_bytes=2 * MIB,
        database_dump_path="gallery",
        new_bytes=MIB,
        verified_at=at,
    )
    session.add(row)
    session.flush()
    return row


def add_running(session: Session, now: datetime, **more: Any) -> BackupRun:
    """Add a backup that is under way."""
    values = {
        "trigger": Trigger.MANUAL,
        "actor_name": "admin",
        "label": "",
        "finished_at": None,
        "stage": "files",
        "stage_index": 2,
        "bytes_done": 8 * GIB,
        "bytes_total": 21 * GIB,
        "items_done": 3_120,
        "items_total": 9_000,
        "current": "storage/events/active/wedding-anna-bo-2026-06-12/Anna_Bo_Ceremony_0412.JPG",
        "heartbeat_at": now,
        "target": "backup",
    }
    return add_run(session, now - timedelta(seconds=35), RunStatus.RUNNING, **{**values, **more})


def add_verification(session: Session, at: datetime, snapshot_id: str, status: RunStatus) -> BackupRun:
    """Add a later verification of a snapshot."""
    good = status == RunStatus.COMPLETED
    return add_run(
        session,
        at,
        status,
        kind=RunKind.VERIFY,
        trigger=Trigger.MANUAL,
        actor_name="admin",
        label="",
        stage="verify",
        snapshot_id=snapshot_id,
        bytes_read=21 * GIB,
        objects_read=9_004,
        warnings=[] if good else ["storage/events/0412.JPG: its bytes are not as they were saved"],
        error_message="" if good else "1 thing is not as it was saved.",
    )


def add_base_backups(session: Session, now: datetime) -> BackupRun:
    """Add servers: one that archives and one that does not, with base backups that failed and did not."""
    rows: list[dict[str, Any]] = [
        {"name": "main", "noted_at": format_time(now), "timeout": 60, "archived_at": format_time(now)},
        {
            "name": "reports",
            "noted_at": format_time(now),
            "timeout": 0,
            "problem": "its archive_command fails",
        },
    ]
    write_value(session, SystemClock(), STATE_KEY_OF_CLUSTERS, rows)
    more: dict[str, Any] = {
        "kind": RunKind.CLUSTER,
        "stage": "verify",
        "objects_read": 40,
        "bytes_read": 60 * MIB,
    }
    good: dict[str, Any] = {
        "label": "main",
        "snapshot_id": new_ulid(now),
        "total_bytes": 4 * GIB,
        "new_bytes": 60 * MIB,
    }
    failed: dict[str, Any] = {
        "label": "reports",
        "error_message": "postgresql://db/postgres: pg_basebackup ended with 1.",
    }
    add_run(session, now - timedelta(hours=3), RunStatus.FAILED, **more, **failed)
    return add_run(session, now - timedelta(hours=5), **more, **good)


def add_restore(session: Session, at: datetime, status: RestoreStatus, **more: Any) -> RestoreOperation:
    """Add a restore that began at a time."""
    ended = status not in (RestoreStatus.QUEUED, RestoreStatus.RUNNING, RestoreStatus.DRAFT)
    values: dict[str, Any] = {
        "id": new_ulid(at),
        "target": "app",
        "created_at": at,
        "started_at": at,
        "completed_at": at + timedelta(seconds=96) if ended else None,
        "heartbeat_at": at,
        "status": status,
        "restored_by": "id-admin",
        "restored_by_name": "admin",
        "reason": "The import of Monday overwrote the guest lists",
        "stage": "check" if ended else "safety_backup",
        "bytes_done": 9 * GIB,
        "bytes_total": 21 * GIB,
    }
    operation = RestoreOperation(**{**values, **more})
    session.add(operation)
    session.flush()
    return operation


def add_storages(session: Session, run: BackupRun, now: datetime) -> None:
    """Let a run have gone to three storages, one of which lacks it."""
    good_at = run.finished_at or now
    away = "The folder could not be reached: the connection failed: connection timed out. Try again later."
    bucket, host = (
        "s3://gallery-backups/app at s3.example",
        "ssh://backup@nas.office.example/srv/backups/gallery",
    )
    before = good_at - timedelta(days=3)
    rows = [
        PlaceState("/mnt/backups/gallery", Role.STORAGE, Medium.OTHER_DISK, False, good_at, good_at, 412),
        PlaceState(bucket, Role.MIRROR, Medium.BUCKET, True, good_at, good_at, 412),
        PlaceState(host, Role.MIRROR, Medium.HOST, True, good_at, before, 398, away),
    ]
    run.storages = [row.as_plain() for row in rows]
    write_value(session, SystemClock(), STATES_KEY, run.storages)


def fill_month(session: Session, now: datetime) -> BackupRun:
    """Add a month of nightly backups with all that can happen; return the newest good one."""
    night = now.replace(hour=2, minute=30, second=0, microsecond=0)
    if night > now - timedelta(hours=1):
        night -= timedelta(days=1)
    for days in range(29, 3, -1):
        add_run(session, night - timedelta(days=days), _EVENTS.get(days, RunStatus.COMPLETED), **_told(days))
    for days in (3, 2, 1):
        add_run(session, night - timedelta(days=days))
    newest = add_run(session, night, new_bytes=96 * MIB)
    add_verification(session, night - timedelta(hours=20), newest.snapshot_id, RunStatus.COMPLETED)
    session.add(
        BackupSchedule(
            name="Every night",
            cron="30 2 * * *",
            timezone="Europe/Berlin",
            next_run_at=night + timedelta(days=1),
            created_at=night,
            updated_at=night,
        )
    )
    session.commit()
    return newest


_EVENTS = {
    27: RunStatus.FAILED,
    19: RunStatus.DEGRADED,
    12: RunStatus.CANCELLED,
    9: RunStatus.INTERRUPTED,
}
_TOLD: dict[int, dict[str, Any]] = {
    27: {"error_message": "The storage /srv/backups cannot be reached: the folder is not there."},
    19: {
        "warnings": ["photos/2026/IMG_0007.jpg: Permission denied", "photos/2026/IMG_0008.jpg: vanished"],
        "error_message": "Not everything that was asked for is in this snapshot.",
    },
    12: {"error_message": "Stopped because a person asked for it; nothing half done is left."},
    9: {"error_message": "Its process (web1:4711) has been silent since 02:31: it was killed."},
}


def _told(days: int) -> dict[str, Any]:
    return _TOLD.get(days, {})


def _manifest(run: BackupRun) -> BackupManifest:
    return BackupManifest(
        snapshot_id=run.snapshot_id,
        backup_run_id=run.id,
        manifest_version="1",
        created_at=run.created_at,
        kind="scheduled",
        label=run.label,
        outcome=run.status.value,
        file_count=9_002,
        file_bytes=20 * GIB,
        database_count=1,
        database_bytes=GIB,
        database_dump_path="gallery",
        files_manifest={"photos": {}},
        new_bytes=run.new_bytes,
        warning_count=len(run.warnings or []),
        verified_at=run.verified_at,
        verified_bytes=run.bytes_read,
    )
