"""The plan of a restore in place: what would change, decided before anything does."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.ids import SnapshotId
from backup_admin.repository.keys import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Selection:
    """Which parts of a snapshot to restore; None means all that have a target."""

    files: tuple[str, ...] | None = None
    databases: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TableEffect:
    """Rows of one table now and then; -1 means that the table is not there."""

    table: str
    rows_now: int
    rows_then: int
    same: bool


@dataclass(frozen=True, slots=True)
class DatabasePart:
    """One database that would be replaced.

    `way` says how one on a server is exchanged (`sources.postgres.restoring.Way`); empty for a file.
    """

    name: str
    path: str
    size: int
    live_found: bool
    tables: tuple[TableEffect, ...]
    engine: str = "sqlite"
    way: str = ""


@dataclass(frozen=True, slots=True)
class FilesPart:
    """One folder tree that would be replaced."""

    name: str
    root: str
    size: int
    file_count: int
    live_found: bool
    added: int
    changed: int
    removed: int
    unchanged: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Everything a restore would do. The same plan always has the same digest."""

    snapshot_id: SnapshotId
    manifest_digest: str
    repo_id: str
    databases: tuple[DatabasePart, ...]
    files: tuple[FilesPart, ...]
    left_out: tuple[str, ...] = field(default=())

    @property
    def digest(self) -> str:
        """The SHA-256 of the plan, in hexadecimal."""
        return sha256(dump_canonical(self.to_json())).hex()

    @property
    def size(self) -> int:
        """Bytes that will be written."""
        return sum(part.size for part in self.databases) + sum(part.size for part in self.files)

    @property
    def places(self) -> str:
        """What would be replaced, in words: databases, folders or both."""
        kinds = (("database", len(self.databases)), ("folder", len(self.files)))
        return " and ".join(f"the {kind}{'' if count == 1 else 's'}" for kind, count in kinds if count)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RestorePlan:
        """Read what `to_json` wrote; raise `KeyError` or `TypeError`."""
        databases = tuple(
            DatabasePart(**{**part, "tables": tuple(TableEffect(**table) for table in part["tables"])})
            for part in value["databases"]
        )
        files = tuple(FilesPart(**{**part, "examples": tuple(part["examples"])}) for part in value["files"])
        return RestorePlan(
            SnapshotId(value["snapshot_id"]),
            str(value["manifest_digest"]),
            str(value["repo_id"]),
            databases,
            files,
            tuple(value["left_out"]),
        )
