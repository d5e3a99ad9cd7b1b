"""The tables of a SQLite database and their foreign keys. Part of the worker (`sqlite_worker`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backup_admin.sources.merging.graph import Graph, LiveColumn, LiveTable, Reference, UniqueKey, quote
from backup_admin.sources.sidecars import COUNTERS

if TYPE_CHECKING:
    import sqlite3

_AFFINITIES = (
    ("INT", "INTEGER"),
    ("CHAR", "TEXT"),
    ("CLOB", "TEXT"),
    ("TEXT", "TEXT"),
    ("BLOB", "BLOB"),
    ("REAL", "REAL"),
    ("FLOA", "REAL"),
    ("DOUB", "REAL"),
)
KEYS_THAT_LET_GO = ("SET NULL", "SET DEFAULT")
_STRICT = re.compile(r"\)[^)]*\bSTRICT\b[^)]*$", re.IGNORECASE)
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)"
_QUOTED = r"""(?:"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|'(?:[^']|'')*')"""
_PLAIN = r"""[^\s"'`\[/-]+"""
_TRIGGER = re.compile(
    rf"CREATE TRIGGER{_GAP}+(?:{_QUOTED}{_GAP}*|{_PLAIN}{_GAP}+)"
    rf"(?:(?:BEFORE|AFTER){_GAP}+)?(INSERT|UPDATE|DELETE)\b",
    re.IGNORECASE | re.DOTALL,
)
_COUNTED = re.compile(r"\bAUTOINCREMENT\b", re.IGNORECASE)


def affinity(declared: str, *, strict: bool = False) -> str:
    """Return how SQLite treats values of a column, as a type that means just that."""
    upper = declared.upper()
    if not upper or (strict and upper == "ANY"):
        return "BLOB"
    return next((name for sign, name in _AFFINITIES if sign in upper), "NUMERIC")


def read_columns(connection: sqlite3.Connection, schema: str, table: str) -> list[LiveColumn]:
    """Return the columns of a table; generated ones take no value."""
    query = f"SELECT sql FROM {schema}.sqlite_master WHERE type = 'table' AND name = ?"
    text = str(connection.execute(query, (table,)).fetchone()[0])
    collations = _collations(connection, schema, table)
    counted = table if _COUNTED.search(text) else ""
    return [
        LiveColumn(
            number=row[0],
            name=row[1],
            type=affinity(row[2], strict=bool(_STRICT.search(text))),
            collation=collations.get(row[1], ""),
            written=row[6] == 0,
            changeable=row[6] == 0,
            sequence=counted if row[5] else "",
        )
        for row in connection.execute(f"PRAGMA {schema}.table_xinfo({quote(table)})")
    ]


def read_graph(connection: sqlite3.Connection) -> Graph:
    """Read the ordinary tables of the live database; what virtual tables keep is theirs."""
    rows = connection.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'table'").fetchall()
    virtual = [name for name, text in rows if str(text).upper().startswith("CREATE VIRTUAL")]
    names = [
        name
        for name, _ in rows
        if not name.lower().startswith("sqlite_")
        and not any(name == one or name.startswith(f"{one}_") for one in virtual)
    ]
    triggers = _read_triggers(connection)
    tables = {name: _read_table(connection, name, triggers.get(name.lower(), frozenset())) for name in names}
    references = [one for name in names for one in _read_references(connection, name, tables)]
    return Graph(tables, tuple(references))


def _read_triggers(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """Return for which statements triggers of the app fire, by table in small letters; ours change no row."""
    found: dict[str, frozenset[str]] = {}
    query = "SELECT name, tbl_name, sql FROM main.sqlite_master WHERE type = 'trigger'"
    for name, table, text in connection.execute(query):
        if not name.startswith(f"{COUNTERS}_"):
            matched = _TRIGGER.match(text)
            kinds = (matched[1].upper(),) if matched else ("INSERT", "UPDATE", "DELETE")
            found[table.lower()] = found.get(table.lower(), frozenset()).union(kinds)
    return found


def _read_table(connection: sqlite3.Connection, name: str, triggers: frozenset[str]) -> LiveTable:
    place = f"main.{quote(name)}"
    columns = tuple(read_columns(connection, "main", name))
    found = connection.execute(f"PRAGMA main.table_xinfo({quote(name)})").fetchall()
    key = tuple(row[1] for row in sorted(found, key=lambda row: row[5]) if row[5])
    return LiveTable(
        name, place, place, columns, key, ("=",) * len(key), _read_uniques(connection, name), triggers
    )


def _read_uniques(connection: sqlite3.Connection, table: str) -> tuple[UniqueKey, ...]:
    """Return what is unique over whole columns; SQLite itself names a row that breaks another one."""
    found = []
    for _, name, is_unique, origin, is_partial in connection.execute(
        f"PRAGMA main.index_list({quote(table)})"
    ).fetchall():
        rows = connection.execute(f"PRAGMA main.index_xinfo({quote(name)})").fetchall()
        parts = [(row[2], row[4]) for row in rows if row[5]]
        if is_unique and origin != "pk" and not is_partial and all(column for column, _ in parts):
            columns = tuple(column for column, _ in parts)
            equals = tuple(f"COLLATE {quote(order)} =" for _, order in parts)
            shown = name if origin == "c" else ", ".join(columns)
            found.append(UniqueKey(shown, columns, tuple(map(quote, columns)), equals))
    return tuple(found)


def _collations(connection: sqlite3.Connection, schema: str, table: str) -> dict[str, str]:
    """Return by which order columns are unique: only there it matters for us."""
    found: dict[str, str] = {}
    rows = connection.execute(f"PRAGMA {schema}.index_list({quote(table)})").fetchall()
    for _, name, is_unique, *_ in sorted(rows, key=lambda row: row[3] == "pk"):
        for row in connection.execute(f"PRAGMA {schema}.index_xinfo({quote(name)})"):
            if is_unique and row[5] and row[2]:
                found[row[2]] = f" COLLATE {quote(row[4])}"
    return found


def _read_references(
    connection: sqlite3.Connection, child: str, tables: dict[str, LiveTable]
) -> list[Reference]:
    known = {name.lower(): name for name in tables}
    keys: dict[int, list[tuple[str, str, str | None, str]]] = {}
    for row in connection.execute(f"PRAGMA main.foreign_key_list({quote(child)})"):
        keys.setdefault(row[0], []).append((row[2], row[3], row[4], row[6]))
    found = []
    for number, rows in keys.items():
        parent = tables.get(known.get(rows[0][0].lower(), ""))
        if parent is None:
            continue
        named = tuple(_spelled(parent, to) for _, _, to, _ in rows if to is not None)
        parent_columns = named or parent.key
        columns = tuple(_spelled(tables[child], row[1]) for row in rows)
        if len(parent_columns) == len(columns):
            owns = rows[0][3].upper() not in KEYS_THAT_LET_GO
            equals = ("=",) * len(columns)
            found.append(
                Reference(f"{child}.{number}", child, columns, parent.name, parent_columns, equals, owns)
            )
    return found


def _spelled(table: LiveTable, name: str) -> str:
    """Return the name of a column as the table spells it."""
    return next((one.name for one in table.columns if one.name.lower() == name.lower()), name)
