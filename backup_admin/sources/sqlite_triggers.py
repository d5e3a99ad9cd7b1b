"""Triggers that count changes of the tables of a SQLite database, in a table of ours.

Part of the worker (`sqlite_worker`): it writes to a live database.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from backup_admin.sources.sidecars import COUNTERS
from backup_admin.sources.sqlite_open import Deadline, is_busy, need_database, open_live

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVENTS = ("INSERT", "UPDATE", "DELETE")
_PAUSE_SECONDS = 0.02


def install(path: str, deadline_seconds: float) -> dict[str, Any]:
    """Give each table triggers that has none yet; all of them, or none."""
    with closing(_begin(path, deadline_seconds)) as connection:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {COUNTERS} (name TEXT PRIMARY KEY, changes INTEGER NOT NULL) "
            "WITHOUT ROWID"
        )
        for table in list(_tables(connection)):
            connection.execute(f"INSERT OR IGNORE INTO {COUNTERS} VALUES (?, 0)", (table,))  # noqa: S608
            for event in _EVENTS:
                connection.execute(_trigger(table, event))
        connection.execute("COMMIT")
        return {"tables": _counted(connection)}


def uninstall(path: str, deadline_seconds: float) -> dict[str, Any]:
    """Remove all that `install` made."""
    with closing(_begin(path, deadline_seconds)) as connection:
        counted = sum(changes >= 0 for _, changes in _counted(connection))
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB ?", (f"{COUNTERS}_*",)
        ).fetchall():
            connection.execute(f"DROP TRIGGER {_quoted(name)}")
        connection.execute(f"DROP TABLE IF EXISTS {COUNTERS}")
        connection.execute("COMMIT")
        return {"tables": counted}


def show(path: str, deadline_seconds: float) -> dict[str, Any]:
    """Return what was counted for each table; -1 where nothing counts."""
    with closing(_begin(path, deadline_seconds)) as connection:
        return {"tables": _counted(connection)}


def _begin(path: str, deadline_seconds: float) -> sqlite3.Connection:
    """Open a database and begin to write, waiting for others until the deadline."""
    need_database(path)
    deadline = Deadline(deadline_seconds, path)
    connection = open_live(path, deadline)
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                connection.close()
                raise
        else:
            return connection
        try:
            deadline.check()
        except BaseException:
            connection.close()
            raise
        time.sleep(_PAUSE_SECONDS)


def _tables(connection: sqlite3.Connection) -> Iterator[str]:
    """Give the tables that an app made; SQLite lets nobody count what its extensions keep for themselves."""
    rows = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
    for name, kind in rows.fetchall():
        if kind == "table" and not name.startswith("sqlite_") and name != COUNTERS:
            yield name


def _counted(connection: sqlite3.Connection) -> list[list[Any]]:
    is_there = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name = ?", (COUNTERS,)
    ).fetchone()[0]
    rows = connection.execute(f"SELECT name, changes FROM {COUNTERS}") if is_there else ()  # noqa: S608
    counts = dict(rows)
    return [[table, counts.get(table, -1)] for table in sorted(_tables(connection))]


def _trigger(table: str, event: str) -> str:
    digest = hashlib.sha256(table.encode()).hexdigest()[:16]
    text = table.replace("'", "''")
    name = f"{COUNTERS}_{digest}_{event.lower()}"
    count = f"UPDATE {COUNTERS} SET changes = changes + 1 WHERE name = '{text}'"  # noqa: S608
    return f"CREATE TRIGGER IF NOT EXISTS {name} AFTER {event} ON {_quoted(table)} BEGIN {count}; END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
