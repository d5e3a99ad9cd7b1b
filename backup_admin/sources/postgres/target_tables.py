"""The tables and triggers of a database that rows are loaded into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.sources.formats.matching import TargetTable
from backup_admin.sources.postgres.catalog import OWN_SCHEMAS, TYPE
from backup_admin.sources.postgres.driver import sql

if TYPE_CHECKING:
    import psycopg

# A table with partitions takes rows and hands them on; a partition takes them too.
_TABLES = f"""
SELECT n.nspname, c.relname, c.relkind::text,
  ARRAY(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum),
  ARRAY(SELECT {TYPE}
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum),
  ARRAY(SELECT a.attname::text
        FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS key(number, place), pg_attribute a
        WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = key.number
        ORDER BY key.place)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {OWN_SCHEMAS}
ORDER BY n.nspname, c.relname
"""  # noqa: S608 - of constants
_TRIGGERS = f"""
SELECT n.nspname, c.relname, t.tgname, t.tgenabled::text
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND c.relkind IN ('r', 'p') AND {OWN_SCHEMAS}
ORDER BY 1, 2, 3
"""  # noqa: S608 - of constants
_STATES = {"O": "ENABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}
_PARTITIONED = "partitioned"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of the app that is on."""

    table: tuple[str, str]
    name: str
    state: str

    def off(self) -> sql.Composed:
        """Return the statement that turns it off."""
        return self._alter("DISABLE TRIGGER")

    def on(self) -> sql.Composed:
        """Return the statement that turns it on as it was."""
        return self._alter(_STATES[self.state])

    def _alter(self, action: str) -> sql.Composed:
        names = (sql.Identifier(*self.table), sql.SQL(action), sql.Identifier(self.name))
        return sql.SQL("ALTER TABLE ONLY {} {} {}").format(*names)


def target_tables(connection: psycopg.Connection) -> list[TargetTable]:
    """Return all tables of the app."""
    return [
        TargetTable(
            schema,
            name,
            tuple(columns),
            tuple(types),
            tuple(key),
            "table" if kind == "r" else _PARTITIONED,
        )
        for schema, name, kind, columns, types, key in connection.execute(_TABLES)
    ]


def read_triggers(connection: psycopg.Connection) -> list[Trigger]:
    """Return the triggers that would run."""
    rows = connection.execute(_TRIGGERS).fetchall()
    return [Trigger((schema, table), name, state) for schema, table, name, state in rows]


def table_name(table: TargetTable) -> sql.Composable:
    """Return the name of a table as it stands in a query: its own rows, or those of all its partitions."""
    name = sql.Identifier(table.schema, table.name)
    return name if table.kind == _PARTITIONED else sql.SQL("ONLY {}").format(name)
