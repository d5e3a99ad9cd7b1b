"""Do one thing with a SQLite file in a process of its own, then end.

Runs as a script: a request as JSON on standard input, the answer as JSON on
standard output.

Why a process: opening and closing a database file with ordinary calls, in a
process that has SQLite connections to it, drops their POSIX locks, and another
process then writes inside their transaction. Nobody but this process may open
a database that an app uses.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # `python -I` may know another copy of this package or none; this is the one.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backup_admin.core.durable import write_all
from backup_admin.sources import sqlite_triggers
from backup_admin.sources.sidecars import SQLITE_MAGIC
from backup_admin.sources.sqlite_btree import PageFile
from backup_admin.sources.sqlite_digest import (
    check_keys,
    check_pages,
    digest_cells,
    digest_schema,
    digest_table,
    foreign_collations,
    stand_in,
)
from backup_admin.sources.sqlite_graph import read_graph
from backup_admin.sources.sqlite_look import look_for_rows
from backup_admin.sources.sqlite_open import (
    CORRUPT,
    Deadline,
    Failure,
    begin_reading,
    connect,
    copy_file,
    error_code,
    fitted,
    header_page_size,
    is_busy,
    is_file_alone,
    is_settled,
    need_database,
    open_live,
    open_source,
    read_header,
    run_backup,
    send,
    shown,
    stamp_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer one request."""
    answer_with(
        {
            "sniff": sniff,
            "check": check,
            "capture": capture,
            "copy": copy_plainly,
            "stream": stream,
            "inspect": inspect,
            "look": look,
            "kept_by_copies": kept_by_copies,
            "check_thoroughly": check_thoroughly,
            "write": write,
            "merge": merge,
            "undo_merge": undo_merge,
            "table_digest": table_digest,
            "triggers_install": sqlite_triggers.install,
            "triggers_show": sqlite_triggers.show,
            "triggers_uninstall": sqlite_triggers.uninstall,
        }
    )


