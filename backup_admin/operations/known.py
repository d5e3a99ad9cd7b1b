"""What the snapshot before knows of a folder tree, read beside a walk over the tree.

Rows that still hold are kept as they were written: nothing is made of them, and a
shard of which all rows hold is not written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.core.paths import sort_key
from backup_admin.repository.entries import Run, ShardRow, read_entry

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from backup_admin.repository.types import FileEntry
    from backup_admin.sources.base import FoundEntry

SETTLE_NS = 2_000_000_000
_FILE = b'["%b","f",%d,%d,%d,%d,%d,"'
_LIST_END = b"]]"


@dataclass(frozen=True, slots=True)
class Parent:
    """The same tree in the snapshot before, as a hint for what need not be read."""

    shards: Iterator[tuple[ShardRow, list[bytes]]]
    scan_started_ns: int


class KnownRows:
    """The parent's rows, in order; `keep` gets those that hold. Use once.

    Ask about paths in the order of a walk.
    """

    def __init__(self, parent: Parent | None, keep: Callable[[Run], None]) -> None:
        self._shards = iter(()) if parent is None else parent.shards
        self._trusted_before_ns = 0 if parent is None else parent.scan_started_ns - SETTLE_NS
        self._keep = keep
        self._row: ShardRow | None = None
        self._lines: list[bytes] = []
        self._at = 0
        self._entry: FileEntry | None = None
        self._start = 0
        self._last = b""
        self._files = 0
        self._size = 0
        self.damage = ""

    def holds(self, path: bytes, found: os.stat_result) -> bool:
        """Say whether the next row is of this file and tells what `stat` tells; keep it then.

        Done for each file of a tree, so the row is not read but compared with what it
        must begin with. False means only: look closer.
        """
        if self._at >= len(self._lines) and not self._turn():
            return False
        line = self._lines[self._at]
        mtime_ns, ctime_ns, size = found.st_mtime_ns, found.st_ctime_ns, found.st_size
        trusted_before_ns = self._trusted_before_ns
        if (
            line.startswith(_FILE % (path, size, found.st_mode & 0o7777, mtime_ns, ctime_ns, found.st_ino))
            and line.endswith(_LIST_END)
            and mtime_ns < trusted_before_ns
            and ctime_ns < trusted_before_ns
            and found.st_nlink == 1
            and b'"' not in path
            and b"\\" not in path
        ):
            self._at += 1
            self._entry = None
            self._last = path
            self._files += 1
            self._size += size
            return True
        return False

    def find(self, path: bytes) -> FileEntry | None:
        """Return the parent's entry of this path."""
        key = sort_key(path)
        while (entry := self._current()) is not None:
            found = sort_key(entry.path)
            if found >= key:
                return entry if found == key else None
            self.skip()
        return None

    def vouches_for(self, old: FileEntry, found: FoundEntry) -> bool:
        """Say whether the parent's content must still be that of the file."""
        return (
            old.kind == "file"
            and old.size == found.size
            and old.mtime_ns == found.mtime_ns
            and old.ctime_ns == found.ctime_ns
            and old.inode == found.inode
            and max(old.mtime_ns, old.ctime_ns) < self._trusted_before_ns
        )

    def keep_if(self, old: FileEntry, line: bytes) -> bool:
        """Keep the row that `find` returned if this is how it would be written now."""
        if self._lines[self._at] != line:
            return False
        self._at += 1
        self._entry = None
        self._last = old.path
        if old.kind == "file":
            self._files += 1
            self._size += old.size
        return True

    def skip(self) -> None:
        """Leave out the next row."""
        self.flush()
        self._at += 1
        self._start = self._at
        self._entry = None

    def flush(self) -> None:
        """Hand on the rows kept so far, before anything that stands behind them."""
        start, self._start = self._start, self._at
        if start == self._at:
            return
        is_whole = self._at - start == len(self._lines)
        lines = self._lines if is_whole else self._lines[start : self._at]
        run = Run(lines, self._last, self._files, self._size, self._row if is_whole else None)
        self._files = self._size = 0
        self._keep(run)

    def _current(self) -> FileEntry | None:
        if self._at >= len(self._lines) and not self._turn():
            return None
        if self._entry is None:
            try:
                self._entry = read_entry(self._lines[self._at])
            except Damaged as error:
                self._give_up(error)
        return self._entry

    def _turn(self) -> bool:
        """Go to the next shard."""
        self.flush()
        try:
            self._row, self._lines = next(self._shards, (None, []))
        except Damaged as error:
            self._give_up(error)
        self._at = self._start = 0
        return bool(self._lines)

    def _give_up(self, error: Damaged) -> None:
        self.flush()
        self._shards, self._lines = iter(()), []
        self._at = self._start = 0
        self.damage = f"The list of the backup before could not be read, so everything was read anew: {error}"
