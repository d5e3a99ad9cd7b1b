"""Files that survive a power cut: written beside, synced, renamed, folder synced.

`os.replace` alone is not enough: on ext4 and xfs a file that was renamed but
whose folder was not synced may be gone after a power cut.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.core.direct_io import write_direct
from backup_admin.core.errors import LocalDiskFailed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
TEMPORARY_PREFIX = ".tmp-"


class SyncFailed(OSError):
    """The entries of a folder are as wanted, and may not be after a power cut."""


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the entries of a folder durable; raise `SyncFailed`."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def make_folders(path: Path, mode: int = 0o700) -> None:
    """Create a folder and its parents durably; what exists stays as it is."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            folder.mkdir(mode)
        except FileExistsError:
            continue
        try:
            sync_folder(folder.parent)
        except OSError:
            with suppress(OSError):
                folder.rmdir()  # or the next call would take it for durable
            raise


def write_new(path: Path, pieces: Iterable[bytes | bytearray | memoryview], mode: int = 0o600) -> bool:
    """Publish a file whole, or not at all; False when the name is taken.

    An existing file is never touched. Safe beside other writers of the name.
    """
    temporary = _write_beside(path, pieces, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return True


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole in the place of an older one."""
    temporary = _write_beside(path, (data,), mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def exchange(first: Path, second: Path) -> None:
    """Swap two directory entries in one step (renameat2 with RENAME_EXCHANGE).

    Raises `OSError`: EINVAL or ENOSYS where the file system cannot do it.
    """
    _renameat2(first, second, _RENAME_EXCHANGE)


def rename_new(source: Path, target: Path) -> None:
    """Rename without ever replacing; raises `FileExistsError` when taken."""
    try:
        _renameat2(source, target, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.rename(target)


def _write_beside(path: Path, pieces: Iterable[bytes | bytearray | memoryview], mode: int) -> Path:
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        for piece in pieces:
            write_all(handle, memoryview(piece)[write_direct(handle, piece) :])
        os.fsync(handle)
    except BaseException as error:
        os.close(handle)
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the system names only what it opens
        raise
    os.close(handle)
    return temporary


def explain(error: OSError) -> LocalDiskFailed | None:
    """Say what it means that a disk of this machine took nothing more; None for other errors."""
    if error.errno not in _DISK:
        return None
    where = f" ({error.filename})" if error.filename else ""
    advice = "Make it writable" if error.errno == errno.EROFS else "Make room there"
    return LocalDiskFailed(
        f"This machine could not write{where}: {error.strerror}. Snapshots are intact. {advice}, or use "
        "another place; --state-dir names another state folder."
    )


def write_all(handle: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte to a file descriptor."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _renameat2(source: Path, target: Path, flags: int) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(source), None, str(target))
    result = call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))
