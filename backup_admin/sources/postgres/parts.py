"""The parts that a captured PostgreSQL database consists of: names, and what is known of a table."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backup_admin.sources.postgres.catalog import Table

FORMAT = 1  # of parts
ARCHIVE_FORMAT = 2  # of one archive
CONTENTS, PRE_DATA, POST_DATA, LARGE_OBJECTS, WHOLE = (
    "contents.json",
    "pre-data.dump",
    "post-data.dump",
    "large-objects.dump",
    "database.dump",
)
TABLES = "tables"
_READABLE = 80


@dataclass(frozen=True, slots=True)
class TablePart:
    """A table that was read: its file, rows, bytes and digest.

    In an archive it has no file, and, without a key, a sum that no order of the rows changes.
    """

    table: Table
    file: str
    rows: int
    size: int
    sha256: str
    row_sum: str = ""


def file_of(schema: str, name: str) -> str:
    """Return the file of a table: readable, of plain letters whatever the name is, the same each time."""
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", f"{schema}.{name}".removeprefix("public.")).strip("-")
    digest = hashlib.sha256(f"{len(schema)} {schema} {name}".encode()).hexdigest()[:8]
    return f"{TABLES}/{readable[:_READABLE]}-{digest}.copy"
