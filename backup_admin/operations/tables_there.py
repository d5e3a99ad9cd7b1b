"""Whether captured databases have tables: one that has none is hardly the one that was meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from backup_admin.core.shown import count_of
from backup_admin.operations.base_backups import CLUSTER_FORMAT
from backup_admin.operations.results import DatabaseCount
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backup_admin.repository.types import DatabaseEntry, Manifest

RIGHT_ONE = "has no tables: is this the right database?"
_LOST = "lost_tables"
_OF_SQLITE = "sqlite_"  # what SQLite keeps for itself


def note_tables(entry: DatabaseEntry, parent: Manifest | None) -> DatabaseEntry:
    """Note how many tables a database has lost when it has none; they stay lost until it has some again."""
    before = None if parent is None else parent.database(entry.name)
    details = {name: value for name, value in entry.details.items() if name != _LOST}
    lost = 0 if before is None else _count(before) or int(before.details.get(_LOST, 0))
    if lost and not has_something(entry):
        details[_LOST] = lost
    return entry if details == entry.details else replace(entry, details=details)


def what_is_lost(entry: DatabaseEntry, kind: str) -> tuple[str, ...]:
    """Return what a snapshot of a kind lacks of a database that had tables before.

    What a restore is about to replace may well be empty: that is why.
    """
    lost = int(entry.details.get(_LOST, 0))
    if not lost or kind == SAFETY:
        return ()
    return (
        f"{entry.name} has no tables, and had {lost} in an earlier snapshot: is {entry.path} the right "
        "database? If it is meant to be empty, back it up under another name.",
    )


def what_to_ask(entry: DatabaseEntry) -> tuple[str, ...]:
    """Return what is to be asked about a database that has no tables, and had none before."""
    return () if has_something(entry) or _LOST in entry.details else (RIGHT_ONE,)


def has_something(entry: DatabaseEntry) -> bool:
    """Say whether a database holds what a backup is made for: tables, large objects, a whole server."""
    return entry.format == CLUSTER_FORMAT or _count(entry) > 0 or bool(entry.details.get("large_objects"))


def count_tables(databases: Iterable[DatabaseEntry]) -> tuple[DatabaseCount, ...]:
    """Return how many tables and rows each database has; base backups of servers have no such number."""
    return tuple(
        DatabaseCount(one.name, _count(one), sum(table.rows for table in one.tables))
        for one in databases
        if one.format != CLUSTER_FORMAT
    )


def tables_and_rows(tables: int, rows: int) -> str:
    """Say it to people."""
    return f"{count_of(tables, 'table')}, {count_of(rows, 'row')}" if tables else "no tables"


def _count(entry: DatabaseEntry) -> int:
    return sum(not table.name.startswith(_OF_SQLITE) for table in entry.tables)
