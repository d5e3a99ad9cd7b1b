"""Folder trees: list one in order, read its files, never follow a symlink."""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.errors import ConfigurationError, SourceError, SourceMissing
from backup_admin.core.paths import check_path, show_path
from backup_admin.sources.base import (
    DatabaseCopy,
    EntryKind,
    FoundEntry,
    Problem,
    Replaced,
    Skipped,
)
from backup_admin.sources.beneath import FOLDER_FLAGS, open_beneath, stat_beneath
from backup_admin.sources.excludes import Excludes
from backup_admin.sources.pins import Pins
from backup_admin.sources.sqlite import DatabaseAtRest, copy_database, read_at_rest
from backup_admin.sources.walk import Holds, Walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK
_ROOT_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _knows_nothing(path: bytes, found: os.stat_result) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True, slots=True)
class RootInfo:
    """The folder that a source is rooted in."""

    mode: int
    mtime_ns: int


class KeptFolder:
    """The folder that the last file was opened in, kept open for the next. For one thread."""

    def __init__(self) -> None:
        self.path: bytes | None = None
        self.handle = -1

    def turn_to(self, path: bytes, handle: int) -> None:
        """Keep this folder now; takes the handle over."""
        self.close()
        self.path, self.handle = path, handle

    def close(self) -> None:
        """Keep none."""
        if self.path is not None:
            self.path = None
            os.close(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()


class OpenFile:
    """One file, opened for reading and closed by `with`; made for each file of a tree."""

    __slots__ = ("_at_end", "_entry", "handle")

    def __init__(self, handle: int, entry: FoundEntry) -> None:
        self.handle = handle
        self._entry = entry
        self._at_end = entry.size == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        os.close(self.handle)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read the next bytes into the buffer; 0 at the end of the file."""
        if self._at_end:
            return 0
        count = os.readv(self.handle, [buffer])
        # Most files fit into one buffer: they need not be asked again whether this was all.
        self._at_end = count == self._entry.size < len(buffer)
        return count

    def unchanged(self) -> bool:
        """Say whether the file is still what the entry says it is."""
        return _is_same(os.fstat(self.handle), self._entry)


@dataclass(frozen=True, slots=True)
class FileSource:
    """One folder tree of an app.

    `pinned` are absolute paths that are left alone: declared databases, whose
    sidecars are implied, and whole folders, like our own state folder. They are
    never opened, wherever and under whatever name they appear in the tree.
    """

    name: str
    root: Path
    exclude: tuple[str, ...] = ()
    pinned: tuple[Path, ...] = ()

    def check_root(self) -> RootInfo:
        """Return mode and time of the root.

        Raises `SourceMissing` when it is not there, is no folder or cannot be
        listed, and `ConfigurationError` when a pinned path or pattern is wrong.
        """
        Excludes(self.exclude)
        if Pins(self.root, self.pinned).hold_root:
            raise ConfigurationError(
                f"The folder {self.name} ({self.root}) is, or lies in, a place that "
                "is never backed up as files; choose another folder."
            )
        with self._root() as root:
            found = os.fstat(root)
            return RootInfo(stat.S_IMODE(found.st_mode), found.st_mtime_ns)

    def walk(self, holds: Holds = _knows_nothing) -> Iterator[FoundEntry | Skipped | Problem]:
        """List everything below the root in order of `core.paths.sort_key`.

        The root itself is not in it. Entries that vanish while a folder is
        listed are left out in silence. A folder marked by a CACHEDIR.TAG is kept
        with its tag only; the root is always taken whole. Files that `holds` knows
        are not given. Raises `SourceMissing` as `check_root` does, at once.
        """
        self.check_root()
        pins = Pins(self.root, self.pinned)
        return Walk(self.root, Excludes(self.exclude), pins, holds).entries()

    def open(self, entry: FoundEntry, kept: KeptFolder | None = None) -> OpenFile:
        """Open a file for reading, as far as it is still the one that was listed.

        Who opens many files in the order of a walk hands in what to keep between them.

        Raises `Replaced` when it is not (`look_again` finds the new one), and
        `SourceError` when it cannot be read. A live database is not opened here:
        `capture_database` copies it.
        """
        if entry.kind is not EntryKind.FILE or entry.is_database:
            raise SourceError(f"{show_path(entry.path)} is not read as a plain file.")
        check_path(entry.path)
        # An empty file may be a database that somebody has just begun. Closing a
        # handle made with O_PATH leaves its locks alone.
        flags = os.O_PATH if entry.size == 0 else _READ_FLAGS
        try:
            handle = self._open_beneath(entry.path, flags) if kept is None else self._near(entry, flags, kept)
        except OSError as error:
            raise SourceError(f"{show_path(entry.path)} cannot be read: {error.strerror}.") from error
        try:
            if os.fstat(handle).st_ino != entry.inode:
                raise Replaced(f"{show_path(entry.path)} was replaced after it was listed.")
            return OpenFile(handle, entry)
        except BaseException:
            os.close(handle)
            raise

    def look_again(self, entry: FoundEntry) -> FoundEntry:
        """Return the file that has the name now; raise `SourceError` when none has."""
        check_path(entry.path)
        with self._root() as root:
            now = stat_beneath(root, entry.path)
        if now is None or not stat.S_ISREG(now.st_mode):
            raise SourceError(f"{show_path(entry.path)} is gone.") from FileNotFoundError()
        return replace(
            entry,
            size=now.st_size,
            mode=stat.S_IMODE(now.st_mode),
            mtime_ns=now.st_mtime_ns,
            ctime_ns=now.st_ctime_ns,
            inode=now.st_ino,
            link_group=f"{now.st_dev}:{now.st_ino}" if now.st_nlink > 1 else "",
        )

    @contextmanager
    def read_database(self, entry: FoundEntry) -> Iterator[DatabaseAtRest | None]:
        """Give the file of a database nobody writes to, as `read_at_rest` does; raise `SourceError`."""
        with read_at_rest(self._database_path(entry)) as database:
            yield database

    def capture_database(self, entry: FoundEntry, scratch: Path) -> DatabaseCopy:
        """Copy a live SQLite file into the scratch folder; the caller removes it.

        Consistent, while others write to it. A file that only looks like a
        database is copied as it is. Raises `SourceError`.
        """
        copy = scratch / f"{uuid.uuid4().hex}.db"
        return DatabaseCopy(copy, copy_database(self._database_path(entry), copy))

    def _database_path(self, entry: FoundEntry) -> Path:
        check_path(entry.path)
        path = Path(os.path.realpath(self.root)) / os.fsdecode(entry.path)
        if os.path.realpath(path.parent) != str(path.parent):
            raise SourceError(f"{show_path(entry.path)} is no longer where it was.")
        return path

    def _near(self, entry: FoundEntry, flags: int, kept: KeptFolder) -> int:
        folder, _, name = entry.path.rpartition(b"/")
        if kept.path != folder:
            kept.turn_to(folder, self._open_beneath(folder or b".", FOLDER_FLAGS))
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=kept.handle)
        except FileNotFoundError:  # perhaps another folder has the name by now
            kept.close()
            return self._open_beneath(entry.path, flags)

    def _open_beneath(self, path: bytes, flags: int) -> int:
        with self._root() as root:
            return open_beneath(root, path, flags)

    @contextmanager
    def _root(self) -> Iterator[int]:
        handle = self._open_root()
        try:
            yield handle
        finally:
            os.close(handle)

    def _open_root(self) -> int:
        try:
            return os.open(self.root, _ROOT_FLAGS)
        except OSError as error:
            raise SourceMissing(
                f"The folder {self.name} ({self.root}) cannot be listed: "
                f"{error.strerror}. Is a disk not mounted?"
            ) from error


def _is_same(found: os.stat_result, entry: FoundEntry) -> bool:
    return (
        found.st_size == entry.size
        and found.st_mtime_ns == entry.mtime_ns
        and found.st_ctime_ns == entry.ctime_ns
        and found.st_ino == entry.inode
    )
