"""Open SQLite files inside the worker process: live ones, copies, and backups.

Part of the worker (`sqlite_worker`); nobody else opens a live database.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from backup_admin.core.durable import write_all
from backup_admin.core.paths import show_path
from backup_admin.sources.sidecars import SQLITE_MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PAUSE_SECONDS = 0.005  # short: a busy writer leaves small gaps only
_HEADER_BYTES = 100
_WAL_VERSION = 2
_SEND_BYTES = 1 << 30
_SEND_PIECE = 1 << 20
_SETTLE_NS = 2_000_000_000
_PROBE = "SELECT count(*) FROM sqlite_master"


class Failure(Exception):
    """What to tell the caller: a kind it knows and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Deadline:
    """Stops waiting for locks that others hold."""

    def __init__(self, seconds: float, path: str) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._path = path

    def check(self, *_progress: int) -> None:
        """Raise when the time is over; also the progress callback of a backup."""
        if time.monotonic() > self._end:
            raise Failure(
                "busy",
                f"{shown(self._path)} stayed locked by another process for "
                f"{self._seconds:.0f} s; find out who holds it and try again.",
            )


def need_database(path: str) -> None:
    """Refuse early what SQLite would report unclearly or silently create."""
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            raise Failure("missing", _symlink_message(path))
        if not stat.S_ISREG(found.st_mode):
            raise Failure("missing", f"{shown(path)} is not a file.")
        if found.st_size == 0:
            raise Failure("missing", f"{shown(path)} is empty: no database yet.")
        header = read_header(path)
        if header[:16] != SQLITE_MAGIC or len(header) < _HEADER_BYTES:
            raise Failure("missing", f"{shown(path)} is not a SQLite database.")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Failure("missing", f"{shown(path)} is not there.") from error
    except PermissionError as error:
        raise Failure("missing", f"{shown(path)} may not be read by us.") from error


def open_source(path: str, deadline: Deadline) -> sqlite3.Connection:
    """Open a live database for reading, with as few rights as do.

    In WAL mode a reader makes sidecars, and only one that may write takes them
    away again when it was the last; and a journal that a crashed writer left can
    only be rolled back by one that may write. Where nothing can be written only
    `immutable` reads a database in WAL mode, which is right without a journal.
    """
    is_wal = read_header(path)[18] == _WAL_VERSION
    ways = ["mode=rw", "mode=ro"] if is_wal else ["mode=ro", "mode=rw"]
    has_journal = any(os.path.lexists(path + end) for end in ("-wal", "-journal"))
    if not has_journal and not os.access(Path(path).parent, os.W_OK):
        ways.append("mode=ro&immutable=1")
    for way in ways[:-1]:
        try:
            return _open_when_free(path, way, deadline)
        except sqlite3.OperationalError:
            continue
    try:
        return _open_when_free(path, ways[-1], deadline)
    except sqlite3.OperationalError as error:
        raise Failure("missing", f"{shown(path)} cannot be read: {error}.") from error


def open_live(live: str, deadline: Deadline) -> sqlite3.Connection:
    """Open a live database as the target of a backup."""
    try:
        found = os.lstat(live)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Failure("unusable", f"{shown(live)} is not there.") from error
    if stat.S_ISLNK(found.st_mode):
        raise Failure("failed", _symlink_message(live))
    if not stat.S_ISREG(found.st_mode):
        raise Failure("failed", f"{shown(live)} is not a file.")
    try:
        connection = _open_when_free(live, "mode=rw", deadline)
    except sqlite3.OperationalError as error:
        message = f"{shown(live)} cannot be written: {error}."
        raise Failure("failed", message) from error
    except Failure as failure:
        if failure.kind == "invalid":
            raise Failure("unusable", str(failure)) from failure
        raise
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def connect(path: str, options: str) -> sqlite3.Connection:
    """Connect without waiting for locks and without implicit transactions."""
    address = f"file:{quote(os.fsencode(path))}?{options}"
    return sqlite3.connect(address, uri=True, timeout=0, isolation_level=None)


def begin_reading(connection: sqlite3.Connection, deadline: Deadline) -> None:
    """Begin to read one state of a database, waiting for locks of others."""
    while True:
        try:
            connection.execute("BEGIN")
            connection.execute(_PROBE).fetchall()
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not is_busy(error):
                raise
        else:
            return
        deadline.check()
        time.sleep(_PAUSE_SECONDS)


def is_file_alone(file: FileIO, path: str) -> bool:
    """Say whether what a reader of this path sees is the open file alone; ask while reading.

    Without WAL no writer touches the file while somebody reads. With an empty one
    neither: a reader that needs nothing of it keeps others from writing it back, and
    one that needs it keeps others from emptying it.
    """
    if not os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
        return False
    try:
        return os.lstat(path + "-wal").st_size == 0
    except FileNotFoundError:
        return True


def copy_file(file: FileIO, copy: str) -> list[int] | None:
    """Copy an open file byte by byte over another; return its size, times and inode.

    None when it changed meanwhile: then the copy is worth nothing.
    """
    before = stamp_of(file)
    with Path(copy).open("r+b", buffering=0) as target:
        offset = 0
        while count := os.sendfile(target.fileno(), file.fileno(), offset, _SEND_BYTES):
            offset += count
    return before if before == stamp_of(file) and before[0] == offset else None


