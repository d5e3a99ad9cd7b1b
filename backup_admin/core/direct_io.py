"""Writing and reading large files past the page cache, where the system can.

Backups are written once and seldom read. Through the page cache each byte is
copied once more and pushes out what the application needs; and what is read back
would come from memory, which says nothing about the disk.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

BLOCK_BYTES = 4096
DIRECT_BYTES = 1 << 20
"""What is shorter goes through the cache."""
_FLAG = getattr(os, "O_DIRECT", 0)


def aligned_buffer(size: int) -> mmap.mmap:
    """Return zeroed memory that begins at a page: only such memory can go past the cache."""
    return mmap.mmap(-1, size)


def aligned(start: int, end: int) -> tuple[int, int]:
    """Return the span of whole blocks around a span of a file: only such spans are read past the cache."""
    return start - start % BLOCK_BYTES, end + -end % BLOCK_BYTES


def write_direct(handle: int, data: bytes | bytearray | memoryview) -> int:
    """Write what can be written past the cache; return how many bytes that were.

    The rest is for the caller, who must sync the file in any case.
    """
    view = memoryview(data)
    end = len(view) - len(view) % BLOCK_BYTES
    if end < DIRECT_BYTES or not _switch(handle, on=True):
        return 0
    done = 0
    try:
        while done < end:
            done += os.write(handle, view[done:end])
    except OSError as error:
        if error.errno != errno.EINVAL:  # memory, place or file system that cannot
            raise
    finally:
        _switch(handle, on=False)
    return done


def read_direct(handle: int, offset: int, buffer: memoryview) -> int:
    """Read what can be read past the cache; return how many bytes that were."""
    end = len(buffer) - len(buffer) % BLOCK_BYTES
    if end < DIRECT_BYTES or offset % BLOCK_BYTES or not _switch(handle, on=True):
        return 0
    done = 0
    try:
        while done < end:
            count = os.preadv(handle, [buffer[done:end]], offset + done)
            done += count
            if count % BLOCK_BYTES or count == 0:
                break
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        _switch(handle, on=False)
    return done


def _switch(handle: int, *, on: bool) -> bool:
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | _FLAG if on else flags & ~_FLAG)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return bool(_FLAG)
