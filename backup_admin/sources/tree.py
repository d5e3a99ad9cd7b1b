"""Write a tree below one folder, from entries that may mean harm.

Everything is reached from the opened root and no symlink is followed. A path is
made once: doubled paths, paths under a file and names that are taken are
refused. Symlinks are made last, so that nothing can be written through one.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from backup_admin.core.durable import make_folders, sync_folder, write_all
from backup_admin.core.errors import RestoreRefused, SourceError
from backup_admin.core.paths import check_path, show_path
from backup_admin.sources.beneath import FOLDER_FLAGS, open_beneath, open_parent, sync_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEPT_BITS = 0o777  # setuid, setgid and sticky are not given back
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_ROOT_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class NewFile:
    """A file being written; `fd` is open for writing, also at any offset."""

    fd: int
    _path: bytes
    _size: int
    _written: int = field(default=0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; raises `RestoreRefused` beyond the size that was declared."""
        self._written += len(data)
        if self._written > self._size:
            raise RestoreRefused(f"{show_path(self._path)} is longer than its manifest says.")
        write_all(self.fd, data)


class TreeWriter:
    """Writes one tree. `file` may be called from several threads.

    Files have mode 0600 and folders 0700 until they are finished. The calls may
    come in any order that has a file before its hard links; folders that are on
    the way are made. Raises `RestoreRefused` for what must not be written and
    `SourceError` for what cannot be.
    """

    def __init__(self, root: Path, *, create: bool = True) -> None:
        self._root_path = root
        self._lock = threading.Lock()
        self._folders: dict[bytes, tuple[int, int] | None] = {}
        self._symlinks: dict[bytes, tuple[bytes, int]] = {}
        with _errors(b"", "opened"):
            if create and not root.is_symlink():
                make_folders(root)
            self._root = os.open(root, _ROOT_FLAGS | os.O_NOFOLLOW)
            # Files that were there before are no place for hard links of ours.
            self._made: set[int] | None = None if not os.listdir(self._root) else set()  # noqa: PTH208

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the root; what was not finished stays as it is."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def folder(self, path: bytes, mode: int, mtime_ns: int) -> None:
        """Make a folder; it gets its mode and time in `finish`."""
        _check(path)
        with self._lock:
            if self._folders.get(path) is not None:
                raise RestoreRefused(f"{show_path(path)} is in the manifest twice.")
            self._make_folder(path)
            self._folders[path] = (mode & _KEPT_BITS, mtime_ns)

    def symlink(self, path: bytes, target: bytes, mtime_ns: int) -> None:
        """Remember a symlink; `finish` makes it. Its target is data, never followed."""
        _check(path)
        if not target or b"\0" in target:
            raise RestoreRefused(f"The symlink {show_path(path)} has no target.")
        with self._lock:
            if path in self._symlinks:
                raise RestoreRefused(f"{show_path(path)} is in the manifest twice.")
            self._make_parents(path)
            self._symlinks[path] = (target, mtime_ns)

    def hardlink(self, path: bytes, existing: bytes) -> None:
        """Give a file of this tree another name."""
        _check(path)
        _check(existing)
        with self._lock:
            self._make_parents(path)
        with _errors(path, "linked"), open_parent(self._root, existing) as (source, old):
            found = os.stat(old, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) or not self._is_ours(found.st_ino):
                raise RestoreRefused(f"{show_path(existing)} is not a file that was restored here.")
            with open_parent(self._root, path) as (target, new):
                os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                made = os.stat(new, dir_fd=target, follow_symlinks=False)
                if (made.st_dev, made.st_ino) != (found.st_dev, found.st_ino):
                    os.unlink(new, dir_fd=target)
                    raise RestoreRefused(f"{show_path(existing)} was exchanged while it was linked.")

    @contextmanager
    def file(self, path: bytes, mode: int, mtime_ns: int, size: int) -> Iterator[NewFile]:
        """Make a file of exactly this size; it is removed when the block fails.

        Mode and time are set at the end of the block. It is durable after `finish`.
        """
        _check(path)
        with _errors(path, "made"):
            handle = self._create(path)
        try:
            yield NewFile(handle, path, size)
            with _errors(path, "finished"):
                self._finish_file(handle, path, size)
                os.fchmod(handle, mode & _KEPT_BITS)
                os.utime(handle, ns=(mtime_ns, mtime_ns))
        except BaseException:
            with suppress(OSError), open_parent(self._root, path) as (parent, name):
                os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(handle)

    def finish(self, root_mode: int, root_mtime_ns: int) -> None:
        """Make the symlinks, set modes and times of folders, make it all durable."""
        for path, (target, mtime_ns) in self._symlinks.items():
            with _errors(path, "made"), open_parent(self._root, path) as (parent, name):
                os.symlink(target, name, dir_fd=parent)
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        # The deepest first: whatever is made in a folder changes its time.
        for path, attributes in sorted(self._folders.items(), key=_depth, reverse=True):
            if attributes is not None:
                with _errors(path, "finished"):
                    self._set_folder(path, *attributes)
        with _errors(b"", "finished"):
            os.fchmod(self._root, root_mode & _KEPT_BITS)
            os.utime(self._root, ns=(root_mtime_ns, root_mtime_ns))
            sync_file_system(self._root)
            sync_folder(self._root_path.parent)

    def _create(self, path: bytes) -> int:
        try:
            return self._open_new(path)
        except FileNotFoundError:
            with self._lock:
                self._make_parents(path)
            return self._open_new(path)

    def _open_new(self, path: bytes) -> int:
        handle = open_beneath(self._root, path, _WRITE_FLAGS, 0o600)
        if self._made is not None:
            with self._lock:
                self._made.add(os.fstat(handle).st_ino)
        return handle

    def _finish_file(self, handle: int, path: bytes, size: int) -> None:
        found = os.fstat(handle).st_size
        if found != size:
            raise RestoreRefused(f"{show_path(path)} has {found} bytes where its manifest says {size}.")

    def _make_parents(self, path: bytes) -> None:
        parent = path.rpartition(b"/")[0]
        if parent and parent not in self._folders:
            self._make_folder(parent)
            self._folders[parent] = None

    def _make_folder(self, path: bytes) -> None:
        self._make_parents(path)
        with _errors(path, "made"), open_parent(self._root, path) as (parent, name):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                # Fine when it is a folder (made on the way, or there before).
                os.close(os.open(name, FOLDER_FLAGS, dir_fd=parent))

    def _set_folder(self, path: bytes, mode: int, mtime_ns: int) -> None:
        handle = open_beneath(self._root, path, FOLDER_FLAGS)
        try:
            os.fchmod(handle, mode)
            os.utime(handle, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(handle)

    def _is_ours(self, inode: int) -> bool:
        return self._made is None or inode in self._made


def _check(path: bytes) -> None:
    try:
        check_path(path)
    except ValueError as error:
        raise RestoreRefused(f"The manifest names {error}: {show_path(path[:200])}.") from error


def _depth(item: tuple[bytes, object]) -> int:
    return item[0].count(b"/")


@contextmanager
def _errors(path: bytes, act: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise RestoreRefused(
            f"{show_path(path)} is there already; it is doubled, or differs from another "
            "name only in a way this disk does not tell apart."
        ) from error
    except NotADirectoryError as error:
        raise RestoreRefused(f"{show_path(path)} lies below a file or a symlink.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RestoreRefused(f"{show_path(path)} lies below a symlink.") from error
        shown = show_path(path) or "The folder"
        raise SourceError(f"{shown} could not be {act}: {error.strerror}.") from error
