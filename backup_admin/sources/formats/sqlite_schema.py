"""What tables a SQLite database has, and how each is read and written whole. Runs in the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.sources.sqlite_open import Failure

if TYPE_CHECKING:
    import sqlite3

_PLAIN = 0  # of table_xinfo's `hidden`: neither generated nor hidden


@dataclass(frozen=True, slots=True)
class SqliteTable:
    """A table that stores rows; `rowid` names that of its rows where no column is it.

    `own_rowid` names it also where a column is it, which an empty table does not tell.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]
    rowid: str
    own_rowid: str
    strict: bool
    order: str

    @property
    def fields(self) -> tuple[str, ...]:
        """Return what is read of a row, and written: the rowid first where it is no column."""
        return (self.rowid, *self.columns) if self.rowid else self.columns

    def select(self) -> str:
        """Return the query of all rows, in the order they are stored in."""
        return f"SELECT {', '.join(map(quoted, self.fields))} FROM {quoted(self.name)}{self.order}"  # noqa: S608


def read_tables(connection: sqlite3.Connection) -> tuple[list[SqliteTable], list[str]]:
    """Return the tables that store rows, in order of name, and the names of virtual tables.

    The connection decodes text as `str`. Tables of statistics are left out: SQLite makes them again.
    """
    tables, virtual = [], []
    listed = connection.execute("PRAGMA main.table_list").fetchall()
    if not listed:
        raise Failure("failed", "The library of SQLite is older than 3.37, which this needs.")
    for _schema, name, kind, _columns, without_rowid, strict in sorted(listed, key=lambda row: str(row[1])):
        if kind == "virtual":
            virtual.append(name)
        elif kind in ("table", "shadow") and not _is_own(name):
            tables.append(_read_table(connection, name, kind, bool(without_rowid), bool(strict)))
    return tables, virtual


def quoted(name: str) -> str:
    """Return a name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def _is_own(name: str) -> bool:
    return name.lower().startswith(("sqlite_schema", "sqlite_temp_schema", "sqlite_sequence", "sqlite_stat"))


def _read_table(
    connection: sqlite3.Connection, name: str, kind: str, without_rowid: bool, strict: bool
) -> SqliteTable:
    rows = connection.execute(f"PRAGMA table_xinfo({quoted(name)})").fetchall()
    plain = [row for row in rows if row[6] == _PLAIN]
    key = tuple(row[1] for row in sorted(rows, key=lambda row: row[5]) if row[5] > 0)
    rowid = order = ""
    if not without_rowid:
        taken = {row[1].lower() for row in rows}
        rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), "")
        order = f" NOT INDEXED ORDER BY {rowid}" if rowid else " NOT INDEXED"
    elif key:
        order = " ORDER BY " + ", ".join(f"{quoted(column)} COLLATE BINARY" for column in key)
    own_rowid = rowid
    if rowid and len(key) == 1 and _is_rowid(connection, name, rowid, key[0]):
        rowid = ""
    columns, types = tuple(row[1] for row in plain), tuple(row[2] for row in plain)
    return SqliteTable(name, kind, columns, types, key, rowid, own_rowid, strict, order)


def _is_rowid(connection: sqlite3.Connection, table: str, rowid: str, column: str) -> bool:
    """Say whether a column is the rowid under another name, which its declaration alone does not tell."""
    query = f"SELECT 1 FROM {quoted(table)} NOT INDEXED WHERE {rowid} IS NOT {quoted(column)} LIMIT 1"  # noqa: S608
    empty = f"SELECT 1 FROM {quoted(table)} LIMIT 1"  # noqa: S608
    if connection.execute(empty).fetchone() is None:
        return True
    return connection.execute(query).fetchone() is None
