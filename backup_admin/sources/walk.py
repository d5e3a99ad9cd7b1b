"""List a folder tree in order, one `scandir` per folder and one `stat` per entry.

The walk runs over a million files each night to find that nothing changed, so what
it does for each of them is little: whoever walks says by path and `stat` which
files it knows already, and nothing is made of those.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError, SourceMissing
from backup_admin.core.paths import MAX_DEPTH, MAX_PATH_BYTES
from backup_admin.sources.base import (
    EntryKind,
    FoundEntry,
    Problem,
    Skipped,
    SkipReason,
)
from backup_admin.sources.beneath import FOLDER_FLAGS
from backup_admin.sources.sidecars import JOURNAL_SUFFIXES, SIDECAR_SUFFIXES, SQLITE_MAGIC
from backup_admin.sources.sqlite import looks_like_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.sources.excludes import Excludes
    from backup_admin.sources.pins import Pins

Item = FoundEntry | Skipped | Problem
Holds = Callable[[bytes, os.stat_result], bool]

_TAG_NAME = b"CACHEDIR.TAG"
_TAG_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_SECTOR = 512
_TYPE_MASK = 0o170000
_DOT = ord(".")
_SNIFF_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


@dataclass(slots=True)
class _Folder:
    """A folder on the way from the root to where the walk is.

    One that could not be listed has no handle and no names, but a problem.
    `journaled` are the names that have another beside them that ends like a journal.
    """

    path: bytes
    handle: int = -1
    names: Iterator[bytes] = field(default_factory=lambda: iter(()))
    folders: frozenset[bytes] = frozenset()
    is_cache: bool = False
    journaled: frozenset[bytes] = frozenset()
    database_sidecars: set[bytes] = field(default_factory=set)
    problem: Problem | None = None


class Walk:
    """One pass over a tree.

    `holds` is asked about each file in turn, by path and `stat`; one it knows is
    neither looked at nor given. It is not asked about a file with a journal.
    """

    def __init__(self, root: Path, excludes: Excludes, pins: Pins, holds: Holds) -> None:
        self._root = root
        self._excludes = excludes
        self._pins = pins
        self._holds = holds
        self._pinned_inodes = frozenset(inode for _, inode in pins.inodes)
        self._has_rules = excludes.has_patterns or pins.has_names
        self._stack: list[_Folder] = []

    def entries(self) -> Iterator[Item]:
        """Give everything below the root in order; see `FileSource.walk`.

        The folders from the root to here stay open, and everything is reached
        through them: a folder exchanged for a symlink leads nowhere.
        """
        stack = self._stack
        try:
            stack.append(self._list_root())
            while stack:
                folder = stack[-1]
                if folder.problem is not None:
                    yield folder.problem
                for name in folder.names:
                    item = self._item(folder, name)
                    if item is None:
                        continue
                    yield item
                    if stack[-1] is not folder:
                        break
                else:
                    _close(stack.pop())
        finally:
            while stack:
                _close(stack.pop())

    def _list_root(self) -> _Folder:
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return _list(root, b"", may_be_cache=False)
        except OSError as error:
            raise SourceMissing(f"{self._root} cannot be listed: {error.strerror}.") from error

    def _item(self, folder: _Folder, name: bytes) -> Item | None:
        """Say what an entry is; None when it is gone or known. Enters it when it is a folder."""
        path = folder.path + name
        if self._has_rules or folder.is_cache or folder.database_sidecars or name[0] == _DOT:
            reason = self._skip_by_name(folder, path, name)
            if reason is not None:
                return Skipped(path, reason)
        try:
            found = os.stat(name, dir_fd=folder.handle, follow_symlinks=False)
            if found.st_mode & _TYPE_MASK != stat.S_IFREG:
                return self._no_file(folder, path, name, found)
            is_usual = found.st_ino not in self._pinned_inodes and name not in folder.journaled
            return None if is_usual and self._holds(path, found) else self._file(folder, path, name, found)
        except FileNotFoundError:
            return None
        except (OSError, SourceError) as error:
            return Problem(path, _reason(error))

    def _skip_by_name(self, folder: _Folder, path: bytes, name: bytes) -> SkipReason | None:
        is_folder = name in folder.folders
        reason = self._pins.reason_by_name(path, is_folder=is_folder)
        if reason is not None:
            return reason
        if folder.is_cache and name != _TAG_NAME:
            return SkipReason.CACHE_FOLDER
        if self._excludes.match(path, name, is_folder=is_folder):
            return SkipReason.EXCLUDED
        if name in folder.database_sidecars:
            return SkipReason.SIDECAR
        return None

    def _file(self, folder: _Folder, path: bytes, name: bytes, found: os.stat_result) -> Item:
        size = found.st_size
        if (found.st_dev, found.st_ino) in self._pins.inodes:
            return Skipped(path, SkipReason.DECLARED_DATABASE)
        if len(path) > MAX_PATH_BYTES:
            return Problem(path, "The path is too long to be kept.")
        is_quiet = True
        if name in folder.journaled:
            # In this order: a journal that is emptied first changes the file.
            is_quiet = _is_quiet(folder.handle, name)
            found = os.stat(name, dir_fd=folder.handle, follow_symlinks=False)
        is_database = False
        if name in folder.journaled or (size % _SECTOR == 0 and size):
            is_database = self._is_database(folder, path, name, found)
        return FoundEntry(
            path,
            EntryKind.FILE,
            found.st_size,
            found.st_mode & 0o7777,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
            b"",
            f"{found.st_dev}:{found.st_ino}" if found.st_nlink > 1 else "",
            is_database,
            is_database and is_quiet,
        )

    def _no_file(self, folder: _Folder, path: bytes, name: bytes, found: os.stat_result) -> Item:
        if stat.S_ISDIR(found.st_mode):
            return self._enter(folder, path, name, found)
        if not stat.S_ISLNK(found.st_mode):
            return Skipped(path, SkipReason.SPECIAL)
        target = os.readlink(name, dir_fd=folder.handle)
        return FoundEntry(
            path,
            EntryKind.SYMLINK,
            len(target),
            found.st_mode & 0o7777,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
            target,
        )

    def _enter(self, parent: _Folder, path: bytes, name: bytes, found: os.stat_result) -> Item:
        if (found.st_dev, found.st_ino) in self._pins.inodes:
            return Skipped(path, SkipReason.PINNED)
        if len(self._stack) >= MAX_DEPTH or len(path) > MAX_PATH_BYTES:
            return Problem(path, "The folder lies too deep to be kept.")
        try:
            handle = os.open(name, FOLDER_FLAGS, dir_fd=parent.handle)
            folder = _list(handle, path + b"/")
        except OSError as error:
            problem = Problem(path, f"The folder cannot be listed: {_reason(error)}")
            folder = _Folder(path, problem=problem)
        self._stack.append(folder)
        return FoundEntry(
            path,
            EntryKind.FOLDER,
            0,
            found.st_mode & 0o7777,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
        )

    def _is_database(self, folder: _Folder, path: bytes, name: bytes, found: os.stat_result) -> bool:
        """Say whether a file is a SQLite database, without touching its locks.

        Opening one that this process works with would drop them, so such a file,
        and any that has a journal beside it, is looked at by another process.
        """
        if name in folder.journaled or (found.st_dev, found.st_ino) in _own_files():
            result = looks_like_database(self._root / os.fsdecode(path))
        else:
            result = _begins_with(folder.handle, name, SQLITE_MAGIC)
        if result and name in folder.journaled:
            folder.database_sidecars |= {name + suffix for suffix in SIDECAR_SUFFIXES}
        return result


def _list(handle: int, path: bytes, *, may_be_cache: bool = True) -> _Folder:
    """List an open folder; takes the handle over, closing it on errors."""
    try:
        names: list[bytes] = []
        folders: list[bytes] = []
        with os.scandir(handle) as found:
            for entry in found:
                name = entry.name.encode(_ENCODING, _ERRORS)
                names.append(name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
        names.sort()
        is_cache = may_be_cache and _TAG_NAME in names and _is_cache(handle)
        return _Folder(path, handle, iter(names), frozenset(folders), is_cache, _journaled(names))
    except BaseException:
        os.close(handle)
        raise


def _close(folder: _Folder) -> None:
    if folder.handle >= 0:
        os.close(folder.handle)


def _journaled(names: list[bytes]) -> frozenset[bytes]:
    """Pick what has a journal beside it, by name; quick, since there are mostly none."""
    joined = b"/".join(names) + b"/"
    if not any(suffix + b"/" in joined for suffix in SIDECAR_SUFFIXES):
        return frozenset()
    return frozenset(name.rpartition(b"-")[0] for name in names if name.endswith(SIDECAR_SUFFIXES))


def _is_cache(handle: int) -> bool:
    return _begins_with(handle, _TAG_NAME, _TAG_SIGNATURE)


def _is_quiet(folder: int, name: bytes) -> bool:
    """Say whether no journal with anything in it lies beside a file."""
    for suffix in JOURNAL_SUFFIXES:
        with suppress(FileNotFoundError):
            if os.stat(name + suffix, dir_fd=folder, follow_symlinks=False).st_size:
                return False
    return True


def _begins_with(folder: int, name: bytes, beginning: bytes) -> bool:
    try:
        handle = os.open(name, _SNIFF_FLAGS, dir_fd=folder)
    except OSError:
        return False  # whoever reads the file itself meets the same error
    try:
        return os.read(handle, len(beginning)) == beginning
    except OSError:
        return False
    finally:
        os.close(handle)


def _own_files() -> set[tuple[int, int]]:
    """Return what this process has open."""
    files = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  called per file
        with suppress(OSError):
            found = os.fstat(int(number))
            files.add((found.st_dev, found.st_ino))
    return files


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}."
    return str(error)
