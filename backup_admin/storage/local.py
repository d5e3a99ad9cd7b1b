"""A storage in a local folder: files that appear whole and stay."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backup_admin.core.direct_io import read_direct
from backup_admin.core.durable import (
    TEMPORARY_PREFIX,
    SyncFailed,
    make_folders,
    replace_file,
    sync_folder,
    write_new,
)
from backup_admin.core.errors import (
    BadObjectName,
    NotDurable,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from backup_admin.storage.base import Buffer, Leftover, ObjectInfo, PutResult, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class LocalStorage:
    """Keeps each object as one file below a folder.

    Temporary files (`.tmp-…`) are never objects: a crash leaves at most some of
    those, which no reader sees.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.label = str(folder)

    def make(self) -> None:
        """Create the folder (mode 0700) when it is not there."""
        with self._errors("", "created"):
            make_folders(self.folder)

    def is_made(self) -> bool:
        """Say whether there is anything of this name."""
        return self.folder.exists()

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store an object durably: synced, linked in place, folder synced."""
        path = self._path(name)
        with self._errors(name, "written"):
            self._need_folder()
            make_folders(path.parent)
            if not if_absent:
                replace_file(path, bytes(data))
                return PutResult.STORED
            return PutResult.STORED if write_new(path, (data,)) else PutResult.EXISTS

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object or a part of it."""
        with self._errors(name, "read"), self._path(name).open("rb", buffering=0) as file:
            rest = max(0, os.fstat(file.fileno()).st_size - offset)
            buffer = bytearray(rest if length is None else min(length, rest))
            count = _fill(file.fileno(), offset, memoryview(buffer))
            return bytes(buffer[:count])

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill a buffer from an object."""
        view = memoryview(buffer)
        with self._errors(name, "read"):
            handle = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                done = read_direct(handle, offset, view)
                return done + _fill(handle, offset + done, view[done:])
            finally:
                os.close(handle)

    def stat(self, name: str) -> ObjectInfo | None:
        """Return name and size, or None; an absent folder is an error."""
        path = self._path(name)
        with self._errors(name, "looked up"):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                self._need_folder()
                return None
            return ObjectInfo(name, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in order of name."""
        with self._errors(prefix, "listed"):
            self._need_folder()
            yield from self._walk("", prefix)

    def delete(self, name: str) -> None:
        """Remove an object durably."""
        path = self._path(name)
        with self._errors(name, "deleted"):
            try:
                if path.is_dir():
                    return
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                self._need_folder()
                return
            sync_folder(path.parent)

    def free_bytes(self) -> int | None:
        """Return the bytes an ordinary user can still write."""
        with self._errors("", "measured"):
            return _free_bytes(self.folder)

    def tell_time(self, name: str) -> datetime:
        """Return the time of the file system, which may be another machine's: that of a file touched now."""
        with self._errors(name, "touched"):
            path = self._path(name)
            os.utime(path)
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)

    def leftovers(self) -> Iterator[Leftover]:
        """List the temporary files of writes that were interrupted, or are under way."""
        with self._errors("", "listed"):
            self._need_folder()
            for path in sorted(self.folder.rglob(f"{TEMPORARY_PREFIX}*")):
                with suppress(FileNotFoundError):  # it got its name just now
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode) and _TEMPORARY.fullmatch(path.name):
                        since = datetime.fromtimestamp(found.st_mtime, UTC)
                        yield Leftover(path.relative_to(self.folder).as_posix(), found.st_size, since)

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove a temporary file; raise `BadObjectName` for any other."""
        if not _TEMPORARY.fullmatch(leftover.name.rpartition("/")[2]) or ".." in leftover.name:
            raise BadObjectName(f"{leftover.name!r} is no temporary file.")
        with self._errors(leftover.name, "removed"):
            (self.folder / leftover.name).unlink(missing_ok=True)

    def _walk(self, below: str, prefix: str) -> Iterator[ObjectInfo]:
        folders_and_files: list[tuple[str, bool, int]] = []
        with os.scandir(self.folder / below) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.name.startswith(TEMPORARY_PREFIX):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if (name + "/").startswith(prefix) or prefix.startswith(name + "/"):
                        folders_and_files.append((name + "/", True, 0))
                elif name.startswith(prefix):
                    with suppress(FileNotFoundError):  # deleted by another process just now
                        size = entry.stat(follow_symlinks=False).st_size
                        folders_and_files.append((name, False, size))
        for name, is_folder, size in sorted(folders_and_files):
            if is_folder:
                yield from self._walk(name, prefix)
            else:
                yield ObjectInfo(name, size)

    def _path(self, name: str) -> Path:
        return self.folder / check_name(name)

    def _need_folder(self) -> None:
        if not self.folder.is_dir():
            raise StorageUnavailable(
                f"The folder {self.folder} is not there; is the disk mounted? Nothing was written."
            )

    @contextmanager
    def _errors(self, name: str, act: str) -> Iterator[None]:
        try:
            yield
        except _ABSENT as error:
            self._need_folder()
            if act != "read":
                raise self._translate(error, name, act) from error
            raise ObjectMissing(f"{name} is not in {self.label}.") from error
        except OSError as error:
            raise self._translate(error, name, act) from error

    def _translate(self, error: OSError, name: str, act: str) -> Exception:
        reason = f"{name or 'The folder'} in {self.label} could not be {act}: {error.strerror}."
        if error.errno in _FULL:
            # How much is free now says nothing: what was half written is gone by now.
            return StorageFull(f"{reason} Earlier snapshots are intact; make room and try again.")
        if isinstance(error, SyncFailed):
            return NotDurable(f"{reason} It may not survive a power cut. Check the disk, then try again.")
        if error.errno in _DENIED:
            return StorageDenied(f"{reason} Check owner and mode of the folder.")
        return StorageError(reason)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _fill(handle: int, offset: int, buffer: memoryview) -> int:
    done = 0
    while done < len(buffer):
        count = os.preadv(handle, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done
