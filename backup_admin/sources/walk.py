"""List a folder tree in order, one `scandir` per folder and one `stat` per entry."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError, SourceMissing
from backup_admin.core.paths import MAX_DEPTH, MAX_PATH_BYTES
from backup_admin.sources.base import (
    SIDECAR_SUFFIXES,
    SQLITE_MAGIC,
    EntryKind,
    FoundEntry,
    Problem,
    Skipped,
    SkipReason,
)
from backup_admin.sources.beneath import FOLDER_FLAGS
from backup_admin.sources.sqlite import looks_like_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.sources.excludes import Excludes
    from backup_admin.sources.pins import Pins

Item = FoundEntry | Skipped | Problem

_TAG_NAME = b"CACHEDIR.TAG"
_TAG_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_SECTOR = 512
_TYPE_MASK = 0o170000
_DOT = ord(".")
_SNIFF_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class _Folder:
    """A folder on the way from the root to where the walk is.

    One that could not be listed has no handle and no entries, but a problem.
    """

    path: bytes
    handle: int = -1
    entries: Iterator[tuple[bytes, os.DirEntry[str]]] = field(default_factory=lambda: iter(()))
    is_cache: bool = False
    sidecars: frozenset[bytes] = frozenset()
    database_sidecars: set[bytes] = field(default_factory=set)
    problem: Problem | None = None


class Walk:
    """One pass over a tree."""

    def __init__(self, root: Path, excludes: Excludes, pins: Pins) -> None:
        self._root = root
        self._excludes = excludes
        self._pins = pins
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
                for name, entry in folder.entries:
                    item = self._item(folder, name, entry)
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

    def _item(self, folder: _Folder, name: bytes, entry: os.DirEntry[str]) -> Item | None:
        """Say what an entry is; None when it is gone. Enters it when it is a folder."""
        path = folder.path + name
        if self._has_rules or folder.is_cache or folder.database_sidecars or name[0] == _DOT:
            reason = self._skip_by_name(folder, path, name, entry)
            if reason is not None:
                return Skipped(path, reason)
        return self._look(folder, path, name, entry)

    def _look(self, folder: _Folder, path: bytes, name: bytes, entry: os.DirEntry[str]) -> Item | None:
        try:
            found = entry.stat(follow_symlinks=False)
            kind = found.st_mode & _TYPE_MASK
            if kind == stat.S_IFREG:
                return self._file(folder, path, name, found)
            if kind == stat.S_IFDIR:
                return self._enter(folder, path, name, found)
            return _other(folder, path, name, found)
        except FileNotFoundError:
            return None
        except (OSError, SourceError) as error:
            return Problem(path, _reason(error))

    def _skip_by_name(
        self, folder: _Folder, path: bytes, name: bytes, entry: os.DirEntry[str]
    ) -> SkipReason | None:
        is_folder = entry.is_dir(follow_symlinks=False)
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
        is_database = False
        if (size % _SECTOR == 0 and size) or folder.sidecars:
            is_database = self._is_database(folder, path, name, found)
        return FoundEntry(
            path,
            EntryKind.FILE,
            size,
            found.st_mode & 0o7777,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
            b"",
            f"{found.st_dev}:{found.st_ino}" if found.st_nlink > 1 else "",
            is_database,
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
        sidecars = {name + suffix for suffix in SIDECAR_SUFFIXES}
        is_live = bool(sidecars & folder.sidecars)
        if not is_live and found.st_size % _SECTOR != 0:
            return False
        if is_live or (found.st_dev, found.st_ino) in _own_files():
            result = looks_like_database(self._root / os.fsdecode(path))
        else:
            result = _begins_with(folder.handle, name, SQLITE_MAGIC)
        if result:
            folder.database_sidecars |= sidecars
        return result


def _list(handle: int, path: bytes, *, may_be_cache: bool = True) -> _Folder:
    """List an open folder; takes the handle over, closing it on errors."""
    try:
        with os.scandir(handle) as found:
            entries = [(os.fsencode(entry.name), entry) for entry in found]
        entries.sort(key=_name_of)
        names = [name for name, _ in entries]
        is_cache = may_be_cache and _TAG_NAME in names and _is_cache(handle)
        return _Folder(path, handle, iter(entries), is_cache, _sidecars(names))
    except BaseException:
        os.close(handle)
        raise


def _close(folder: _Folder) -> None:
    if folder.handle >= 0:
        os.close(folder.handle)


def _other(folder: _Folder, path: bytes, name: bytes, found: os.stat_result) -> FoundEntry | Skipped:
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


def _name_of(item: tuple[bytes, os.DirEntry[str]]) -> bytes:
    return item[0]


def _sidecars(names: list[bytes]) -> frozenset[bytes]:
    """Pick the names that end like a journal; quick, since there are mostly none."""
    joined = b"/".join(names) + b"/"
    if not any(suffix + b"/" in joined for suffix in SIDECAR_SUFFIXES):
        return frozenset()
    return frozenset(name for name in names if name.endswith(SIDECAR_SUFFIXES))


def _is_cache(handle: int) -> bool:
    return _begins_with(handle, _TAG_NAME, _TAG_SIGNATURE)


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
