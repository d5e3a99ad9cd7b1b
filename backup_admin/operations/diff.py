"""What changed between two snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.paths import sort_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.ids import SnapshotId
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

    Streams both trees: memory does not grow with them.
    """
    old, new = repository.manifest(before), repository.manifest(after)
    for name in sorted({root.name for root in (*old.files, *new.files)}):
        left = _entries(repository, old.files_root(name))
        right = _entries(repository, new.files_root(name))
        yield from _merge(name, left, right)


def _merge(source: str, left: Iterator[FileEntry], right: Iterator[FileEntry]) -> Iterator[FileChange]:
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and sort_key(old.path) < sort_key(new.path)):
            if old is not None:
                yield FileChange(source, old.path, "removed", old.size, 0)
            old = next(left, None)
        elif old is None or sort_key(new.path) < sort_key(old.path):
            yield FileChange(source, new.path, "added", 0, new.size)
            new = next(right, None)
        else:
            if _differ(old, new):
                yield FileChange(source, new.path, "changed", old.size, new.size)
            old, new = next(left, None), next(right, None)


def _differ(old: FileEntry, new: FileEntry) -> bool:
    if old.kind != new.kind or old.mode != new.mode or old.link_target != new.link_target:
        return True
    if old.content is None or new.content is None:
        return False
    return old.content.sha256 != new.content.sha256


def _entries(repository: Repository, root: FilesRoot | None) -> Iterator[FileEntry]:
    return iter(()) if root is None else repository.entries(root)


def _rows(table: TableEntry | None) -> int:
    return -1 if table is None else table.rows


def _checksum(table: TableEntry | None) -> str:
    return "" if table is None else table.checksum
