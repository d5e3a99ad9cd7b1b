"""Writing a large file from pieces of any length, past the page cache where the system can."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from backup_admin.core.direct_io import aligned_buffer, write_direct
from backup_admin.core.durable import write_all

LARGE_FILE_BYTES = 1 << 20
_GATHERED = 4 << 20


class LargeFileWriter:
    """Gathers what is appended to one file after the other; a thread of its own writes it.

    What a restore writes is not wanted in memory: it would be copied once more and push out
    what the application needs. Not for several threads. The caller syncs the file, and calls
    `finish` or `abandon` before it closes it.
    """

    def __init__(self) -> None:
        self._filling = memoryview(aligned_buffer(_GATHERED))
        self._writing = memoryview(aligned_buffer(_GATHERED))
        self._filled = 0
        self._handle = -1
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="large-file")
        self._under_way: Future[None] | None = None

    def begin(self, handle: int) -> None:
        """Append to this file from now on."""
        self._handle = handle
        self._filled = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; raises `OSError`, perhaps for bytes that were appended before."""
        rest = memoryview(data)
        while rest:
            taken = min(len(rest), _GATHERED - self._filled)
            self._filling[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            if self._filled == _GATHERED:
                self._wait()
                self._under_way = self._pool.submit(_write, self._handle, self._filling)
                self._filling, self._writing = self._writing, self._filling
                self._filled = 0

    def finish(self) -> None:
        """Write everything that was appended; raises `OSError`."""
        self._wait()
        _write(self._handle, self._filling[: self._filled])
        self._filled = 0

    def abandon(self) -> None:
        """Return when nothing is written to the file any more."""
        with suppress(OSError):
            self._wait()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()


def _write(handle: int, gathered: memoryview) -> None:
    write_all(handle, gathered[write_direct(handle, gathered) :])
