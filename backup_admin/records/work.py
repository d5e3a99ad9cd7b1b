"""Tables of what is done: runs, what they made, restores and schedules."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from backup_admin.records.base import Base, Word


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    DEGRADED = "degraded"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


ACTIVE_RUNS = (RunStatus.QUEUED, RunStatus.RUNNING)


class RunKind(StrEnum):
    """What a run does."""

    BACKUP = "backup"
    VERIFY = "verify"
    CLUSTER = "cluster"
    """A base backup of the PostgreSQL server that its label names, into a repository of its own."""


class Trigger(StrEnum):
    """What made a run start."""

    MANUAL = "manual"
    SCHEDULED = "scheduled"
    COMMAND = "command"


class RestoreStatus(StrEnum):
    """Where a restore stands."""

    DRAFT = "draft"
    QUEUED = "queued"
    RUNNING = "running"
    RESTORED = "restored"
    ROLLED_BACK = "rolled_back"
    NEEDS_ATTENTION = "needs_attention"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    UNDONE = "undone"


ACTIVE_RESTORES = (RestoreStatus.QUEUED, RestoreStatus.RUNNING)


def _only_one_active(name: str) -> Index:
    active = text("status IN ('queued', 'running')")
    return Index(name, "target", unique=True, sqlite_where=active, postgresql_where=active)


class Progress:
    """Columns in which a running job tells what it is doing."""

    stage: Mapped[str] = mapped_column(String(40), default="")
    stage_index: Mapped[int] = mapped_column(Integer, default=0)
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_total: Mapped[int] = mapped_column(BigInteger, default=0)
    items_done: Mapped[int] = mapped_column(BigInteger, default=0)
    items_total: Mapped[int] = mapped_column(BigInteger, default=0)
    current: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    worker: Mapped[str] = mapped_column(String(120), default="")
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)


class BackupRun(Progress, Base):
    """One attempt to make, or to verify, a snapshot."""

    __tablename__ = "backup_runs"
    __table_args__ = (
        UniqueConstraint("schedule_id", "slot"),
        _only_one_active("uq_backup_runs_active_target"),
        Index("ix_backup_runs_created_at_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    target: Mapped[str] = mapped_column(String(120))
    """What only one active run may work on."""
    kind: Mapped[RunKind] = mapped_column(Word(RunKind))
    trigger: Mapped[Trigger] = mapped_column(Word(Trigger))
    status: Mapped[RunStatus] = mapped_column(Word(RunStatus), default=RunStatus.QUEUED)
    label: Mapped[str] = mapped_column(String(200), default="")
    actor_id: Mapped[str] = mapped_column(String(255), default="")
    actor_name: Mapped[str] = mapped_column(String(255), default="")
    schedule_id: Mapped[int | None] = mapped_column(ForeignKey("backup_schedules.id", ondelete="SET NULL"))
    slot: Mapped[str | None] = mapped_column(String(20))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    snapshot_id: Mapped[str] = mapped_column(String(26), default="")
    """The snapshot it made; for a verify run the one it read."""
    total_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    new_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    error_message: Mapped[str] = mapped_column(Text, default="")
    error_id: Mapped[str] = mapped_column(String(26), default="")
    """Set for an unexpected error: the same id stands in the log of the worker."""
    objects_read: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_read: Mapped[int] = mapped_column(BigInteger, default=0)
    verified_at: Mapped[datetime | None]
    """When the bytes counted above were read back and found right."""
    log: Mapped[str] = mapped_column(Text, default="")
    storages: Mapped[list[Any]] = mapped_column(default=list)
    """What it came to in each storage (`PlaceState.as_plain`)."""
    if_changed: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether it may be skipped when nothing changed."""
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it was skipped, or why one that may be was not."""
    unchanged_id: Mapped[str] = mapped_column(String(26), default="")
    """For a skipped run: the snapshot that still holds everything."""


class BackupManifest(Base):
    """What we know of one snapshot; a cache, rebuilt from the repository."""

    __tablename__ = "backup_manifests"
    __table_args__ = (Index("ix_backup_manifests_created_at", "created_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    snapshot_id: Mapped[str] = mapped_column(String(26), unique=True)
    backup_run_id: Mapped[str | None] = mapped_column(ForeignKey("backup_runs.id", ondelete="SET NULL"))
    manifest_version: Mapped[str] = mapped_column(String(20), default="")
    created_at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(20), default="")
    label: Mapped[str] = mapped_column(String(200), default="")
    outcome: Mapped[str] = mapped_column(String(20), default="")
    parent: Mapped[str] = mapped_column(String(26), default="")
    file_count: Mapped[int] = mapped_column(BigInteger, default=0)
    file_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    database_count: Mapped[int] = mapped_column(Integer, default=0)
    database_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    new_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    warning_count: Mapped[int] = mapped_column(Integer, default=0)
    database_dump_path: Mapped[str] = mapped_column(Text, default="")
    """Names of the databases inside the snapshot, with commas between them."""
    database_checksum: Mapped[str] = mapped_column(String(80), default="")
    files_manifest: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Count and bytes of each root; the paths are in the repository's manifest."""
    details: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    present: Mapped[bool] = mapped_column(Boolean, default=True)
    """False when the repository no longer has it: shown as missing, never offered."""
    verified_at: Mapped[datetime | None]
    verified_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    problem: Mapped[str] = mapped_column(Text, default="")
    """What the last verification found wrong; empty when nothing."""


