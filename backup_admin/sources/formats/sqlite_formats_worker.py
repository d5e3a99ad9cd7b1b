"""Export from a copy of a SQLite database, or import into a live one, in a process of its own.

Runs as a script, as `sqlite_worker` does and for the same reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # `python -I` may know another copy of this package or none; this is the one.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from backup_admin.sources.formats.sqlite_export import export_compact, export_json
from backup_admin.sources.formats.sqlite_import import import_json
from backup_admin.sources.formats.sqlite_script import export_sql
from backup_admin.sources.sqlite_worker import answer_with


def main() -> None:
    """Answer one request."""
    answer_with(
        {
            "json": export_json,
            "sql": export_sql,
            "compact": export_compact,
            "import": import_json,
        }
    )


if __name__ == "__main__":
    main()
