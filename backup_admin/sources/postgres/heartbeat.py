"""The newest time in a table that somebody keeps writing the time into: how fresh a restored server is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError, UsageError
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.driver import sql

if TYPE_CHECKING:
    from backup_admin.sources.postgres.address import PostgresAddress

_FORM = re.compile(r"([^:]+):(?:([^.]+)\.)?([^.]+)\.([^.]+)")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A column of times, and the database it is in."""

    database: str
    schema: str
    table: str
    column: str


def parse_heartbeat(text: str) -> Heartbeat:
    """Read `DATABASE:TABLE.COLUMN`, or with a schema before the table; raise `UsageError`."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no heartbeat. Write DATABASE:TABLE.COLUMN, or DATABASE:SCHEMA.TABLE.COLUMN."
        )
    return Heartbeat(found[1], found[2] or "public", found[3], found[4])


def newest_heartbeat(address: PostgresAddress, heartbeat: Heartbeat) -> datetime | None:
    """Return the newest time there is; raise `SourceError` when there is no such column of times."""
    column = sql.Identifier(heartbeat.column)
    table = sql.Identifier(heartbeat.schema, heartbeat.table)
    with connected(address) as connection:
        row = connection.execute(sql.SQL("SELECT max({}) FROM {}").format(column, table)).fetchone()
    newest = row[0] if row else None
    if newest is None:
        return None
    if not isinstance(newest, datetime):
        raise SourceError(f"{heartbeat.table}.{heartbeat.column} holds no times (timestamptz).")
    return newest.replace(tzinfo=newest.tzinfo or UTC)
