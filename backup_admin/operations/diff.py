"""What changed between two snapshots."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.paths import sort_key
from backup_admin.repository.entries import ShardRow, iterate_shards
from backup_admin.repository.shards import read_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import FileEntry, FilesRoot, Manifest, TableEntry


@dataclass(frozen=True, slots=True)
class FileChange:
    """One entry that differs. `change` is added, removed or changed."""

    source: str
    path: bytes
    change: str
    old_size: int
    new_size: int


@dataclass(frozen=True, slots=True)
class TableChange:
    """One table that differs; -1 rows mean that the table is not there."""

    database: str
    table: str
    old_rows: int
    new_rows: int


def diff_tables(before: Manifest, after: Manifest) -> tuple[TableChange, ...]:
    """Return the tables whose content differs."""
    old = {(entry.name, table.name): table for entry in before.databases for table in entry.tables}
    new = {(entry.name, table.name): table for entry in after.databases for table in entry.tables}
    return tuple(
        TableChange(database, table, _rows(old.get((database, table))), _rows(new.get((database, table))))
        for database, table in sorted(old.keys() | new.keys())
        if _checksum(old.get((database, table))) != _checksum(new.get((database, table)))
    )


def diff_files(repository: Repository, before: SnapshotId, after: SnapshotId) -> Iterator[FileChange]:
    """Yield the entries that differ, source by source in the order of a walk.

    Streams both trees, and leaves out the shards they share: memory does not grow
    with them, and little is read when little changed. Raises `Damaged`.
    """
    old, new = repository.manifest(before), repository.manifest(after)
    reader = repository.reader()
    for name in sorted({root.name for root in (*old.files, *new.files)}):
        yield from _merge(name, _Side(reader, old.files_root(name)), _Side(reader, new.files_root(name)))


class _Side:
    """One of two trees, walked shard by shard; a shard is read when an entry of it is wanted."""

    def __init__(self, reader: ChunkReader, root: FilesRoot | None) -> None:
        self._reader = reader
        self._rows = iter(()) if root is None else iterate_shards(reader, root)
        self._row = next(self._rows, None)
        self._entries: deque[FileEntry] = deque()

    @property
    def untouched(self) -> ShardRow | None:
        """The shard that comes next, when none of it was taken yet."""
        return None if self._entries else self._row

    @property
    def key(self) -> bytes | None:
        """What orders the next entry; None at the end of the tree."""
        if self._entries:
            return sort_key(self._entries[0].path)
        return None if self._row is None else sort_key(self._row.first)

    def skip(self) -> None:
        """Leave the shard that comes next unread."""
        self._row = next(self._rows, None)

    def take(self) -> FileEntry:
        """Return the next entry."""
        if not self._entries and self._row is not None:
            self._entries.extend(read_entries(self._reader, self._row))
            self.skip()
        return self._entries.popleft()


def _merge(source: str, left: _Side, right: _Side) -> Iterator[FileChange]:
    while left.key is not None or right.key is not None:
        same = left.untouched
        if same is not None and right.untouched is not None and same.ref == right.untouched.ref:
            left.skip()
            right.skip()
        elif right.key is None or (left.key is not None and left.key < right.key):
            old = left.take()
            yield FileChange(source, old.path, "removed", old.size, 0)
        elif left.key is None or right.key < left.key:
            new = right.take()
            yield FileChange(source, new.path, "added", 0, new.size)
        else:
            old, new = left.take(), right.take()
            if _differ(old, new):
                yield FileChange(source, new.path, "changed", old.size, new.size)


def _differ(old: FileEntry, new: FileEntry) -> bool:
    if old.kind != new.kind or old.mode != new.mode or old.link_target != new.link_target:
        return True
    if old.content is None or new.content is None:
        return False
    return old.content.sha256 != new.content.sha256


def _rows(table: TableEntry | None) -> int:
    return -1 if table is None else table.rows


def _checksum(table: TableEntry | None) -> str:
    return "" if table is None else table.checksum