class RestoreOperation(Progress, Base):
    """One restore, from the first step of the wizard to its undo."""

    __tablename__ = "restore_operations"
    __table_args__ = (_only_one_active("uq_restore_operations_active"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    target: Mapped[str] = mapped_column(String(120), default="app")
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    status: Mapped[RestoreStatus] = mapped_column(Word(RestoreStatus), default=RestoreStatus.DRAFT)
    action: Mapped[str] = mapped_column(String(10), default="restore")
    """`restore`, or `undo` once the person wants the state before it back."""
    restore_type: Mapped[str] = mapped_column(String(20), default="full")
    """`full`, `partial`, `database_only`, `files_only` or `rows`."""
    source_backup_id: Mapped[str | None] = mapped_column(ForeignKey("backup_runs.id", ondelete="SET NULL"))
    snapshot_id: Mapped[str] = mapped_column(String(26), default="")
    restored_by: Mapped[str] = mapped_column(String(255), default="")
    """Stable id of the person; the name as it was then is beside it."""
    restored_by_name: Mapped[str] = mapped_column(String(255), default="")
    step: Mapped[int] = mapped_column(Integer, default=1)
    selection: Mapped[dict[str, Any]] = mapped_column(default=dict)
    plan: Mapped[str] = mapped_column(Text, default="")
    """The plan in its canonical JSON; its digest is what is confirmed."""
    plan_digest: Mapped[str] = mapped_column(String(64), default="")
    planned_at: Mapped[datetime | None]
    issues: Mapped[list[Any]] = mapped_column(default=list)
    reason: Mapped[str] = mapped_column(Text, default="")
    checks: Mapped[list[Any]] = mapped_column(default=list)
    safety_snapshot_id: Mapped[str] = mapped_column(String(26), default="")
    undo_until: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]
    journal_id: Mapped[str] = mapped_column(String(26), default="")
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    message: Mapped[str] = mapped_column(Text, default="")
    error_message: Mapped[str] = mapped_column(Text, default="")
    error_id: Mapped[str] = mapped_column(String(26), default="")
    restore_log: Mapped[str] = mapped_column(Text, default="")


class BackupSchedule(Base):
    """When a run shall start by itself."""

    __tablename__ = "backup_schedules"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    kind: Mapped[RunKind] = mapped_column(Word(RunKind), default=RunKind.BACKUP)
    cron: Mapped[str] = mapped_column(String(120))
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    next_run_at: Mapped[datetime | None]
    last_claimed_at: Mapped[datetime | None]
    last_note: Mapped[str] = mapped_column(Text, default="")
    """Why the newest slot made no run, when it made none."""
    version: Mapped[int] = mapped_column(Integer, default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    updated_by: Mapped[str] = mapped_column(String(255), default="")

    runs: Mapped[list[BackupRun]] = relationship(viewonly=True)


class ChangeTracking(Base):
    """What each table looked like in the newest snapshot."""

    __tablename__ = "backup_change_tracking"
    __table_args__ = (UniqueConstraint("database_name", "table_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    database_name: Mapped[str] = mapped_column(String(64))
    table_name: Mapped[str] = mapped_column(Text)
    last_change_timestamp: Mapped[datetime | None]
    row_count: Mapped[int] = mapped_column(BigInteger, default=0)
    checksum: Mapped[str] = mapped_column(String(80), default="")
    last_backed_up: Mapped[datetime | None]
