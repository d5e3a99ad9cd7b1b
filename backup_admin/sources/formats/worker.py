"""Ask a process of its own to export from a copy of a SQLite database, or to import into a live one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.sources.formats.imported import report_from_json
from backup_admin.sources.sqlite import ask_script

if TYPE_CHECKING:
    from backup_admin.sources.formats.imported import ImportOptions, ImportReport

_WORKER = Path(__file__).with_name("sqlite_formats_worker.py")
_GRACE_SECONDS = 1200.0
_SLOWEST_BYTES_PER_SECOND = 2e5


def ask_formats(operation: str, arguments: dict[str, Any], *, size: int) -> dict[str, Any]:
    """Let the process do one thing with so many bytes; raises what it says went wrong."""
    seconds = _GRACE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND
    return ask_script(_WORKER, operation, arguments, timeout_seconds=seconds)


def import_into_sqlite(
    folder: Path, live: Path, options: ImportOptions, *, deadline_seconds: float = 60
) -> ImportReport:
    """Import into a live database in one transaction; raises what `import_tables` does, and `Busy`."""
    arguments = {
        "folder": str(folder),
        "live": str(live),
        "partial": options.partial,
        "dry_run": options.dry_run,
        "deadline_seconds": deadline_seconds,
    }
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return report_from_json(ask_formats("import", arguments, size=size))
