"""Reach entries below an open folder without ever following a symlink.

The kernel does it in one step where it can (`openat2` with RESOLVE_BENEATH and
RESOLVE_NO_SYMLINKS); elsewhere every part of the path is opened by itself with
O_NOFOLLOW. Paths are relative, as bytes, and checked by `check_path`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYS_OPENAT2 = 437  # the same number on every Linux architecture
_RESOLVE = 0x08 | 0x04 | 0x02  # BENEATH, NO_SYMLINKS, NO_MAGICLINKS
_RENAME_NOREPLACE = 1
_UNSUPPORTED = (errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL)
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open an entry below the folder `root`; raises `OSError` as `os.open` does.

    A symlink anywhere on the way is an error (ELOOP or ENOTDIR). The path must
    have passed `check_path`.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if _has_openat2():
        return _openat2(root, path, flags, mode)
    with open_parent(root, path) as (parent, name):
        return os.open(name, flags, mode, dir_fd=parent)


@contextmanager
def open_parent(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the folder that holds an entry, opened, and the entry's own name."""
    parent, _, name = path.rpartition(b"/")
    if not parent:
        yield root, name
        return
    handle = _open_folder(root, parent)
    try:
        yield handle, name
    finally:
        os.close(handle)


def stat_beneath(root: int, path: bytes) -> os.stat_result | None:
    """Return what an entry is, never following it; None when it is not there.

    What lies behind a symlink is not there.
    """
    try:
        with open_parent(root, path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def rename_beneath(source: int, source_path: bytes, target: int, path: bytes) -> None:
    """Move an entry between two open trees durably, without replacing anything.

    The folders it leaves and enters keep their times. Raises `FileExistsError`
    when the target's name is taken.
    """
    with (
        open_parent(source, source_path) as (old_parent, old_name),
        open_parent(target, path) as (new_parent, new_name),
    ):
        folders = [(folder, os.fstat(folder)) for folder in (new_parent, old_parent)]
        _rename_new(old_parent, old_name, new_parent, new_name)
        for folder, before in folders:
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
            os.fsync(folder)


def sync_file_system(handle: int) -> None:
    """Make everything on the file system of an open file durable.

    One call for a whole tree is far cheaper than a sync of each file.
    """
    call = getattr(_libc, "syncfs", None)
    if call is None:
        os.sync()
        return
    if call(handle) != 0:
        raise _last_error(b"syncfs")


def _open_folder(root: int, path: bytes) -> int:
    if _has_openat2():
        return _openat2(root, path, FOLDER_FLAGS, 0)
    current = root
    try:
        for part in path.split(b"/"):
            following = os.open(part, FOLDER_FLAGS, dir_fd=current)
            if current != root:
                os.close(current)
            current = following
    except OSError:
        if current != root:
            os.close(current)
        raise
    return current


class _Support:
    """Whether the kernel lets us use openat2; asked once."""

    openat2: bool | None = None


def _has_openat2() -> bool:
    if _Support.openat2 is None:
        try:
            root = os.open("/", FOLDER_FLAGS)
            try:
                os.close(_openat2(root, b".", FOLDER_FLAGS, 0))
            finally:
                os.close(root)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            _Support.openat2 = False
        else:
            _Support.openat2 = True
    return _Support.openat2


def _openat2(root: int, path: bytes, flags: int, mode: int) -> int:
    how = _OpenHow(flags, mode, _RESOLVE)
    for _ in range(100):
        handle: int = _libc.syscall(_SYS_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if handle >= 0:
            return handle
        error = _last_error(path)
        # EAGAIN: something was renamed meanwhile and the kernel was not sure.
        if error.errno not in (errno.EAGAIN, errno.EINTR):
            raise error
    raise error


def _rename_new(old_parent: int, old: bytes, new_parent: int, new: bytes) -> None:
    call = getattr(_libc, "renameat2", None)
    if call is not None:
        if call(old_parent, old, new_parent, new, _RENAME_NOREPLACE) == 0:
            return
        error = _last_error(new)
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise error
    look = partial(os.stat, new, dir_fd=new_parent, follow_symlinks=False)
    try:
        look()
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=old_parent, dst_dir_fd=new_parent)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)


def _last_error(path: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