def run_backup(source: sqlite3.Connection, target: sqlite3.Connection, deadline: Deadline) -> None:
    """Copy all pages in one step.

    In smaller steps a busy writer makes SQLite begin again for ever. Python
    waits for locks without end; the deadline ends that, the target unchanged.
    """
    try:
        source.backup(target, pages=-1, progress=deadline.check, sleep=_PAUSE_SECONDS)
    except sqlite3.Error as error:
        if error_code(error) in CORRUPT:
            raise Failure("invalid", f"The database is damaged: {error}.") from error
        if error_code(error) == sqlite3.SQLITE_FULL:
            raise Failure("failed", "No space is left on the disk.") from error
        raise


@contextmanager
def fitted(copy: str, live: sqlite3.Connection, deadline: Deadline) -> Iterator[str]:
    """Give a path to the copy in a form that the live database takes and keeps its journal mode with.

    In rollback mode it takes pages of any size. A log cannot change their size under
    those who read: then the copy is built anew. That keeps the number of every row,
    but needs all collations and functions of the schema; where only the app has them
    live leaves its log meanwhile, for which nobody else may have it open.
    """
    if _journal_mode(live) != "wal":
        _leave_wal(copy)
        yield copy
        return
    page_size = live.execute("PRAGMA page_size").fetchone()[0]
    if header_page_size(read_header(copy)) == page_size:
        yield copy
        return
    resized = Path(f"{copy}.resized")
    try:
        if _resize(copy, resized, page_size):
            yield str(resized)
            return
        _set_journal_mode(live, "delete", deadline)
        _leave_wal(copy)
        try:
            yield copy
        finally:
            _set_journal_mode(live, "wal", deadline)
    finally:
        resized.unlink(missing_ok=True)


def _journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _leave_wal(copy: str) -> None:
    """Say in the header of a copy that it needs no log: live would be put into WAL mode by it."""
    if read_header(copy)[18] == _WAL_VERSION:
        with closing(connect(copy, "mode=rw")) as connection:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()


def _resize(copy: str, resized: Path, page_size: int) -> bool:
    """Build a copy anew in another page size; False when its schema needs what only the app has."""
    resized.unlink(missing_ok=True)
    # Not `immutable`: with it SQLite keeps the page size as it is.
    with closing(connect(copy, "mode=rw")) as connection:
        connection.execute(f"PRAGMA page_size={int(page_size)}")
        try:
            connection.execute("VACUUM INTO ?", (str(resized),))
        except sqlite3.OperationalError as error:
            if error_code(error) == sqlite3.SQLITE_ERROR:
                return False
            raise
    return True


def _set_journal_mode(live: sqlite3.Connection, mode: str, deadline: Deadline) -> None:
    while True:
        try:
            live.execute(f"PRAGMA journal_mode={mode}").fetchall()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        else:
            return
        deadline.check()
        time.sleep(_PAUSE_SECONDS)


def read_header(path: str) -> bytes:
    """Read the 100 bytes a database begins with."""
    with Path(path).open("rb", buffering=0) as file:
        return file.read(_HEADER_BYTES)


def is_settled(file: FileIO) -> bool:
    """Say whether the last change is so old that a further one gives the file another time."""
    found = os.fstat(file.fileno())
    return max(found.st_mtime_ns, found.st_ctime_ns) < time.time_ns() - _SETTLE_NS


def send(file: FileIO, size: int, output: int) -> None:
    """Write exactly so many bytes of a file; zeros for those that are gone meanwhile.

    Not by `sendfile`: what that puts into a pipe is the file itself, and may still change.
    """
    buffer = memoryview(bytearray(_SEND_PIECE))
    offset = 0
    while offset < size:
        piece = buffer[: size - offset]
        count = os.preadv(file.fileno(), [piece], offset)
        if not count:
            count = len(piece)
            piece[:] = bytes(count)
        write_all(output, piece[:count])
        offset += count


def stamp_of(file: FileIO) -> list[int]:
    """Return size, times and inode of an open file."""
    found = os.fstat(file.fileno())
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def header_page_size(header: bytes) -> int:
    """Return the page size that a header names (1 stands for 64 KiB)."""
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size


def error_code(error: Exception) -> int:
    """Return SQLite's primary result code, or -1."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code > 0 else -1


def is_busy(error: Exception) -> bool:
    """Say whether somebody else's lock was in the way."""
    return error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def shown(path: str) -> str:
    """Write a path for people."""
    return show_path(os.fsencode(path))


def _open_when_free(path: str, way: str, deadline: Deadline) -> sqlite3.Connection:
    while True:
        connection = connect(path, way)
        try:
            connection.execute(_PROBE).fetchall()
        except sqlite3.DatabaseError as error:
            connection.close()
            if error_code(error) in CORRUPT:
                message = f"{shown(path)} is damaged: {error}."
                raise Failure("invalid", message) from error
            if not is_busy(error):
                raise
        else:
            return connection
        deadline.check()
        time.sleep(_PAUSE_SECONDS)


def _symlink_message(path: str) -> str:
    return (
        f"{shown(path)} is a symlink to {shown(os.path.realpath(path))}; give that "
        "path, since SQLite keeps its journals beside it."
    )
