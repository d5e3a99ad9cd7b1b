"""Whether a restored database is the one that was captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.shown import count_of
from backup_admin.operations.described import known_checksums
from backup_admin.sources.sqlite import SqliteCopy, inspect_copy

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.types import DatabaseEntry


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One row of a verification table: what was to be, what was found."""

    topic: str
    expected: str
    found: str
    ok: bool


def compare_database(entry: DatabaseEntry, path: Path, *, thorough: bool = False) -> tuple[CheckLine, ...]:
    """Compare a database file that nobody writes to with its manifest, table by table.

    Raises `SourceInvalid` when the file is no sound database.
    """
    return compare_tables(entry, inspect_copy(path, thorough=thorough, known=known_checksums(entry)))


def compare_tables(entry: DatabaseEntry, copy: SqliteCopy) -> tuple[CheckLine, ...]:
    """Compare rows and digest of every table, and the schema as a whole.

    The copy was taken with the checksums of the entry as what is known.
    """
    found = {table.name: table for table in copy.tables}
    lines = [
        CheckLine(
            f"{entry.name}: integrity",
            "sound",
            "sound: " + ", ".join(copy.checks) if copy.checks else "not checked",
            bool(copy.checks),
        )
    ]
    for table in entry.tables:
        there = found.pop(table.name, None)
        topic = f"{entry.name}: table {table.name}"
        expected = count_of(table.rows, "row")
        if there is None:
            lines.append(CheckLine(topic, expected, "missing", ok=False))
            continue
        same = there.rows == table.rows and there.checksum == table.checksum
        text = f"{count_of(there.rows, 'row')}, " + ("same digest" if same else "another digest")
        lines.append(CheckLine(topic, expected, text, same))
    lines += [
        CheckLine(f"{entry.name}: table {name}", "absent", count_of(table.rows, "row"), ok=False)
        for name, table in found.items()
    ]
    schema = str(entry.details.get("schema", ""))
    if schema:
        same = schema == copy.schema
        lines.append(CheckLine(f"{entry.name}: schema", "same", "same" if same else "another", same))
    return tuple(lines)
