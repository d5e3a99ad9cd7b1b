"""Triggers that count changes of tables as they happen: installed when somebody wants it, and removed whole.

One sequence for each table: `nextval` keeps no writer waiting for another, as a row to be counted up would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError
from backup_admin.sources.postgres.catalog import NO_MEMBER, OWN_SCHEMAS
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.driver import sql
from backup_admin.sources.postgres.signals import COUNTER_PREFIX, counter_of, shown

if TYPE_CHECKING:
    import psycopg

    from backup_admin.sources.postgres.address import PostgresAddress

TRIGGER = "backup_admin_changed"
_LOCK_WAIT = "10s"
# A partitioned table as well: who writes through it fires its triggers, not those of its parts.
_TABLES = f"""
SELECT n.nspname, c.relname, t.oid IS NOT NULL
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = '{TRIGGER}'
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {OWN_SCHEMAS} AND {NO_MEMBER}
ORDER BY n.nspname, c.relname
"""  # noqa: S608 - of constants
_FUNCTIONS = """
SELECT n.nspname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = %s AND p.prorettype = 'trigger'::regtype
"""
_COUNTERS = """
SELECT schemaname, sequencename, coalesce(last_value, 0) FROM pg_sequences WHERE starts_with(sequencename, %s)
"""
_BODY = "BEGIN PERFORM nextval(TG_ARGV[0]::regclass); RETURN NULL; END"


@dataclass(frozen=True, slots=True)
class Counted:
    """A table, and how often something wrote to it; -1 when nothing counts."""

    table: str
    changes: int


def install(address: PostgresAddress) -> tuple[Counted, ...]:
    """Give each table a trigger that has none yet; all of them, or none. Raises `SourceError`."""
    with connected(address) as connection:
        _refuse_standby(connection, address)
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            have = {schema for (schema,) in connection.execute(_FUNCTIONS, (TRIGGER,))}
            for schema, name, is_counted in connection.execute(_TABLES.encode()).fetchall():
                if is_counted:
                    continue
                if schema not in have:
                    _make_function(connection, schema)
                    have.add(schema)
                _make_trigger(connection, schema, name)
        return _counted(connection)


def uninstall(address: PostgresAddress) -> int:
    """Remove all that `install` made; return from how many tables. Raises `SourceError`."""
    with connected(address) as connection, connection.transaction():
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
        tables = [row[:2] for row in connection.execute(_TABLES.encode()).fetchall() if row[2]]
        for schema, name in tables:
            drop = sql.SQL("DROP TRIGGER {} ON {}")
            connection.execute(drop.format(sql.Identifier(TRIGGER), sql.Identifier(schema, name)))
        for (schema,) in connection.execute(_FUNCTIONS, (TRIGGER,)).fetchall():
            connection.execute(sql.SQL("DROP FUNCTION {}()").format(sql.Identifier(schema, TRIGGER)))
        for schema, name, _ in connection.execute(_COUNTERS, (COUNTER_PREFIX,)).fetchall():
            connection.execute(sql.SQL("DROP SEQUENCE {}").format(sql.Identifier(schema, name)))
        return len(tables)


def show(address: PostgresAddress) -> tuple[Counted, ...]:
    """Return what was counted for each table."""
    with connected(address) as connection:
        return _counted(connection)


def _counted(connection: psycopg.Connection) -> tuple[Counted, ...]:
    counts = {name: count for _, name, count in connection.execute(_COUNTERS, (COUNTER_PREFIX,))}
    return tuple(
        Counted(shown(schema, name), int(counts.get(counter_of(schema, name), 0)) if is_counted else -1)
        for schema, name, is_counted in connection.execute(_TABLES.encode())
    )


def _make_function(connection: psycopg.Connection, schema: str) -> None:
    """Make what the triggers of a schema call; it runs as its owner, since writers need no right to count."""
    query = (
        "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS {}"
    )
    connection.execute(sql.SQL(query).format(sql.Identifier(schema, TRIGGER), sql.Literal(_BODY)))


def _make_trigger(connection: psycopg.Connection, schema: str, name: str) -> None:
    counter = sql.Identifier(schema, counter_of(schema, name))
    connection.execute(sql.SQL("CREATE SEQUENCE {}").format(counter))
    query = (
        "CREATE TRIGGER {} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} "
        "FOR EACH STATEMENT EXECUTE FUNCTION {}({})"
    )
    connection.execute(
        sql.SQL(query).format(
            sql.Identifier(TRIGGER),
            sql.Identifier(schema, name),
            sql.Identifier(schema, TRIGGER),
            sql.Literal(counter.as_string(connection)),
        )
    )


def _refuse_standby(connection: psycopg.Connection, address: PostgresAddress) -> None:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if row is None or row[0]:
        raise SourceError(f"{address.label} is a standby, which takes no triggers. Nothing was changed.")
