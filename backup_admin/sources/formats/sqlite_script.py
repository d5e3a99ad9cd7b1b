"""Write a copy of a SQLite database as a script of SQL, and carry it out once to see that it is the same.

Runs in the worker. Kept, where `iterdump` of Python loses it: infinite numbers, text with NUL or that is not
UTF-8, virtual tables with their index as it is, user_version, application_id, the encoding, rowids.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.sources.formats.sqlite_export import describe, has_sequences, number_of, open_copy
from backup_admin.sources.formats.sqlite_schema import quoted, read_tables
from backup_admin.sources.formats.sqlite_values import RawText, Value, text_of
from backup_admin.sources.sqlite_digest import foreign_collations, stand_in
from backup_admin.sources.sqlite_open import Failure, connect, error_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.sources.formats.sqlite_schema import SqliteTable

_BUFFER_BYTES = 1 << 20
_INFINITY = "9.0e+999"  # more than a double holds, so it is read as one without end
_LATER = ("index", "view", "trigger")


def export_sql(path: str, target: str, scratch: str) -> dict[str, Any]:
    """Write a script; what makes a database of it that differs is told, and what could not be tried."""
    rows = tables = 0
    with closing(open_copy(path)) as copy, _trying(copy, scratch) as trial:
        with Path(target).open("x", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for statement in _statements(copy):
                rows += statement.startswith('INSERT INTO "')
                tables += statement.startswith("CREATE TABLE")
                file.write(statement + ";\n")
                trial.carry_out(statement)
            file.flush()
            os.fsync(file.fileno())
        problems = trial.compare(copy)
    return {"tables": tables, "rows": rows, "notices": [], "problems": problems}


class _Trial:
    """The database that the script makes."""

    def __init__(self, made: sqlite3.Connection, path: str) -> None:
        self._made = made
        self._path = path
        self._problem = ""

    def carry_out(self, statement: str) -> None:
        if self._problem:
            return
        try:
            self._made.execute(statement)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            if error_code(error) == sqlite3.SQLITE_FULL:
                raise
            self._problem = f"{error} ({statement[:80]!r})"

    def compare(self, copy: sqlite3.Connection) -> list[str]:
        """Say what is not as it was; empty when the script makes the same database."""
        if self._problem:
            return [f"The script could not be tried to its end: {self._problem}."]
        self._made.close()
        warnings: list[str] = []
        copy.text_factory = str
        with closing(open_copy(self._path)) as made:
            wanted, found = describe(copy, warnings), describe(made, warnings)
        if wanted == found:
            return []
        names = [name for name in wanted if wanted[name] != found[name] and name != "tables"]
        names += [f"table {table['name']}" for table in wanted["tables"] if table not in found["tables"]]
        return [f"The script makes another database: {', '.join(names) or 'more tables'} differ."]


@contextmanager
def _trying(copy: sqlite3.Connection, scratch: str) -> Iterator[_Trial]:
    path = str(Path(scratch) / "trial.db")
    made = connect(path, "mode=rwc")
    try:
        for name in foreign_collations(copy):
            made.create_collation(name, stand_in)
        for pragma in ("trusted_schema=OFF", "journal_mode=OFF", "synchronous=OFF"):
            made.execute(f"PRAGMA {pragma}")
        yield _Trial(made, path)
    finally:
        made.close()
        Path(path).unlink(missing_ok=True)


def _statements(copy: sqlite3.Connection) -> Iterator[str]:
    """Yield the script, statement by statement, without semicolons at the ends."""
    encoding = str(copy.execute("PRAGMA encoding").fetchone()[0])
    tables, virtual = read_tables(copy)
    schema = copy.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    for _, name, sql in schema:
        _refuse_more(str(name), str(sql))
    created = {str(name): str(sql) for kind, name, sql in schema if kind == "table"}
    yield f"PRAGMA encoding={quoted(encoding)}"
    yield "PRAGMA foreign_keys=OFF"
    yield "BEGIN"
    yield from (created[table.name] for table in tables if table.kind == "table")
    yield from (created[name] for name in virtual)
    for table in tables:
        yield from _rows(copy, table, encoding)
    yield from _sequences(copy, encoding)
    for kind in _LATER:
        yield from (str(sql) for found, _, sql in schema if found == kind)
    for name in ("user_version", "application_id"):
        yield f"PRAGMA {name}={number_of(copy, name)}"
    yield "COMMIT"


def _refuse_more(name: str, sql: str) -> None:
    """Refuse what SQLite itself never keeps: a definition with more behind it, which a reader would run."""
    ends = (place + 1 for place, letter in enumerate(sql) if letter == ";")
    if any(sqlite3.complete_statement(sql[:end]) for end in ends):
        raise Failure(
            "invalid", f"The definition of {name} holds more than one statement. Nothing was exported."
        )


def _rows(copy: sqlite3.Connection, table: SqliteTable, encoding: str) -> Iterator[str]:
    copy.text_factory = text_of
    if table.kind == "shadow":
        yield f"DELETE FROM {quoted(table.name)}"  # noqa: S608 - what an empty virtual table begins with
    head = f"INSERT INTO {quoted(table.name)}({','.join(map(quoted, table.fields))}) VALUES("
    for row in copy.execute(table.select()):
        yield f"{head}{','.join([_literal(value, encoding) for value in row])})"
    copy.text_factory = str


def _sequences(copy: sqlite3.Connection, encoding: str) -> Iterator[str]:
    """Yield what AUTOINCREMENT counts, in the order of the table; the rows above made some of it."""
    if not has_sequences(copy):
        return
    copy.text_factory = text_of
    yield "DELETE FROM sqlite_sequence"
    for row in copy.execute("SELECT name, seq FROM sqlite_sequence ORDER BY rowid"):
        yield f"INSERT INTO sqlite_sequence VALUES({','.join([_literal(value, encoding) for value in row])})"
    copy.text_factory = str


def _literal(value: Value, encoding: str) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, RawText):
        return f"CAST(X'{_stored(value, encoding).hex()}' AS TEXT)"
    return "NULL" if value is None else _number(value)


def _stored(text: RawText, encoding: str) -> bytes:
    """Return the bytes of text as the database has them."""
    if encoding == "UTF-8":
        return text.data
    codec = encoding.replace("UTF-16", "utf-16-")
    return text.data.decode("utf-8", "surrogatepass").encode(codec, "surrogatepass")


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return _INFINITY if value > 0 else f"-{_INFINITY}"
    return repr(value)


def _text(value: str) -> str:
    """Write text; a return at the end of a line would be lost by programs that read line by line."""
    literal = "'" + value.replace("'", "''") + "'"
    if "\r" not in value:
        return literal
    number = 0
    while (mark := f"\\r{number or ''}") in value:
        number += 1
    return f"replace({literal.replace(chr(13), mark)},'{mark}',char(13))"
