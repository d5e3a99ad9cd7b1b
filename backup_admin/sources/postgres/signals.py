"""What tells whether a PostgreSQL database changed, without reading its rows.

Two states between which no transaction became visible are equal: `visible`, the set of transactions that
are, says so at once, and neither vacuum nor checkpoints nor a busy disk move it. Sequences do not follow
transactions and stand beside it. Counters come late, so where other databases of the server work they only
count when every session here has told its own (`_are_settled`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.sources.postgres.catalog import NO_MEMBER, OWN_SCHEMAS
from backup_admin.sources.postgres.catalog_print import ROWS_WRITTEN, print_catalog
from backup_admin.sources.postgres.driver import errors, sql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psycopg

VERSION = 1
COUNTER_PREFIX = "backup_admin_changes_"
"""How the sequences of our own triggers begin; they count changes and are none."""
_COUNTS_EXACTLY = 150_000  # an older server may lose counts on their way, and does not hurry them
# Before that, `stats_reset` also moves when the first counts of a new database come in.
_OWN_SEQUENCE = "sequencename LIKE 'backup\\_admin\\_changes\\_%'"
_STANDING = """
SELECT pg_current_snapshot()::text, pg_is_in_recovery(), pg_postmaster_start_time()::text,
  (SELECT stats_reset::text FROM pg_stat_bgwriter),
  (SELECT stats_reset::text FROM pg_stat_database WHERE datname = current_database()
    AND current_setting('server_version_num')::int >= 150000),
  (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
  current_setting('track_counts') = 'on',
  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text
"""
_EPOCH = (
    (("system", "database"), "it is another database than the one that was captured."),
    (("timeline",), "its server was restored or took over from another since."),
    (("started",), "its server was started again since."),
    (("failed", "reset"), "the statistics of its server were reset since, by a person or by a crash."),
)
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TIMELINE = "SELECT timeline_id::text FROM pg_control_checkpoint()"
_SEQUENCES = f"""
SELECT md5(coalesce(string_agg(format('%I.%I=%s', schemaname, sequencename, last_value), ','
  ORDER BY schemaname, sequencename), '')) FROM pg_sequences WHERE NOT {_OWN_SEQUENCE}
"""  # noqa: S608 - of constants
# Which table a sequence belongs to: where that one does not count, neither does its sequence.
_SEQUENCE_ROWS = f"""
SELECT s.schemaname, s.sequencename, s.last_value, t.nspname, t.relname,
  has_sequence_privilege(format('%I.%I', s.schemaname, s.sequencename), 'SELECT')
FROM pg_sequences s LEFT JOIN LATERAL (
  SELECT n.nspname, c.relname FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid
    JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    AND d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass LIMIT 1) t ON true
WHERE NOT {_OWN_SEQUENCE}
"""  # noqa: S608 - of constants
_COUNTERS = f"""
SELECT sequencename, last_value FROM pg_sequences WHERE {_OWN_SEQUENCE} AND last_value IS NOT NULL
"""  # noqa: S608 - of constants
_COUNTED = """c.oid::bigint, pg_relation_filenode(c.oid)::bigint, pg_stat_get_tuples_inserted(c.oid),
  pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)"""
_TABLES = f"""
SELECT n.nspname, c.relname, {_COUNTED}
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {OWN_SCHEMAS} AND {NO_MEMBER}
"""  # noqa: S608 - of constants
_LARGE_OBJECTS = f"""
SELECT {_COUNTED} FROM pg_class c
WHERE c.oid IN ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_largeobject_metadata'::regclass)
ORDER BY c.oid
"""  # noqa: S608 - of constants
_LARGE_OBJECTS_THERE = f"SELECT count(*), {ROWS_WRITTEN} FROM pg_largeobject_metadata"  # noqa: S608
# A session tells its counts ten seconds after it came to rest at the latest, and when it ends. What
# autovacuum does is no change.
_UNSETTLED = """
SELECT count(*) FROM pg_stat_activity
WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
  AND backend_type IS DISTINCT FROM 'autovacuum worker'
  AND (state IS DISTINCT FROM 'idle' OR state_change > clock_timestamp() - interval '20 seconds')
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the signals of a database say about the ones noted before.

    `reason` is a sentence when it changed. `suspects` are the tables that may have changed: reading them
    tells. With neither, nothing changed. `signals` are those that were read.
    """

    reason: str
    suspects: tuple[str, ...]
    signals: Mapping[str, Any]


def read_signals(connection: psycopg.Connection) -> dict[str, Any]:
    """Return all signals of a database as plain data, to be kept with what is captured after."""
    return {**_read_standing(connection), **_read_contents(connection)}


def compare_signals(
    connection: psycopg.Connection, noted: Mapping[str, Any], ignores: Callable[[str], bool]
) -> Comparison:
    """Compare a database with what was noted of it; a table that is ignored does not count."""
    now = _read_standing(connection)
    if noted.get("version") != VERSION:
        return Comparison("nothing is noted of it that can be compared.", (), {})
    reason = _another_server(noted, now)
    if reason:
        return Comparison(reason, (), {})
    if now["visible"] == noted["visible"] and now["sequences"] == noted["sequences"]:
        return Comparison("", (), {**noted, **now})
    settled = _are_settled(connection, now)
    now |= _read_contents(connection)
    reason = _what_moved(noted, now, ignores, settled=settled)
    tables = [name for name in now["tables"] if not ignores(name)]
    # What is counted for partitioned tables may lie in any part.
    settled = settled and now["counters"] == noted["counters"]
    suspects = [name for name in tables if not settled or _moved(noted, now, name)]
    return Comparison(reason, () if reason else tuple(sorted(suspects)), now)


def _another_server(noted: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say why what is noted tells nothing about this server, if so."""
    for names, reason in _EPOCH:
        if any(now[name] != noted[name] for name in names):
            return reason
    if (now["standby"] or not now["counts"]) and now["visible"] != noted["visible"]:
        return "something changed on its server, which does not count where."
    return ""


