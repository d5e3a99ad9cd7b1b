"""Look for rows in a copy of a SQLite database. Part of the worker (`sqlite_worker`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backup_admin.sources.merging.graph import quote
from backup_admin.sources.row_search import VALUE_LETTERS, Shape, search
from backup_admin.sources.sqlite_graph import affinity
from backup_admin.sources.sqlite_open import Failure

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator


def look_for_rows(copy: sqlite3.Connection, table: str, text: str) -> dict[str, Any]:
    """Return the first rows of a table that have a text; raise `Failure` when there is no such table."""
    # A column that is computed may need functions that only the app has.
    columns = [row for row in copy.execute(f"PRAGMA main.table_xinfo({quote(table)})") if not row[6]]
    if not columns:
        raise Failure("refused", f"The backup has no table {table!r}.")
    shape = Shape(
        tuple(row[1] for row in columns),
        tuple(row[1] for row in sorted(columns, key=lambda row: row[5]) if row[5]),
        tuple(row[1] for row in columns if affinity(row[2]) == "TEXT"),
    )
    copy.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return search(shape, _rows(copy, table, shape), text).to_plain()


def _rows(copy: sqlite3.Connection, table: str, shape: Shape) -> Iterator[tuple[str | None, ...]]:
    values = [
        f"CASE typeof({name}) WHEN 'blob' THEN NULL ELSE substr({name}, 1, {VALUE_LETTERS}) END"
        for name in map(quote, shape.columns)
    ]
    yield from copy.execute(f"SELECT {', '.join(values)} FROM main.{quote(table)}")  # noqa: S608 - quoted names
