"""A whole PostgreSQL cluster, protected by base backups. Nothing slow is loaded before one is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from backup_admin.sources.postgres.address import PostgresAddress


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What a base backup is: places in the WAL, and when it ended by the server's clock."""

    system: str
    timeline: int
    start: int
    end: int
    segment_bytes: int
    finished_at: datetime
    server_version: str
    verified_by: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterSource:
    """A cluster under a name; programs of the server in the folder `programs` come before any other."""

    name: str
    address: PostgresAddress
    programs: Path | None = None

    def check(self) -> None:
        """Raise `SourceMissing`, `SourceError` or `NoClient` when no base backup could be taken now."""
        from backup_admin.sources.postgres.base_backup import check_cluster  # noqa: PLC0415 - slow to load

        check_cluster(self.address, self.programs)

    def copy_into(self, folder: Path) -> BaseFacts:
        """Take a base backup into a new folder; raises what `check` does."""
        from backup_admin.sources.postgres.base_backup import take_base_backup  # noqa: PLC0415 - as above

        return take_base_backup(self.address, self.programs, folder)