def _what_moved(
    noted: Mapping[str, Any], now: Mapping[str, Any], ignores: Callable[[str], bool], *, settled: bool
) -> str:
    """Say what changed for certain."""
    if now["schema"] != noted["schema"]:
        return "its schema, or what belongs to the database itself, changed."
    for name, (value, owner) in now["places"].items():
        if [value, owner] != noted["places"].get(name) and not (owner and ignores(owner)):
            return f"the sequence {name} moved."
    if now["tables"].keys() != noted["tables"].keys() or now["doubled"] or noted["doubled"]:
        return "it has other tables."
    return _about_large_objects(noted, now, settled=settled)


def _about_large_objects(noted: Mapping[str, Any], now: Mapping[str, Any], *, settled: bool) -> str:
    if now["large_objects"] != noted["large_objects"]:
        return "large objects changed."
    if not settled and now["large_objects"][0]:
        return "something changed, and sessions have not told yet whether it was large objects."
    return ""


def _moved(noted: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    return bool(now["tables"][name] != noted["tables"][name])


def _are_settled(connection: psycopg.Connection, now: Mapping[str, Any]) -> bool:
    """Say whether counters read after this hold everything that was done before."""
    if connection.info.server_version < _COUNTS_EXACTLY or not now["counts"]:
        return False
    return bool(_row(connection, _UNSETTLED)[0] == 0)


def _read_standing(connection: psycopg.Connection) -> dict[str, Any]:
    names = ("visible", "standby", "started", "failed", "reset", "database", "counts", "lsn")
    found = dict(zip(names, _row(connection, _STANDING), strict=True))
    return {
        "version": VERSION,
        **found,
        "system": _if_allowed(connection, _SYSTEM),
        "timeline": _if_allowed(connection, _TIMELINE),
        "sequences": _row(connection, _SEQUENCES)[0],
    }


def _read_contents(connection: psycopg.Connection) -> dict[str, Any]:
    counters = {str(name): value for name, value in connection.execute(_COUNTERS.encode())}
    tables: dict[str, list[Any]] = {}
    doubled = False
    for schema, name, *found in connection.execute(_TABLES.encode()):
        doubled = doubled or shown(schema, name) in tables
        tables[shown(schema, name)] = [*found, counters.pop(counter_of(schema, name), 0)]
    return {
        "schema": print_catalog(connection),
        "tables": tables,
        "doubled": doubled,
        "counters": counters,
        "places": _read_places(connection),
        "large_objects": [
            *_row(connection, _LARGE_OBJECTS_THERE),
            *(list(row) for row in connection.execute(_LARGE_OBJECTS.encode())),
        ],
    }


def _read_places(connection: psycopg.Connection) -> dict[str, list[Any]]:
    """Return where each sequence stands, and the table it belongs to."""
    places: dict[str, list[Any]] = {}
    unused = []
    for schema, name, value, *owner, may_read in connection.execute(_SEQUENCE_ROWS.encode()).fetchall():
        places[shown(schema, name)] = [value, shown(*owner) if owner[1] else ""]
        if value is None and may_read:
            unused.append((schema, name))
    # The view says nothing of one that gave out no number, though it can have been set to another.
    for schema, name in unused:
        query = sql.SQL("SELECT 'next ' || last_value FROM {}").format(sql.Identifier(schema, name))
        places[shown(schema, name)][0] = _row(connection, query.as_string())[0]
    return places


def shown(schema: str, name: str) -> str:
    """Return the name of a table as people write it."""
    return name if schema == "public" else f"{schema}.{name}"


def counter_of(schema: str, name: str) -> str:
    """Return the name of the sequence in which our triggers count the changes of a table."""
    return COUNTER_PREFIX + hashlib.sha256(f"{len(schema)} {schema} {name}".encode()).hexdigest()[:16]


def _if_allowed(connection: psycopg.Connection, query: str) -> str:
    """Return what a query says; nothing where this user may not ask."""
    try:
        return str(_row(connection, query)[0])
    except errors.InsufficientPrivilege:
        return ""


def _row(connection: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query.encode()).fetchone()
    if row is None:
        raise LookupError("a query of one row had none")
    return row
