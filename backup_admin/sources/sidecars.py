"""How a SQLite database begins, and the files that SQLite keeps beside one.

Apart from the rest of the sources: the worker process starts for each database and
needs no more of them.
"""

from __future__ import annotations

SQLITE_MAGIC = b"SQLite format 3\x00"
SIDECAR_SUFFIXES = (b"-wal", b"-shm", b"-journal")
COUNTERS = "backup_admin_changes"
"""The table in which our own triggers count, where somebody wanted them; their names begin like it."""
JOURNAL_SUFFIXES = (b"-wal", b"-journal")
"""The sidecars that can hold what is not in the database file yet."""
