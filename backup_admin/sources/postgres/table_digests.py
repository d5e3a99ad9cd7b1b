"""Digests of tables in a database in use, those that a capture would note."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from backup_admin.sources.postgres.catalog import read_catalog
from backup_admin.sources.postgres.connect import take_rows_as_they_are

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg


def digest_tables(connection: psycopg.Connection, names: Collection[str]) -> dict[str, str]:
    """Read the tables of these names in one snapshot; one that is gone is left out.

    Nothing is kept in memory but a row.
    """
    connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    found = {}
    tables = read_catalog(connection).tables
    take_rows_as_they_are(connection)
    for table in tables:
        if table.shown not in names:
            continue
        hasher = hashlib.sha256()
        with connection.cursor() as cursor, cursor.copy(table.copy_out().as_bytes()) as copy:
            for block in copy:
                hasher.update(block)
        found[table.shown] = f"sha256:{hasher.hexdigest()}"
    connection.execute("COMMIT")
    return found
