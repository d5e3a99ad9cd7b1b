"""What the manifest says of a declared database, and when it need not be captured again."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backup_admin.operations.known import SETTLE_NS
from backup_admin.repository.types import Content, DatabaseEntry, TableEntry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backup_admin.sources.base import FileStamp
    from backup_admin.sources.sqlite import SqliteCopy, SqliteSource

SIGNALS = "signals"
"""Where the details of a database keep what was read just before it was captured."""


def describe_database(
    source: SqliteSource, copy: SqliteCopy, content: Content, *, began_ns: int
) -> DatabaseEntry:
    """Describe a captured database.

    The stamp of its file is noted only where a later one that is equal proves that
    nothing changed: the copy is the file itself, and both its times had settled when
    the capture began.
    """
    details = {
        "encoding": copy.encoding,
        "journal_mode": copy.journal_mode,
        "user_version": copy.user_version,
        "application_id": copy.application_id,
        "schema": copy.schema,
        "checks": list(copy.checks),
        "warnings": list(copy.warnings),
    }
    stamp = copy.stamp
    if stamp is not None and max(stamp.mtime_ns, stamp.ctime_ns) < began_ns - SETTLE_NS:
        details["file"] = _as_list(stamp)
    return DatabaseEntry(
        name=source.name,
        engine="sqlite",
        format="pages",
        engine_version=copy.sqlite_version,
        path=path_as_text(source.path),
        page_size=copy.page_size,
        content=content,
        tables=tuple(TableEntry(t.name, t.rows, t.size, t.checksum) for t in copy.tables),
        details=details,
    )


def is_unchanged(entry: DatabaseEntry, source: SqliteSource) -> bool:
    """Say whether a database is still what its entry in the snapshot before describes."""
    noted = entry.details.get("file")
    if noted is None or entry.path != path_as_text(source.path):
        return False
    stamp = source.quiet_stamp()
    return stamp is not None and _as_list(stamp) == noted


def with_signals(entry: DatabaseEntry, signals: Mapping[str, Any]) -> DatabaseEntry:
    """Note the signals that were read before a database was captured, in place of older ones.

    Those of the same files are left: their time is that of the capture.
    """
    noted = entry.details.get(SIGNALS, {})
    if signals and all(noted.get(name) == signals[name] for name in signals if name != "read_ns"):
        return entry
    details = {name: value for name, value in entry.details.items() if name != SIGNALS}
    return replace(entry, details=details | ({SIGNALS: dict(signals)} if signals else {}))


def known_checksums(entry: DatabaseEntry) -> dict[str, str]:
    """Return the checksum of each table: for `inspect_copy` and the like, to tell what is still the same."""
    return {table.name: table.checksum for table in entry.tables}


def noted_warnings(entry: DatabaseEntry) -> tuple[str, ...]:
    """Return what the checks of a captured database had to say."""
    return tuple(map(str, entry.details.get("warnings", ())))


def path_as_text(path: Path) -> str:
    """Write a path for the manifest, which is UTF-8; a name that is not is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _as_list(stamp: FileStamp) -> list[int]:
    return [stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode]
