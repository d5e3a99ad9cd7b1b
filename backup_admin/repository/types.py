"""The data a repository is made of: plain, frozen, and the same for reader and writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from backup_admin.core.ids import SnapshotId

MIB = 1 << 20
MAX_SEGMENT_BYTES = 4 * MIB
FORMAT_VERSION = 1
SAFETY = "safety"
"""The kind of the snapshot that is taken just before a restore."""


class ChunkKind(IntEnum):
    """What a chunk holds; part of its id, so kinds never mix."""

    DATA = 1
    MANIFEST = 2
    DATABASE = 3
    PAGES = 4


# What there is of each file is a named tuple: made three times as fast as a frozen data class.


class ChunkRef(NamedTuple):
    """Name and plain size of one chunk. The kind follows from where it stands."""

    id: bytes
    size: int


class Content(NamedTuple):
    """The bytes of a file: a list of chunks, or a page map for a database file.

    `chunk_lists` names chunks that hold the list itself when it is long.
    """

    size: int
    sha256: str
    chunks: tuple[ChunkRef, ...] = ()
    chunk_lists: tuple[ChunkRef, ...] = ()
    pages: ChunkRef | None = None


class FileEntry(NamedTuple):
    """One entry of a folder tree. `kind` is file, folder or symlink."""

    path: bytes
    kind: str
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    content: Content | None = None
    link_target: bytes = b""
    link_group: str = ""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """What a table held: rows, bytes of their values, digest over all rows."""

    name: str
    rows: int
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """One captured database: a file, or the files of a `tree`, the first of which is `content`."""

    name: str
    engine: str
    format: str
    engine_version: str
    path: str
    page_size: int
    content: Content
    tables: tuple[TableEntry, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    tree: FilesRoot | None = None

    @property
    def size(self) -> int:
        """All bytes that belong to it."""
        return self.content.size if self.tree is None else self.tree.size


@dataclass(frozen=True, slots=True)
class FilesRoot:
    """One captured folder tree; `shard_lists` lead to its entries.

    An entry whose times are not well before `scan_started_ns` may have changed
    once more without showing it: the next backup reads it again.
    """

    name: str
    path: str
    mode: int
    mtime_ns: int
    scan_started_ns: int
    entry_count: int
    file_count: int
    size: int
    shard_lists: tuple[ChunkRef, ...]
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingsEntry:
    """Saved settings: a chunk with values and secrets, and what is in it."""

    content: ChunkRef
    names: tuple[str, ...]
    secret_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The small header of a manifest, enough for a list of backups."""

    id: SnapshotId
    created_at: datetime
    kind: str
    label: str
    outcome: str
    parent: str
    file_count: int
    file_bytes: int
    database_count: int
    database_bytes: int
    new_bytes: int
    warning_count: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about one snapshot but the rows of its folder trees.

    Warnings name what is missing from the snapshot, notices what a person should
    know about it.
    """

    snapshot: Snapshot
    system: Mapping[str, Any]
    databases: tuple[DatabaseEntry, ...]
    files: tuple[FilesRoot, ...]
    settings: SettingsEntry | None
    warnings: tuple[str, ...]
    notices: tuple[str, ...] = ()

    def database(self, name: str) -> DatabaseEntry | None:
        """Return the database of that name, if the snapshot has it."""
        return next((entry for entry in self.databases if entry.name == name), None)

    def trees(self) -> tuple[FilesRoot, ...]:
        """Return the folder trees, and those that databases consist of."""
        return (*self.files, *(entry.tree for entry in self.databases if entry.tree is not None))

    def files_root(self, name: str) -> FilesRoot | None:
        """Return the folder tree of that name, if the snapshot has it."""
        return next((root for root in self.files if root.name == name), None)
