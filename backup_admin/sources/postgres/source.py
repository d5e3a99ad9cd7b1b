"""A PostgreSQL database that is protected. Nothing slow is loaded before it is captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.sources.postgres.clients import choose_for_dump, find_clients

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.capture import PostgresCapture


@dataclass(frozen=True, slots=True)
class PostgresSource:
    """A database under a name; client programs in the folder `programs` come before any other.

    `as_superuser` says that somebody knows, and wants, that what a backup defines is run by one, `archive`
    that it is written as one archive also where parts would do.
    """

    name: str
    address: PostgresAddress
    programs: Path | None = None
    as_superuser: bool = False
    archive: bool = False

    def check(self) -> None:
        """Raise `SourceMissing`, `SourceError` or `NoClient` when it could not be captured now."""
        from backup_admin.sources.postgres.connect import connected  # noqa: PLC0415 - slow to load

        with connected(self.address) as connection:
            choose_for_dump(find_clients(self.programs), connection.info.server_version // 10_000)

    def capturing(self) -> AbstractContextManager[PostgresCapture]:
        """Begin a snapshot, kept for the block; raises what `check` does."""
        from backup_admin.sources.postgres.capture import capturing  # noqa: PLC0415 - slow to load

        return capturing(self.address, find_clients(self.programs), archive=self.archive)
