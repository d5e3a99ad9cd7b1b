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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backup_admin.core.durable import make_folders, sync_folder, write_all
from backup_admin.core.errors import BackupAdminError, RestoreRefused, SourceError
from backup_admin.core.large_file import LARGE_FILE_BYTES, LargeFileWriter
from backup_admin.core.paths import check_path, show_path
from backup_admin.sources.beneath import FOLDER_FLAGS, open_beneath, open_parent, sync_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEPT_BITS = 0o777  # setuid, setgid and sticky are not given back
_FILE_MODE = 0o600
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NewFile:
    """A file being written, until its block ends; `fd` is open for writing, also at any offset."""

    __slots__ = ("_large", "_mode", "_mtime_ns", "_parent", "_path", "_size", "_sync", "_written", "fd")

    def __init__(
        self,
        fd: int,
        parent: _Folder,
        path: bytes,
        size: int,
        attributes: tuple[int, int, bool],
        large: LargeFileWriter | None,
    ) -> None:
        mode, mtime_ns, sync = attributes
        self._large = large
        self.fd = fd
        self._sync = sync
        self._parent = parent
        self._path = path
        self._size = size
        self._mode = mode & _KEPT_BITS
        self._mtime_ns = mtime_ns
        self._written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; raises `RestoreRefused` beyond the size that was declared."""
        self._written += len(data)
        if self._written > self._size:
            raise RestoreRefused(f"{show_path(self._path)} is longer than its manifest says.")
        if self._large is None:
            write_all(self.fd, data)
        else:
            self._large.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_details: object) -> None:
        done = False
        try:
            if raised is None:
                self._finish()
                done = True
        except OSError as error:
            raise _refusal(error, self._path, "finished") from error
        finally:
            if self._large is not None:
                self._large.abandon()
            os.close(self.fd)
            if not done:
                self._remove()

    def _finish(self) -> None:
        if self._large is not None:
            self._large.finish()
        found = self._size if self._written == self._size else os.fstat(self.fd).st_size
        if found != self._size:
            raise RestoreRefused(
                f"{show_path(self._path)} has {found} bytes where its manifest says {self._size}."
            )
        if self._mode != _FILE_MODE:
            os.fchmod(self.fd, self._mode)
        os.utime(self.fd, ns=(self._mtime_ns, self._mtime_ns))
        if self._sync:
            os.fsync(self.fd)

    def _remove(self) -> None:
        with suppress(OSError):
            os.unlink(self._path.rpartition(b"/")[2], dir_fd=self._parent.fd)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of the tree that one thread keeps open while it writes files there."""

    path: bytes
    fd: int


