"""One digest over all that defines a PostgreSQL database, taken from the catalogues by the server itself.

Whoever changes a definition writes a row of a catalogue, and a row that was written has another transaction
or another place. What the server rewrites for itself is left out, or told by its columns.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from backup_admin.sources.postgres.driver import sql

if TYPE_CHECKING:
    import psycopg

# What statistics, replication and large objects write, and what is looked at by its columns.
_LEFT_OUT = (
    "pg_class",
    "pg_depend",
    "pg_largeobject",
    "pg_largeobject_metadata",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_subscription_rel",
)
_CATALOGUES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
  AND has_table_privilege(oid, 'SELECT') ORDER BY relname
"""
# Temporary tables come and go with sessions, and are in no backup.
_OF_A_TABLE = {
    "pg_attribute": "attrelid",
    "pg_attrdef": "adrelid",
    "pg_constraint": "conrelid",
    "pg_index": "indrelid",
    "pg_sequence": "seqrelid",
    "pg_trigger": "tgrelid",
    "pg_inherits": "inhrelid",
    "pg_rewrite": "ev_class",
}
_TEMPORARY = "SELECT oid FROM pg_class WHERE relpersistence = 't'"
_TEMPORARY_SCHEMAS = "SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'"
# Transaction 1 made the catalogues themselves: thousands of rows that nobody changes.
ROWS_WRITTEN = (
    "coalesce(sum(hashtextextended(xmin::text || ctid::text, 0)) FILTER (WHERE xmin <> '1'::xid), 0)::text"
)
"""Tells all rows of a catalogue from any others that were ever written there."""
_COLUMNS = """
SELECT 'pg_class', count(*), coalesce(sum(hashtextextended(ROW(oid, relname, relnamespace, relowner, relam,
  reltablespace, relkind, relpersistence, relnatts, relchecks, relrowsecurity, relforcerowsecurity,
  relreplident, relispartition, relispopulated, relacl, reloptions, relpartbound::text,
  (SELECT t.reloptions FROM pg_class t WHERE t.oid = c.reltoastrelid))::text, 0)), 0)::text
FROM pg_class c WHERE relkind <> 't' AND relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace
UNION ALL
SELECT 'pg_depend', count(*), coalesce(sum(hashtextextended(ROW(classid, objid, refobjid, deptype)::text, 0)),
  0)::text
FROM pg_depend WHERE deptype IN ('e', 'x')
UNION ALL
SELECT 'pg_subscription', count(*), coalesce(sum(hashtextextended(ROW(subname, subowner, subenabled,
  subslotname, subpublications)::text, 0)), 0)::text
FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 'database', 1, ROW(d.datname, d.datdba, d.encoding, d.datcollate, d.datctype, d.datacl, d.datconnlimit,
  shobj_description(d.oid, 'pg_database'),
  ARRAY(SELECT ROW(setrole, setconfig)::text FROM pg_db_role_setting
    WHERE setdatabase = d.oid ORDER BY setrole),
  ARRAY(SELECT DISTINCT r.rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
    WHERE s.dbid = d.oid AND s.refclassid = 'pg_authid'::regclass ORDER BY 1))::text
FROM pg_database d WHERE d.datname = current_database()
"""


def print_catalog(connection: psycopg.Connection) -> str:
    """Return a digest that changes when any definition, owner, right or comment does."""
    names = [str(name) for (name,) in connection.execute(_CATALOGUES)]
    parts = [_rows_of(name) for name in names if name not in _LEFT_OUT]
    found: list[Any] = connection.execute(sql.SQL(" UNION ALL ").join([*parts, sql.SQL(_COLUMNS)])).fetchall()
    text = "\n".join(sorted(f"{name} {count} {total}" for name, count, total in found))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _rows_of(name: str) -> sql.Composed:
    condition = ""
    if name in _OF_A_TABLE:
        condition = f" WHERE {_OF_A_TABLE[name]} NOT IN ({_TEMPORARY})"
    elif name == "pg_type":
        condition = f" WHERE typnamespace NOT IN ({_TEMPORARY_SCHEMAS})"
    elif name == "pg_namespace":
        condition = f" WHERE oid NOT IN ({_TEMPORARY_SCHEMAS})"
    return sql.SQL("SELECT {}, count(*), {} FROM {}{}").format(
        sql.Literal(name),
        sql.SQL(ROWS_WRITTEN),
        sql.Identifier("pg_catalog", name),
        sql.SQL(condition),
    )
