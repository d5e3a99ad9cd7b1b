"""SQLite databases: copy a live one, check a copy, put a copy in place of a live one.

Everything that opens a database runs in a process of its own (`sqlite_worker`
says why); this process only ever looks at names.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import SourceError, SourceInvalid, SourceMissing
from backup_admin.core.programs import ProgramOutput, stream_program
from backup_admin.sources.base import FileStamp
from backup_admin.sources.offline import place_offline, undo_place_offline
from backup_admin.sources.sidecars import JOURNAL_SUFFIXES
from backup_admin.sources.sqlite_process import (
    COMMAND,
    GRACE_SECONDS,
    answer_of,
    ask_script,
    ask_worker,
    read_all,
    request_for,
    seconds_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "DatabaseAtRest",
    "SqliteCopy",
    "SqliteSource",
    "TableDigest",
    "UncheckedCopy",
    "ask_about",
    "ask_script",
    "ask_worker",
    "copy_database",
    "inspect_copy",
    "looks_like_database",
    "place_offline",
    "read_at_rest",
    "undo_place_offline",
    "write_into_live",
]

_CHECK_SECONDS = 30.0
_LOOK_SECONDS = 3.0
_OLD_KIND = "sha256:"


@dataclass(frozen=True, slots=True)
class TableDigest:
    """How many rows a table has and a checksum over all of them.

    The algorithms stand in `sqlite_digest`: `digest_cells`, and `digest_tables` for older ones.
    """

    name: str
    rows: int
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class SqliteCopy:
    """A consistent copy of a database and what is in it.

    `checks` names the checks that passed; `warnings` are sentences for people
    about the others (rows that refer to missing rows, for example). `schema` is
    a checksum over the definitions of all tables, indexes, views and triggers.
    `stamp` is that of the live file when the copy is that file, byte for byte.
    """

    path: Path
    size: int
    page_size: int
    tables: tuple[TableDigest, ...]
    encoding: str
    journal_mode: str
    user_version: int
    application_id: int
    sqlite_version: str
    checks: tuple[str, ...]
    warnings: tuple[str, ...]
    schema: str
    stamp: FileStamp | None = None


@dataclass(frozen=True, slots=True)
class UncheckedCopy:
    """A consistent copy of a database that nobody has looked at yet."""

    path: Path
    page_size: int
    stamp: FileStamp | None


@dataclass(frozen=True, slots=True)
class SqliteSource:
    """One SQLite database of an app."""

    name: str
    path: Path

    def check(self) -> None:
        """Raise `SourceMissing` with the reason when it cannot be read."""
        arguments = {"path": str(self.path), "deadline_seconds": _CHECK_SECONDS}
        self._ask("check", arguments, _CHECK_SECONDS)

    def kept_by_copies(self) -> tuple[tuple[str, str], ...]:
        """Return by table the unique columns on which a copy of a row clashes with its original.

        Raises what `check` does, and `Busy`.
        """
        arguments = {"path": str(self.path), "deadline_seconds": _LOOK_SECONDS}
        found = self._ask("kept_by_copies", arguments, _LOOK_SECONDS)["columns"]
        return tuple((str(table), ", ".join(columns)) for table, columns in found)

    def quiet_stamp(self) -> FileStamp | None:
        """Return what tells this state of the file from another; None while it has a journal.

        With no journal that holds anything the file alone is the database. Nothing is
        opened, and the journals are looked at first: one that is emptied in between
        has changed the file. None also when the file is not there.
        """
        try:
            for suffix in JOURNAL_SUFFIXES:
                with suppress(FileNotFoundError):
                    if os.lstat(os.fsencode(self.path) + suffix).st_size:
                        return None
            found = self.path.lstat()
        except OSError:
            return None
        return FileStamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def capture(
        self, scratch: Path, *, deadline_seconds: float = 600, known: Mapping[str, str] | None = None
    ) -> SqliteCopy:
        """Copy it into the scratch folder while the app works with it.

        The copy is checked and has mode 0600; the caller removes it. `known` are checksums of tables on
        record (`inspect_copy`). Raises `Busy` when others keep it locked until the deadline,
        `SourceInvalid` when the copy is not sound, `SourceMissing` and `SourceError`.
        """
        arguments = {"describe": True, "known": _old_ones(known)}
        return _copy_of(self._capture(scratch, deadline_seconds, arguments)[1])

    def copy(self, scratch: Path, *, deadline_seconds: float = 600) -> UncheckedCopy:
        """Do what `capture` does but for checking and describing the copy: that takes long (`describing`)."""
        path, answer = self._capture(scratch, deadline_seconds, {})
        return UncheckedCopy(path, answer["page_size"], _stamp_of(answer))

    @contextmanager
    def describing(
        self, copy: UncheckedCopy, known: Mapping[str, str] | None = None
    ) -> Iterator[Callable[[], SqliteCopy]]:
        """Check a copy and read its tables in a process of its own while the block does something else.

        Gives what waits for the description, and raises `SourceInvalid` when the copy is not sound: nothing
        that was made of it may count before. The process does not outlive the block.
        """
        arguments = {"path": str(copy.path), "known": _old_ones(known)}
        with _describing(copy.path, arguments, f"Database {self.name}: ") as described:
            yield lambda: replace(described(), stamp=copy.stamp)

    def _capture(
        self, scratch: Path, deadline_seconds: float, then: dict[str, Any]
    ) -> tuple[Path, dict[str, Any]]:
        copy = scratch / f"{uuid.uuid4().hex}.db"
        arguments = {
            "path": str(self.path),
            "copy": str(copy),
            "deadline_seconds": deadline_seconds,
            **then,
        }
        try:
            return copy, self._ask("capture", arguments, deadline_seconds)
        except BaseException:
            copy.unlink(missing_ok=True)  # when the process was killed at work
            raise

    def _ask(self, operation: str, arguments: dict[str, Any], deadline_seconds: float) -> dict[str, Any]:
        about = f"Database {self.name}: "
        return ask_worker(operation, arguments, self.path, deadline_seconds, about)


def inspect_copy(path: Path, *, thorough: bool = False, known: Mapping[str, str] | None = None) -> SqliteCopy:
    """Check a copy that nobody writes to and take its digests.

    `thorough` also compares every index with its table (`integrity_check`, some
    15 times slower). `known` are checksums of its tables on record: one of an older kind that is still
    right is given again, so that checksums which differ mean that tables do. The copy may come from
    anywhere: its schema runs no code. Raises `SourceInvalid` when it is damaged.
    """
    arguments = {"path": str(path), "known": _old_ones(known)}
    if not thorough:
        return _copy_of(ask_worker("inspect", arguments, path, 0))
    with _describing(path, {**arguments, "checked": {"checks": [], "warnings": []}}) as described:
        found = ask_worker("check_thoroughly", {"path": str(path)}, path, 0)
        copy = described()
    return replace(
        copy,
        checks=(*found["checks"], *copy.checks),
        warnings=(*found["warnings"], *copy.warnings),
    )


@contextmanager
def _describing(path: Path, arguments: dict[str, Any], about: str = "") -> Iterator[Callable[[], SqliteCopy]]:
    request = request_for("inspect", arguments)
    with stream_program(COMMAND, silence_seconds=seconds_for(path), data=request) as output:
        yield lambda: _copy_of(answer_of(read_all(output), about, output.end))


def _old_ones(known: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (known or {}).items() if value.startswith(_OLD_KIND)}


def write_into_live(copy: Path, live: Path, *, deadline_seconds: float) -> None:
    """Replace the content of a live database by that of a checked copy.

    Goes through the backup API into the same file: open connections see the new
    rows at their next statement. All or nothing, also when this process or its
    child is killed. Safe to repeat. Raises `Busy` when a reader or writer stays
    in the way (live is unchanged) and `LiveUnusable` when live is missing or
    damaged: then `place_offline` is the way.
    """
    arguments = {
        "copy": str(copy),
        "live": str(live),
        "deadline_seconds": deadline_seconds,
    }
    ask_worker("write", arguments, copy, deadline_seconds)


def copy_database(path: Path, copy: Path, *, deadline_seconds: float = 600) -> FileStamp | None:
    """Copy a live SQLite file nobody declared, consistently where that is possible.

    A file that only looks like a database, or a damaged one, is copied byte by
    byte: it is somebody's file all the same. Returns what the file was when the
    copy is that file, byte for byte.
    """
    arguments = {
        "path": str(path),
        "copy": str(copy),
        "deadline_seconds": deadline_seconds,
    }
    try:
        answer = ask_worker("capture", arguments, path, deadline_seconds)
    except (SourceInvalid, SourceMissing):
        answer = ask_worker("copy", {"path": str(path), "copy": str(copy)}, path, deadline_seconds)
    return _stamp_of(answer)


class DatabaseAtRest:
    """The bytes of a database file that nobody writes to, as another process reads them."""

    def __init__(self, output: ProgramOutput, size: int, page_size: int) -> None:
        self.page_size = page_size
        self._output = output
        self._left = size

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes; 0 at the end. Raises `SourceError`."""
        if not self._left:
            return 0
        count = self._output.readinto(buffer[: self._left])
        if not count:
            raise SourceError(f"The SQLite process ended early, {self._output.end()}.")
        self._left -= count
        return count

    def stamp(self) -> FileStamp | None:
        """Return the stamp of the file; None when it changed, and what was read is worth nothing.

        Only to be asked when everything was read.
        """
        return _stamp_of(answer_of(read_all(self._output), "", self._output.end))


