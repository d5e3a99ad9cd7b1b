"""How a PostgreSQL server hands over its WAL, as any role may ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import parse_time
from backup_admin.core.errors import SourceError
from backup_admin.sources.postgres.connect import connected

if TYPE_CHECKING:
    from datetime import datetime

    from backup_admin.sources.postgres.address import PostgresAddress

_ARCHIVER = """
SELECT current_setting('archive_mode') <> 'off',
       (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout'),
       to_char(last_archived_time, 'YYYY-MM-DD"T"HH24:MI:SS.USTZH:TZM'),
       coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
  FROM pg_stat_archiver
"""


@dataclass(frozen=True, slots=True)
class Archiver:
    """Whether a server archives, how long it waits at most, when it last did, and whether that fails now."""

    is_on: bool
    timeout_seconds: int
    last_at: datetime | None
    is_failing: bool


def ask_archiver(address: PostgresAddress) -> Archiver:
    """Ask a server; raise `SourceMissing` or `SourceError`."""
    with connected(address) as connection:
        row = connection.execute(_ARCHIVER.encode()).fetchone()
    if row is None:
        raise SourceError(f"{address.label}: the server does not tell how it archives.")
    is_on, timeout, last, is_failing = row
    return Archiver(bool(is_on), int(timeout), parse_time(str(last)) if last else None, bool(is_failing))