class TreeWriter:
    """Writes one tree. `file` may be called from several threads, each with one file at a time.

    Files have mode 0600 and folders 0700 until they are finished. The calls may
    come in any order that has a file before its hard links; folders that are on
    the way are made. Raises `RestoreRefused` for what must not be written and
    `SourceError` for what cannot be.
    """

    def __init__(self, root: Path, *, create: bool = True, few_files: bool = False) -> None:
        """Open or make the root; `few_files` are synced one by one, many with their file system."""
        self._root_path = root
        self._few_files = few_files
        self._lock = threading.Lock()
        self._local = threading.local()
        self._large_files: list[LargeFileWriter] = []
        self._folders: dict[bytes, tuple[int, int] | None] = {}
        self._symlinks: dict[bytes, tuple[bytes, int]] = {}
        self._open: dict[int, _Folder] = {}
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
        self._close_folders()
        for writer in self._large_files:
            writer.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    @property
    def shared_root(self) -> Path | None:
        """The root, when others may write files in it as well: they are synced and linked like our own."""
        return None if self._few_files or self._made is not None else self._root_path

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

    def file(self, path: bytes, mode: int, mtime_ns: int, size: int) -> NewFile:
        """Make a file of exactly this size, to be filled in a `with` block; removed when the block fails.

        Mode and time are set at the end of the block. It is durable after `finish`.
        """
        _check(path)
        folder, _, name = path.rpartition(b"/")
        try:
            parent = self._parent(folder)
            handle = os.open(name, _WRITE_FLAGS, _FILE_MODE, dir_fd=parent.fd)
        except OSError as error:
            raise _refusal(error, path, "made") from error
        if self._made is not None:
            self._made.add(os.fstat(handle).st_ino)
        large = self._large_file(handle) if size >= LARGE_FILE_BYTES else None
        return NewFile(handle, parent, path, size, (mode, mtime_ns, self._few_files), large)

    def send_to_disk(self) -> None:
        """Write out what was made so far, so that `finish` has less to wait for; raises `SourceError`."""
        with _errors(b"", "finished"):
            sync_file_system(self._root)

    def finish(self, root_mode: int, root_mtime_ns: int) -> None:
        """Make the symlinks, set modes and times of folders, make it all durable."""
        self._close_folders()
        for path, (target, mtime_ns) in self._symlinks.items():
            with _errors(path, "made"), open_parent(self._root, path) as (parent, name):
                os.symlink(target, name, dir_fd=parent)
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        # The deepest first: whatever is made in a folder changes its time.
        for path, attributes in sorted(self._folders.items(), key=_depth, reverse=True):
            if attributes is not None or self._few_files:
                with _errors(path, "finished"):
                    self._finish_folder(path, attributes)
        with _errors(b"", "finished"):
            os.fchmod(self._root, root_mode & _KEPT_BITS)
            os.utime(self._root, ns=(root_mtime_ns, root_mtime_ns))
            if self._few_files:
                os.fsync(self._root)
            else:
                sync_file_system(self._root)
            sync_folder(self._root_path.parent)

    def _large_file(self, handle: int) -> LargeFileWriter:
        """Return the writer of this thread, set on a file."""
        writer: LargeFileWriter | None = getattr(self._local, "large", None)
        if writer is None:
            writer = self._local.large = LargeFileWriter()
            self._large_files.append(writer)
        writer.begin(handle)
        return writer

    def _parent(self, path: bytes) -> _Folder:
        """Return a folder, open; each thread keeps the one it used last."""
        thread = threading.get_ident()
        kept = self._open.get(thread)
        if kept is not None and kept.path == path:
            return kept
        opened = _Folder(path, self._open_folder(path))
        self._open[thread] = opened
        if kept is not None:
            os.close(kept.fd)
        return opened

    def _open_folder(self, path: bytes) -> int:
        if not path:
            return os.dup(self._root)
        try:
            return open_beneath(self._root, path, FOLDER_FLAGS)
        except FileNotFoundError:
            with self._lock:
                self._make_parents(path + b"/")
            return open_beneath(self._root, path, FOLDER_FLAGS)

    def _close_folders(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1].fd)

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

    def _finish_folder(self, path: bytes, attributes: tuple[int, int] | None) -> None:
        handle = open_beneath(self._root, path, FOLDER_FLAGS)
        try:
            if attributes is not None:
                mode, mtime_ns = attributes
                os.fchmod(handle, mode)
                os.utime(handle, ns=(mtime_ns, mtime_ns))
            if self._few_files:
                os.fsync(handle)
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
    except OSError as error:
        raise _refusal(error, path, act) from error


def _refusal(error: OSError, path: bytes, act: str) -> BackupAdminError:
    """Say what an error of the system means here."""
    shown = show_path(path) or "The folder"
    if isinstance(error, FileExistsError):
        return RestoreRefused(
            f"{shown} is there already; it is doubled, or differs from another "
            "name only in a way this disk does not tell apart."
        )
    if isinstance(error, NotADirectoryError):
        return RestoreRefused(f"{shown} lies below a file or a symlink.")
    if error.errno == errno.ELOOP:
        return RestoreRefused(f"{shown} lies below a symlink.")
    return SourceError(f"{shown} could not be {act}: {error.strerror}.")
