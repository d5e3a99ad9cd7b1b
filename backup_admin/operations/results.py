"""What operations are given and what comes out of them: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.types import Snapshot
    from backup_admin.sources.app_settings import SettingsSource
    from backup_admin.sources.files import FileSource
    from backup_admin.sources.postgres.cluster import ClusterSource
    from backup_admin.sources.postgres.source import PostgresSource
    from backup_admin.sources.sqlite import SqliteSource


class Outcome(StrEnum):
    """How a backup ended when it made a snapshot.

    `DEGRADED` means that the snapshot lacks something that was asked for, or a lock on what it needs.
    """

    COMPLETED = "completed"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class SourceSet:
    """Everything that is protected together, as one snapshot."""

    files: tuple[FileSource, ...] = ()
    databases: tuple[SqliteSource, ...] = ()
    postgres: tuple[PostgresSource, ...] = ()
    clusters: tuple[ClusterSource, ...] = ()
    settings: SettingsSource | None = None

    def database_names(self) -> list[str]:
        """Return the names of all databases, of whatever kind."""
        sources = (self.databases, self.postgres, self.clusters)
        return [source.name for kind in sources for source in kind]


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What a backup is called and who wants it."""

    label: str = ""
    kind: str = "manual"
    actor: str = ""
    app_version: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read back from the storage and found to be as written."""

    objects_read: int
    bytes_read: int

    def plus(self, other: Evidence) -> Evidence:
        """Return both together."""
        return Evidence(self.objects_read + other.objects_read, self.bytes_read + other.bytes_read)


@dataclass(frozen=True, slots=True)
class DatabaseCount:
    """How much a captured database holds."""

    name: str
    tables: int
    rows: int


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What a backup made, and what proves it.

    `warnings` name what the snapshot lacks, `lock_problems` what could not be locked for long enough.
    """

    snapshot: Snapshot
    outcome: Outcome
    warnings: tuple[str, ...]
    notices: tuple[str, ...]
    evidence: Evidence
    new_bytes: int
    seconds: float
    lock_problems: tuple[str, ...] = ()
    databases: tuple[DatabaseCount, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What reading a whole snapshot showed."""

    snapshot_id: SnapshotId
    files: int
    databases: int
    bytes_read: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte was there and as the manifest says."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class ObjectDamage:
    """A damaged or missing object and what it affects: few files by name, the rest counted."""

    name: str
    message: str
    snapshots: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    more_files: int = 0


@dataclass(frozen=True, slots=True)
class SampleResult:
    """How far a scrub in parts has come. Covered is what was read and good within `runs` runs."""

    runs: int
    packs_read: int
    packs_covered: int
    packs: int
    bytes_covered: int
    bytes: int
    oldest: str

    @property
    def percent(self) -> float:
        """The part of all bytes that is covered, rounded down: 100 means all of it."""
        if not self.bytes:
            return 100.0
        return self.bytes_covered * 1000 // self.bytes / 10


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of a repository showed."""

    snapshots: int
    objects: int
    bytes_read: int
    read_data: bool
    problems: tuple[str, ...]
    notices: tuple[str, ...] = ()
    damage: tuple[ObjectDamage, ...] = ()
    sample: SampleResult | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class ExtractPlan:
    """What a restore into a folder would write."""

    snapshot_id: SnapshotId
    files: int
    databases: int
    settings: bool
    size: int


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What a restore into a folder wrote; problems are entries that are not as they were."""

    snapshot_id: SnapshotId
    files: int
    databases: int
    bytes_written: int
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything asked for is there and as the manifest says."""
        return not self.problems
