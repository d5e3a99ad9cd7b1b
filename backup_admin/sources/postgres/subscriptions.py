"""Subscriptions of a database that is to be dropped: while it has one, the server keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import Busy
from backup_admin.sources.postgres.connect import connected, explain
from backup_admin.sources.postgres.driver import psycopg, sql

if TYPE_CHECKING:
    from backup_admin.sources.postgres.address import PostgresAddress

_OF_DATABASE = """
SELECT subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = %s
"""


def leave_subscriptions(server: psycopg.Connection, address: PostgresAddress) -> None:
    """Drop the subscriptions in the database of an address, asked of another one of its server.

    What they read from is not told: the live database may read from the same place. Raises `Busy` when they
    belong to others.
    """
    name = address.database
    names = [str(row[0]) for row in server.execute(_OF_DATABASE, (name,))]
    if not names:
        return
    try:
        server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))
        with connected(address) as connection:
            for one in map(sql.Identifier, names):
                connection.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(one))
                connection.execute(sql.SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(one))
                connection.execute(sql.SQL("DROP SUBSCRIPTION {}").format(one))
    except psycopg.errors.InsufficientPrivilege as error:
        raise Busy(
            f"Database {name} cannot be dropped while it has the subscription {', '.join(names)}: "
            f"{explain(error)} Let a superuser disable it, set its slot_name to NONE and drop it."
        ) from error