def answer_with(operations: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer one request by one of the operations."""
    request = json.load(sys.stdin)
    _die_with(request["parent"])
    os.umask(0o077)
    answer: dict[str, Any]
    try:
        answer = {"ok": operations[request["operation"]](**request["arguments"])}
    except Failure as failure:
        answer = {"error": failure.kind, "message": str(failure)}
    except sqlite3.Error as error:
        answer = {"error": _kind(error), "message": f"SQLite says: {error}."}
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""  # of what is open the system names none
        answer = {"error": "failed", "message": f"{error.strerror}{where}."}
    json.dump(answer, sys.stdout)


def sniff(path: str) -> dict[str, Any]:
    """Say whether a file begins like a SQLite database."""
    return {"is_database": read_header(path)[:16] == SQLITE_MAGIC}


def check(path: str, deadline_seconds: float) -> dict[str, Any]:
    """Fail with the reason when a database cannot be read."""
    need_database(path)
    with closing(open_source(path, Deadline(deadline_seconds, path))):
        return {}


def capture(
    path: str,
    copy: str,
    deadline_seconds: float,
    describe: bool = False,
    known: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Copy a live database consistently; check and describe the copy when asked."""
    need_database(path)
    deadline = Deadline(deadline_seconds, path)
    _create(copy)
    try:
        # Closing a handle of the file drops SQLite's locks: so the file is closed last.
        with Path(path).open("rb", buffering=0) as file, closing(open_source(path, deadline)) as source:
            begin_reading(source, deadline)
            stamp = copy_file(file, copy) if is_file_alone(file, path) else None
            source.execute("ROLLBACK")
            if stamp is None:
                _copy_pages(source, copy, deadline)
        answer = inspect(copy, known=known) if describe else {}
        page_size = header_page_size(read_header(copy))
    except BaseException:
        Path(copy).unlink()
        raise
    return {"page_size": page_size, **answer, "stamp": stamp}


def stream(path: str, deadline_seconds: float) -> dict[str, Any]:
    """Write a database at rest to standard output, without keeping anybody from writing to it.

    A line with its size and page size goes ahead. The answer has no stamp when the
    file was not at rest, which sends nothing, or did not stay so: then what was sent is
    worth nothing.
    """
    need_database(path)
    deadline = Deadline(deadline_seconds, path)
    with Path(path).open("rb", buffering=0) as file:
        stamp = None
        with closing(open_source(path, deadline)) as source:
            begin_reading(source, deadline)
            if is_file_alone(file, path) and is_settled(file):
                stamp = stamp_of(file)
        if stamp is None:
            return {"stamp": None}
        output = sys.stdout.fileno()
        write_all(output, b"%d %d\n" % (stamp[0], header_page_size(read_header(path))))
        send(file, stamp[0], output)
        return {"stamp": stamp if stamp == stamp_of(file) else None}


def copy_plainly(path: str, copy: str) -> dict[str, Any]:
    """Copy a file byte by byte; fail when it changes meanwhile."""
    _create(copy)
    with Path(path).open("rb", buffering=0) as file:
        stamp = copy_file(file, copy)
    if stamp is None:
        Path(copy).unlink()
        raise Failure("failed", f"{shown(path)} changed while it was read.")
    return {"stamp": stamp}


def _copy_pages(source: sqlite3.Connection, copy: str, deadline: Deadline) -> None:
    """Copy a database through SQLite, which reads file and journal together."""
    os.truncate(copy, 0)
    with closing(connect(copy, "mode=rw")) as target:
        # Nobody wants half a copy: no journal, no sync.
        target.execute("PRAGMA journal_mode=OFF")
        target.execute("PRAGMA synchronous=OFF")
        run_backup(source, target, deadline)


def check_thoroughly(path: str) -> dict[str, Any]:
    """Let SQLite compare every index of a copy with its table."""
    need_database(path)
    return _check_pages(path, thorough=True)


def inspect(
    path: str, checked: dict[str, list[str]] | None = None, known: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Check a copy that nobody writes to, and describe it table by table.

    `checked` is what the check of its pages had to say, where others do that; `known` are checksums
    of tables that are on record (`digest_cells`).
    """
    need_database(path)
    header = read_header(path)
    found = checked or _check_pages(path, thorough=False)
    warnings = found["warnings"]
    with closing(_open_copy(path)) as copy:
        checks = found["checks"] + check_keys(copy, warnings)
        collations = foreign_collations(copy)
    with closing(_open_copy(path, collations)) as copy, Path(path).open("rb", buffering=0) as file:
        return {
            "path": path,
            "size": Path(path).stat().st_size,
            "page_size": header_page_size(header),
            "encoding": _pragma(copy, "encoding"),
            "journal_mode": "wal" if header[18] == 2 else "delete",
            "user_version": _pragma(copy, "user_version"),
            "application_id": _pragma(copy, "application_id"),
            "sqlite_version": sqlite3.sqlite_version,
            "tables": list(digest_cells(copy, warnings, PageFile(file, path), known or {})),
            "schema": digest_schema(copy),
            "checks": checks,
            "warnings": warnings,
        }


def look(path: str, table: str, text: str) -> dict[str, Any]:
    """Look for rows of a table in a copy that nobody writes to (`sqlite_look`)."""
    need_database(path)
    with closing(_open_copy(path)) as copy:
        return look_for_rows(copy, table, text)


def kept_by_copies(path: str, deadline_seconds: float) -> dict[str, Any]:
    """Say which unique columns of a live database a copy of a row would clash on."""
    need_database(path)
    deadline = Deadline(deadline_seconds, path)
    with closing(open_source(path, deadline)) as source:
        begin_reading(source, deadline)
        return {"columns": list(read_graph(source).kept_by_copies())}


def _check_pages(path: str, *, thorough: bool) -> dict[str, Any]:
    warnings: list[str] = []
    with closing(_open_copy(path)) as copy:
        checks = check_pages(copy, thorough=thorough, warnings=warnings)
    return {"checks": checks, "warnings": warnings}


def write(copy: str, live: str, deadline_seconds: float) -> dict[str, Any]:
    """Replace the content of a live database, all of it or nothing.

    SQLite's own journal makes it atomic: killed at any moment, the next one who
    opens the database finds the old content, or the new when it was finished.
    """
    need_database(copy)
    deadline = Deadline(deadline_seconds, live)
    with closing(open_live(live, deadline)) as target:
        with (
            fitted(copy, target, deadline) as source_path,
            closing(connect(source_path, "mode=ro&immutable=1")) as source,
        ):
            run_backup(source, target, deadline)
        # Best effort: a reader may still need the old pages.
        with suppress(sqlite3.Error):
            target.execute("PRAGMA busy_timeout=1000")
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return {}


def merge(**arguments: Any) -> dict[str, Any]:
    """Bring chosen rows of a copy into a live database."""
    from backup_admin.sources.sqlite_merge import merge_copy  # noqa: PLC0415 - nothing else needs it

    return merge_copy(**arguments)


def undo_merge(**arguments: Any) -> dict[str, Any]:
    """Take back what a merge did to a live database."""
    from backup_admin.sources.sqlite_undo import undo_merge as take_back  # noqa: PLC0415 - only for this

    return take_back(**arguments)


def table_digest(path: str, table: str, deadline_seconds: float) -> dict[str, Any]:
    """Return the digest of one table of a live database; meant for a small one."""
    need_database(path)
    deadline = Deadline(deadline_seconds, path)
    with closing(open_source(path, deadline)) as source:
        begin_reading(source, deadline)
        return {"table": digest_table(source, table)}


def _open_copy(path: str, collations: Sequence[str] = ()) -> sqlite3.Connection:
    copy = connect(path, "mode=ro&immutable=1")
    for name in collations:
        copy.create_collation(name, stand_in)
    for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON"):
        copy.execute(f"PRAGMA {pragma}")
    return copy


def _die_with(parent: int) -> None:
    """End when the parent ends, also when it is killed."""
    with suppress(AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _create(copy: str) -> None:
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _kind(error: sqlite3.Error) -> str:
    if is_busy(error):
        return "busy"
    return "invalid" if error_code(error) in CORRUPT else "failed"


if __name__ == "__main__":
    main()
