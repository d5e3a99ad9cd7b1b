"""What tells whether a SQLite database changed, without opening it: its files, and how its log begins.

In WAL mode the file itself does not show what was written, so its log belongs to it. The change counter
in the header and `data_version` are not asked: both were seen to stay when rows changed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError, ProgramFailed
from backup_admin.core.programs import run_program
from backup_admin.sources.sidecars import COUNTERS, JOURNAL_SUFFIXES
from backup_admin.sources.sqlite import ask_about

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backup_admin.sources.sqlite import SqliteSource

VERSION = 1
_SECONDS = 5.0
_LOG_HEADER_BYTES = "32"


def read_signals(source: SqliteSource) -> dict[str, Any]:
    """Return the signals of a database as plain data; nothing when it cannot be looked at.

    The journals are looked at first: one that is emptied in between has changed the file.
    """
    began_ns = time.time_ns()
    try:
        stamps = {suffix.decode(): _stamp(source, suffix) for suffix in (*JOURNAL_SUFFIXES, b"")}
        head = _head_of_log(source) if stamps["-wal"] else ""
    except (OSError, BackupAdminError):
        return {}
    if stamps[""] is None:
        return {}
    return {"version": VERSION, "read_ns": began_ns, "stamps": stamps, "log": head}


def are_equal(noted: Mapping[str, Any], now: Mapping[str, Any], settle_ns: int) -> bool:
    """Say whether nothing was written between two looks, for certain.

    Times that were fresh at the first look prove nothing: a write right after it may have the same.
    """
    if not now or noted.get("version") != VERSION or now.get("version") != VERSION:
        return False
    if noted["stamps"] != now["stamps"] or noted["log"] != now["log"]:
        return False
    times = [moment for stamp in noted["stamps"].values() if stamp for moment in stamp[2:]]
    return bool(max(times) < noted["read_ns"] - settle_ns)


def _head_of_log(source: SqliteSource) -> str:
    """Return how the log begins: its salts are others after each time it was begun anew.

    Another process reads it, since closing a file of a database may drop locks here, and a small one:
    our own worker takes longer to start than everything else a look does.
    """
    command = ("head", "-c", _LOG_HEADER_BYTES, os.fspath(source.path.absolute()) + "-wal")
    done = run_program(command, timeout_seconds=_SECONDS)
    if done.status:
        raise ProgramFailed(f"head ended {done.end()}")
    return done.output.hex()


def counted(source: SqliteSource) -> str:
    """Return the digest of what our triggers counted; raises what `SqliteSource.check` does."""
    answer = ask_about(source.path, "table_digest", table=COUNTERS, deadline_seconds=_SECONDS)
    return str(answer["table"]["checksum"])


def _stamp(source: SqliteSource, suffix: bytes) -> list[int] | None:
    """Return size, inode and times; none for a journal that is not there or empty.

    The time of a journal's last change of owner is no sign: SQLite gives it its owner anew when
    root opens a database.
    """
    try:
        found = os.lstat(os.fsencode(source.path) + suffix)
    except FileNotFoundError:
        return None
    if not found.st_size:
        return None
    times = [found.st_mtime_ns] if suffix else [found.st_mtime_ns, found.st_ctime_ns]
    return [found.st_size, found.st_ino, *times]