@contextmanager
def read_at_rest(path: Path, *, deadline_seconds: float = 600) -> Iterator[DatabaseAtRest | None]:
    """Give the file of a database to be read, or None when it was written to just now.

    No copy is made, and nobody is kept from writing: what was read counts when the file
    has the same stamp afterwards. Raises `Busy`, `SourceInvalid`, `SourceMissing` and `SourceError`.
    """
    request = request_for("stream", {"path": str(path), "deadline_seconds": deadline_seconds})
    silence_seconds = deadline_seconds + GRACE_SECONDS
    with stream_program(COMMAND, silence_seconds=silence_seconds, data=request) as output:
        head = bytearray()
        byte = bytearray(1)
        while not head.endswith(b"\n") and output.readinto(byte):
            head += byte
        if head[:1].isdigit():
            yield DatabaseAtRest(output, *map(int, head.split()))
        else:
            answer_of(bytes(head), "", output.end)  # an error is raised; else it was not at rest
            yield None


def looks_like_database(path: Path) -> bool:
    """Say whether a file begins like a SQLite database, without opening it here."""
    answer = ask_worker("sniff", {"path": str(path)}, path, _CHECK_SECONDS)
    return bool(answer["is_database"])


def ask_about(path: Path, operation: str, **arguments: Any) -> dict[str, Any]:
    """Let another process look at a live database; raises what `SqliteSource.check` does."""
    return ask_worker(operation, {"path": str(path), **arguments}, path, _CHECK_SECONDS)


def _copy_of(answer: dict[str, Any]) -> SqliteCopy:
    return SqliteCopy(
        path=Path(answer["path"]),
        size=answer["size"],
        page_size=answer["page_size"],
        tables=tuple(TableDigest(**table) for table in answer["tables"]),
        encoding=answer["encoding"],
        journal_mode=answer["journal_mode"],
        user_version=answer["user_version"],
        application_id=answer["application_id"],
        sqlite_version=answer["sqlite_version"],
        checks=tuple(answer["checks"]),
        warnings=tuple(answer["warnings"]),
        schema=answer["schema"],
        stamp=_stamp_of(answer),
    )


def _stamp_of(answer: dict[str, Any]) -> FileStamp | None:
    stamp = answer.get("stamp")
    return None if stamp is None else FileStamp(*stamp)
