"""A PostgreSQL database that is protected. Nothing slow is loaded before it is captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.sources.postgres.clients import choose_for_dump, find_clients

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.capture import PostgresCapture
    from backup_admin.sources.postgres.signals import Comparison


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

    def signals(self) -> dict[str, Any]:
        """Return what tells this state of the database from another; raises what `check` does."""
        from backup_admin.sources.postgres.connect import connected  # noqa: PLC0415 - slow to load
        from backup_admin.sources.postgres.signals import read_signals  # noqa: PLC0415 - slow to load

        with connected(self.address) as connection:
            return read_signals(connection)

    def compare(self, noted: Mapping[str, Any], ignores: Callable[[str], bool]) -> Comparison:
        """Compare the database with signals that were noted; raises what `check` does."""
        from backup_admin.sources.postgres.connect import connected  # noqa: PLC0415 - slow to load
        from backup_admin.sources.postgres.signals import compare_signals  # noqa: PLC0415 - slow to load

        with connected(self.address) as connection:
            return compare_signals(connection, noted, ignores)

    def digests(self, tables: Collection[str]) -> dict[str, str]:
        """Read tables in one snapshot; return the digest of each, as a capture takes it."""
        from backup_admin.sources.postgres.connect import connected  # noqa: PLC0415 - slow to load
        from backup_admin.sources.postgres.table_digests import digest_tables  # noqa: PLC0415 - slow to load

        with connected(self.address) as connection:
            return digest_tables(connection, tables)
