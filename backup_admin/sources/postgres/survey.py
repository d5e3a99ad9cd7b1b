"""What a server and a live database on it allow, looked at before a restore decides anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceMissing
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.needs import Needs, membership, needs_from_json, needs_to_json, what_lacks
from backup_admin.sources.postgres.server import at_server, exists

if TYPE_CHECKING:
    import psycopg

    from backup_admin.sources.postgres.source import PostgresSource

_BLOCK_BYTES = 256 << 10
_ROLE = "SELECT rolname, rolsuper, rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
_OWNER = """
SELECT pg_get_userbyid(datdba), pg_has_role(current_user, datdba, %s)
FROM pg_database WHERE datname = %s
"""
# Whoever may not be ended from here: superusers, and members of roles that ours is no member of.
_STAYING = """
SELECT DISTINCT a.usename::text FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.datname = %s AND a.pid <> pg_backend_pid()
  AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND (r.rolsuper OR NOT (pg_has_role(current_user, r.oid, 'USAGE')
                          OR pg_has_role(current_user, 'pg_signal_backend', 'USAGE')))
ORDER BY 1
"""
# To the microsecond, and of those who listen at one port only one runs.
_STARTED = "SELECT pg_postmaster_start_time()::text || ' ' || current_setting('port')"
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = %s ORDER BY gid"
_SLOTS = "SELECT slot_name::text FROM pg_replication_slots WHERE database = %s ORDER BY 1"
_SUBSCRIPTIONS = """
SELECT s.subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE d.datname = %s ORDER BY 1
"""
# What is in no schema, so that nobody but its owner may drop it.
_UNDROPPABLE = """
SELECT o.kind || ' ' || o.name FROM (
  SELECT 1, 'event trigger', evtname::text, evtowner FROM pg_event_trigger t WHERE NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = 'pg_event_trigger'::regclass AND e.objid = t.oid
    AND e.deptype = 'e')
  UNION ALL SELECT 2, 'publication', pubname, pubowner FROM pg_publication
  UNION ALL SELECT 3, 'server', srvname, srvowner FROM pg_foreign_server) o (place, kind, name, owner)
WHERE NOT pg_has_role(current_user, o.owner, 'USAGE') ORDER BY o.place, o.name
"""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `staying` are users whose sessions we may not end; `elsewhere` is what stays behind.

    `undroppable` is what we may not drop, looked for where no database can be made beside it.
    """

    found: bool
    role: str
    is_superuser: bool
    may_make: bool
    owner: str = ""
    owns: bool = True
    staying: tuple[str, ...] = ()
    prepared: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    undroppable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveTable:
    """One table of a live database: its rows and the digest a capture would give it."""

    name: str
    rows: int
    checksum: str


def survey(source: PostgresSource) -> Survey:
    """Look around; raise `SourceMissing` or `SourceError` when the server cannot be asked.

    Without another database to connect to, none can be made or renamed.
    """
    name = source.address.database
    try:
        with at_server(source.address, away_from=name) as connection:
            found = _survey(connection, name)
    except SourceMissing:
        with connected(source.address) as connection:
            found = replace(_survey(connection, connection.info.dbname), may_make=False)
    if not found.found or (found.may_make and found.owns):
        return found
    with connected(source.address) as connection:
        undroppable = tuple(str(row[0]) for row in connection.execute(_UNDROPPABLE))
    return replace(found, undroppable=undroppable)


def lacks(source: PostgresSource, contents: bytes, *, replaced: bool) -> str:
    """Return what the server lacks for what was captured, and what to do; empty when nothing is known.

    `replaced` is what happens to the content of the database itself. Raises what `survey` does, and
    `ValueError`, `KeyError` or `TypeError` for contents that cannot be read.
    """
    needs = needs_from_json(json.loads(contents).get("needs", needs_to_json(Needs())))
    address = source.address
    with connected(address) if replaced else at_server(address, away_from=address.database) as connection:
        return what_lacks(connection, needs, address.label)


def place_of(source: PostgresSource) -> tuple[str, str]:
    """Return what names a running server, whatever its address is, and the database.

    Raises what `survey` does.
    """
    name = source.address.database
    try:
        with at_server(source.address, away_from=name) as connection:
            return _server(connection), name
    except SourceMissing:
        with connected(source.address) as connection:
            return _server(connection), connection.info.dbname


def read_tables(source: PostgresSource) -> tuple[LiveTable, ...]:
    """Read all rows of a live database in one snapshot; raise what capturing it does."""
    found = []
    with source.capturing() as captured:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        for table in captured.catalog.tables:
            digest = hashlib.sha256()
            with captured.table(table) as reader:
                while count := reader.read_into(buffer):
                    digest.update(buffer[:count])
            found.append(LiveTable(table.shown, reader.rows, f"sha256:{digest.hexdigest()}"))
    return tuple(found)


def _survey(connection: psycopg.Connection, name: str) -> Survey:
    role, is_superuser, may_make = _role(connection)
    if not exists(connection, name):
        return Survey(False, role, is_superuser, may_make)
    owner, owns = _owner(connection, name)
    slots = [f"replication slot {slot}" for slot in _names(connection, _SLOTS, name)]
    subscriptions = [f"subscription {one}" for one in _names(connection, _SUBSCRIPTIONS, name)]
    return Survey(
        True,
        role,
        is_superuser,
        may_make,
        owner,
        owns,
        _names(connection, _STAYING, name),
        _names(connection, _PREPARED, name),
        (*slots, *subscriptions),
    )


def _role(connection: psycopg.Connection) -> tuple[str, bool, bool]:
    row = connection.execute(_ROLE).fetchone()
    return ("", False, False) if row is None else (str(row[0]), bool(row[1]), bool(row[2]))


def _server(connection: psycopg.Connection) -> str:
    row = connection.execute(_STARTED).fetchone()
    return "" if row is None else str(row[0])


def _owner(connection: psycopg.Connection, name: str) -> tuple[str, bool]:
    row = connection.execute(_OWNER, (membership(connection), name)).fetchone()
    return ("", False) if row is None else (str(row[0]), bool(row[1]))


def _names(connection: psycopg.Connection, query: str, name: str) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in connection.execute(query, (name,)))
