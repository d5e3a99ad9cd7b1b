"""Write a copy of a SQLite database as JSON Lines, or as a compact database. Runs in the worker.

The copy may come from anywhere: nothing in its schema gets to run code.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.sources.formats.json_lines import (
    SQLITE,
    Export,
    ExportedSequence,
    ExportedTable,
    TableFile,
    TableHead,
    make_tables_folder,
    write_export,
)
from backup_admin.sources.formats.sqlite_schema import read_tables
from backup_admin.sources.formats.sqlite_values import row_line, text_of
from backup_admin.sources.sqlite_digest import digest_schema, digest_tables, foreign_collations, stand_in
from backup_admin.sources.sqlite_open import Failure, connect, need_database

if TYPE_CHECKING:
    from backup_admin.sources.formats.sqlite_schema import SqliteTable

_BLOCK_BYTES = 256 << 10


def open_copy(path: str) -> sqlite3.Connection:
    """Open a copy that nobody writes to, also one whose order of text only the app knows."""
    need_database(path)
    with closing(connect(path, "mode=ro&immutable=1")) as first:
        collations = foreign_collations(first)
    copy = connect(path, "mode=ro&immutable=1")
    for name in collations:
        copy.create_collation(name, stand_in)
    for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON"):
        copy.execute(f"PRAGMA {pragma}")
    return copy


def export_json(path: str, folder: str, database: str) -> dict[str, Any]:
    """Write all rows into a folder that is there and empty."""
    make_tables_folder(Path(folder))
    with closing(open_copy(path)) as copy:
        tables, virtual = read_tables(copy)
        sequences = read_sequences(copy)
        copy.text_factory = text_of
        written = [_write_table(copy, Path(folder), table) for table in tables]
    left_out = [f"{name} is a virtual table: what it is made of is exported instead." for name in virtual]
    export = Export(
        SQLITE,
        sqlite3.sqlite_version,
        database,
        tuple(written),
        tuple(ExportedSequence("main", name, value, is_called=True) for name, value in sequences),
        tuple(left_out),
    )
    write_export(Path(folder), export)
    rows = sum(table.rows for table in written)
    return {"tables": len(written), "rows": rows, "notices": left_out, "problems": []}


def export_compact(path: str, target: str) -> dict[str, Any]:
    """Write a copy without unused pages and compare it, table by table."""
    with closing(open_copy(path)) as copy:
        if collations := foreign_collations(copy):
            raise Failure(
                "failed",
                f"It has indexes in an order of text that only the app knows ({collations[0]}), so they "
                "cannot be written anew. Nothing was exported; `restore --to` writes it as it is.",
            )
        copy.execute("PRAGMA query_only=OFF")  # another file is written, not this one
        copy.execute("VACUUM INTO ?", (target,))
    warnings: list[str] = []
    with closing(open_copy(path)) as copy, closing(open_copy(target)) as made:
        lines = [str(row[0]) for row in made.execute("PRAGMA integrity_check")]
        before, after = describe(copy, warnings), describe(made, warnings)
    if lines != ["ok"] or before != after:
        Path(target).unlink()
        raise Failure("failed", f"The compact copy is not the database it was made of ({lines[0]}).")
    handle = os.open(target, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    tables = before["tables"]
    rows = sum(table["rows"] for table in tables)
    return {"tables": len(tables), "rows": rows, "notices": warnings, "problems": []}


def describe(copy: sqlite3.Connection, warnings: list[str]) -> dict[str, Any]:
    """Return what two databases with the same content have in common: digests, and numbers of the header."""
    return {
        "schema": digest_schema(copy),
        "tables": list(digest_tables(copy, warnings)),
        **{name: number_of(copy, name) for name in ("user_version", "application_id")},
        "encoding": copy.execute("PRAGMA encoding").fetchone()[0],
    }


def read_sequences(copy: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return the highest id that each AUTOINCREMENT table gave out."""
    if not has_sequences(copy):
        return []
    rows = copy.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall()
    return [(str(name), value) for name, value in rows if isinstance(value, int)]


def has_sequences(copy: sqlite3.Connection) -> bool:
    """Say whether any table gives out ids by AUTOINCREMENT, or once did."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sqlite_sequence'"
    return bool(copy.execute(query).fetchone()[0])


def number_of(copy: sqlite3.Connection, name: str) -> int:
    """Return a number that the header of the database holds."""
    return int(copy.execute(f"PRAGMA {name}").fetchone()[0])


def _write_table(copy: sqlite3.Connection, folder: Path, table: SqliteTable) -> ExportedTable:
    head = TableHead(SQLITE, "main", table.name, table.columns, table.types, table.key, {}, table.rowid)
    with TableFile(folder, head, table.kind) as file:
        pending, size = [], 0
        for row in copy.execute(table.select()):
            line = row_line(row)
            pending.append(line)
            size += len(line)
            file.rows += 1
            if size > _BLOCK_BYTES:
                file.write(b"".join(pending))
                pending, size = [], 0
        file.write(b"".join(pending))
    return file.result()
