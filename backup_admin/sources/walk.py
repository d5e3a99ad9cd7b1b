"""List a folder tree in order, one `scandir` per folder and one `stat` per entry."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError
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
_SNIFF_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class _Folder:
    """A folder on the way from the root to where the walk is."""

    handle: int
    prefix: bytes
    entries: Iterator[tuple[bytes, os.DirEntry[str]]]
    is_cache: bool
    sidecars: frozenset[bytes]
    databases_sidecars: set[bytes] = field(default_factory=set)


class Walk:
    """One pass over a tree."""

    def __init__(self, root: Path, excludes: Excludes, pins: Pins) -> None:
        self._root = root
        self._excludes = excludes
        self._pins = pins
        self._stack: list[_Folder] = []

    def entries(self, root: int) -> Iterator[Item]:
        """Give everything below an open folder in order; see `FileSource.walk`.

        The folders from the root to here stay open, and everything is reached
        through them: a folder exchanged for a symlink leads nowhere.
        """
        stack = self._stack
        try:
            stack.append(self._list(os.dup(root), b"", may_be_cache=False))
            while stack:
                folder = stack[-1]
                yield from self._rest_of(folder)
                if stack[-1] is folder:
                    stack.pop()
                    os.close(folder.handle)
        finally:
            for folder in stack:
                os.close(folder.handle)
            stack.clear()

    def _rest_of(self, folder: _Folder) -> Iterator[Item]:
        """Give entries until the folder ends or another one was entered."""
        prefix = folder.prefix
        depth = len(self._stack)
        for name, entry in folder.entries:
            path = prefix + name
            reason = self._skip_by_name(folder, path, name, entry)
            if reason is not None:
                yield Skipped(path, reason)
                continue
            try:
                found = entry.stat(follow_symlinks=False)
                kind = found.st_mode & _TYPE_MASK
                if kind == stat.S_IFREG:
                    yield self._file(folder, path, name, found)
                elif kind == stat.S_IFDIR:
                    yield from self._enter(folder, path, name, found)
                    if len(self._stack) > depth:
                        return
                else:
                    yield _other(folder, path, name, found)
            except FileNotFoundError:
                continue
            except (OSError, SourceError) as error:
                yield Problem(path, _reason(error))

    def _skip_by_name(
        self, folder: _Folder, path: bytes, name: bytes, entry: os.DirEntry[str]
    ) -> SkipReason | None:
        is_folder = entry.is_dir(follow_symlinks=False)
        if self._pins.has_name(path):
            reason = self._pins.reason_by_name(path, is_folder=is_folder)
            if reason is not None:
                return reason
        if folder.is_cache and name != _TAG_NAME:
            return SkipReason.CACHE_FOLDER
        if self._excludes.match(path, name, is_folder=is_folder):
            return SkipReason.EXCLUDED
        if name in folder.databases_sidecars:
            return SkipReason.SIDECAR
        return None

    def _file(self, folder: _Folder, path: bytes, name: bytes, found: os.stat_result) -> Item:
        if len(path) > MAX_PATH_BYTES:
            return Problem(path, "The path is too long to be kept.")
        reason = self._pins.reason_by_inode(found)
        if reason is not None:
            return Skipped(path, reason)
        size = found.st_size
        is_database = False
        if (size >= _SECTOR and size % _SECTOR == 0) or folder.sidecars:
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

    def _enter(self, parent: _Folder, path: bytes, name: bytes, found: os.stat_result) -> Iterator[Item]:
        reason = self._pins.reason_by_inode(found)
        if reason is not None:
            yield Skipped(path, reason)
            return
        entry = FoundEntry(
            path,
            EntryKind.FOLDER,
            0,
            found.st_mode & 0o7777,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
        )
        if len(self._stack) >= MAX_DEPTH or len(path) > MAX_PATH_BYTES:
            yield Problem(path, "The folder lies too deep to be kept.")
            return
        try:
            handle = os.open(name, FOLDER_FLAGS, dir_fd=parent.handle)
            folder = self._list(handle, path + b"/")
        except OSError as error:
            yield entry
            yield Problem(path, f"The folder cannot be listed: {_reason(error)}")
            return
        yield entry
        self._stack.append(folder)

    def _list(self, handle: int, prefix: bytes, *, may_be_cache: bool = True) -> _Folder:
        """List an open folder; takes the handle over, closing it on errors."""
        try:
            with os.scandir(handle) as found:
                entries = [(os.fsencode(entry.name), entry) for entry in found]
            entries.sort(key=_name_of)
            names = [name for name, _ in entries]
            is_cache = may_be_cache and _TAG_NAME in names and _is_cache(handle)
            return _Folder(handle, prefix, iter(entries), is_cache, _sidecars(names))
        except BaseException:
            os.close(handle)
            raise

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
            folder.databases_sidecars |= sidecars
        return result


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
