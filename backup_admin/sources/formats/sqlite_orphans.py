"""Take rows out that refer to one that is not there, and rows that refer to those, until there are none.

Runs in the worker, within the transaction of an import and while foreign keys are off: whatever a key says
about deletions, nothing else changes.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.formats.importing import Orphan
from backup_admin.sources.formats.sqlite_schema import quoted
from backup_admin.sources.formats.sqlite_values import Value, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backup_admin.sources.formats.matching import Pair, TargetTable

_AT_ONCE = 1000
# The rowid, where it can be asked for; the parent; the number of the key.
_Broken = tuple[int | None, str, int]


class OrphanSearch:
    """Looks through the foreign keys of a database; `notices` say which ones SQLite cannot follow."""

    def __init__(
        self, connection: sqlite3.Connection, form: Callable[[Pair, Sequence[Value]], bytes]
    ) -> None:
        self._connection = connection
        self._form = form
        self.notices: dict[str, None] = {}

    def of_others(self, tables: Sequence[TargetTable]) -> Iterator[Orphan]:
        """Yield the rows of tables that are not loaded, whose rows are not ours to leave out."""
        for table in tables:
            for parent in {(rowid, parent): parent for rowid, parent, _ in self._broken(table)}.values():
                yield Orphan(table, _reason(parent), None)

    def take_out(self, pairs: Sequence[Pair]) -> Iterator[Orphan]:
        """Take rows out of the tables that are loaded, and yield them."""
        again = True
        while again:
            again = False
            for pair in pairs:
                while broken := self._broken(pair.target):
                    again = True
                    yield from self._take_out(pair, broken)

    def _broken(self, table: TargetTable) -> list[_Broken]:
        self._connection.text_factory = str
        try:
            query = f"PRAGMA foreign_key_check({quoted(table.name)})"
            rows = self._connection.execute(query).fetchmany(_AT_ONCE)
        except sqlite3.OperationalError as error:
            # The schema has a key that SQLite itself cannot follow: rows are not to blame.
            self.notices[f"Foreign keys could not be checked: {error}."] = None
            return []
        has_name = bool(table.rowid)
        return [(rowid if has_name else None, str(parent), number) for _, rowid, parent, number in rows]

    def _take_out(self, pair: Pair, broken: Sequence[_Broken]) -> Iterator[Orphan]:
        by_rowid = {rowid: parent for rowid, parent, _ in broken if rowid is not None}
        for rowid, parent in by_rowid.items():
            yield from self._delete(pair, parent, f"WHERE c.{quoted(pair.target.rowid)} = ?", (rowid,))
        by_key = {number: parent for rowid, parent, number in broken if rowid is None}
        for number, parent in by_key.items():
            yield from self._delete(pair, parent, self._condition(pair.target, number), ())

    def _delete(
        self, pair: Pair, parent: str, condition: str, values: tuple[int | None, ...]
    ) -> Iterator[Orphan]:
        table = f"{quoted(pair.target.name)} AS c"
        columns = ", ".join(f"c.{quoted(name)}" for name in pair.columns)
        self._connection.text_factory = text_of
        found = 0
        for row in self._connection.execute(f"SELECT {columns} FROM {table} {condition}", values):  # noqa: S608
            found += 1
            yield Orphan(pair.target, _reason(parent), self._form(pair, row))
        self._connection.text_factory = str
        deleted = self._connection.execute(f"DELETE FROM {table} {condition}", values).rowcount  # noqa: S608
        if not found or deleted != found:
            raise RestoreRefused(
                f"Rows of {pair.target.shown} refer to rows of {parent} that are not there, by a key that "
                "compares in a way of its own, so they cannot be left out, not with --partial either. "
                "Nothing was imported. Mend them in the source."
            )

    def _condition(self, table: TargetTable, number: int) -> str:
        """Return what finds the rows that break one key, in a table whose rows have no number."""
        keys = self._connection.execute(f"PRAGMA foreign_key_list({quoted(table.name)})").fetchall()
        columns = sorted(row[1:5] for row in keys if row[0] == number)
        parent = str(columns[0][1])
        found = self._connection.execute(f"PRAGMA table_xinfo({quoted(parent)})").fetchall()
        primary = [row[1] for row in sorted(found, key=lambda row: row[5]) if row[5] > 0]
        there = " AND ".join(f"c.{quoted(ours)} IS NOT NULL" for _, _, ours, _ in columns)
        if not found:  # SQLite lets keys name a table that is not there
            return f"WHERE {there}"
        same = " AND ".join(
            f"p.{quoted(theirs or primary[place])} = c.{quoted(ours)}" for place, _, ours, theirs in columns
        )
        return f"WHERE {there} AND NOT EXISTS (SELECT 1 FROM {quoted(parent)} AS p WHERE {same})"  # noqa: S608


def _reason(parent: str) -> str:
    return f"it refers to a row of {parent} that is not there"
