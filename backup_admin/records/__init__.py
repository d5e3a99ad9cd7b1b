"""The tables of the control database."""

from backup_admin.records.base import Base
from backup_admin.records.configuration import Heartbeat, StoredSetting
from backup_admin.records.database import Database
from backup_admin.records.people import RecoveryCode, SecondFactor, StepUp, User
from backup_admin.records.work import (
    ACTIVE_RESTORES,
    ACTIVE_RUNS,
    BackupManifest,
    BackupRun,
    BackupSchedule,
    ChangeTracking,
    RestoreOperation,
    RestoreStatus,
    RunKind,
    RunStatus,
    Trigger,
)

__all__ = [
    "ACTIVE_RESTORES",
    "ACTIVE_RUNS",
    "BackupManifest",
    "BackupRun",
    "BackupSchedule",
    "Base",
    "ChangeTracking",
    "Database",
    "Heartbeat",
    "RecoveryCode",
    "RestoreOperation",
    "RestoreStatus",
    "RunKind",
    "RunStatus",
    "SecondFactor",
    "StepUp",
    "StoredSetting",
    "Trigger",
    "User",
]
