"""Look into one table of a snapshot for rows that have some text, within bounds of time and room."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.operations.captured import iterate_bytes
from backup_admin.repository.lookup import find_entry
from backup_admin.sources.row_search import VALUE_LETTERS, FoundRows, Shape, search, short_lines
from backup_admin.sources.sqlite_process import ask_worker

if TYPE_CHECKING:
    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry

LARGEST_FILE = 256 << 20
"""A SQLite database is put together before it can be read; a larger one is not."""
_FETCH_SECONDS = 20.0
_TEXTS = ("text", "character", "varchar", "citext", "name")
_ELSEWHERE = "Export it on the server to look into it: `backup-admin export`. Nothing was touched."


def look_for_rows(
    repository: Repository,
    snapshot_id: SnapshotId,
    database: str,
    table: str,
    text: str,
    *,
    state: StateFolder,
) -> FoundRows:
    """Return the first rows of a table in which a value has the text.

    Raises `RestoreRefused` for what cannot be looked into, and `Busy` while somebody else looks.
    """
    entry = repository.manifest(snapshot_id).database(database)
    held = next((one for one in entry.tables if one.name == table), None) if entry else None
    if entry is None or held is None:
        raise RestoreRefused(f"The backup has no table {table!r} in {database}.")
    with state.lock("look into a backup"):
        reader = repository.reader()
        if entry.tree is None:
            found = _look_into_file(reader, entry, table, text, state)
        else:
            found = _look_into_parts(reader, entry, table, text)
    if not found.stopped and found.looked_at < held.rows:
        ended = f"Looking ended after {found.looked_at:,} of {held.rows:,} rows; there may be more."
        return replace(found, stopped=ended)
    return found


def _look_into_file(
    reader: ChunkReader, entry: DatabaseEntry, table: str, text: str, state: StateFolder
) -> FoundRows:
    size = entry.content.size
    room = os.statvfs(state.scratch)
    if size > LARGEST_FILE:
        raise RestoreRefused(
            f"{entry.name} has {size / 1e6:,.0f} MB; up to {LARGEST_FILE / 1e6:.0f} MB are searched here. "
            f"{_ELSEWHERE}"
        )
    if room.f_bavail * room.f_frsize < 2 * size:
        raise RestoreRefused(f"The state folder has no room for {size / 1e6:,.0f} MB. {_ELSEWHERE}")
    with TemporaryDirectory(prefix="look-", dir=state.scratch) as folder:
        copy = Path(folder) / "snapshot.db"
        end = monotonic() + _FETCH_SECONDS
        with copy.open("xb") as file:
            for piece in iterate_bytes(reader, entry.content):
                file.write(piece)
                if monotonic() > end:
                    raise RestoreRefused(
                        f"The storage did not give {entry.name} in {_FETCH_SECONDS:.0f} seconds. {_ELSEWHERE}"
                    )
        answer = ask_worker("look", {"path": str(copy), "table": table, "text": text}, copy, 0.0)
    return FoundRows.from_plain(answer)


def _look_into_parts(reader: ChunkReader, entry: DatabaseEntry, table: str, text: str) -> FoundRows:
    from backup_admin.sources.postgres.catalog import table_parts  # noqa: PLC0415 - needs psycopg
    from backup_admin.sources.postgres.copy_text import values_of  # noqa: PLC0415 - needs psycopg

    contents = json.loads(b"".join(iterate_bytes(reader, entry.content)))
    part = next((one for one in table_parts(contents["tables"]) if one.table.shown == table), None)
    path = part.file.encode() if part else b""
    stored = find_entry(reader, entry.tree, path) if path and entry.tree else None
    if part is None or stored is None or stored.content is None:
        raise RestoreRefused(f"{entry.name} is stored as one archive, which cannot be searched. {_ELSEWHERE}")
    known = part.table
    texts = [name for name, kind in zip(known.columns, known.types, strict=False) if kind.startswith(_TEXTS)]
    shape = Shape(known.columns, known.key, tuple(texts))
    lines = short_lines(iterate_bytes(reader, stored.content))
    return search(shape, (_cut(values_of(line)) for line in lines), text)


def _cut(row: list[str | None]) -> list[str | None]:
    return [None if value is None else value[:VALUE_LETTERS] for value in row]
