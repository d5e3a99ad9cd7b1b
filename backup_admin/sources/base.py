"""What the sources hand on: plain data, and the names of what can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from backup_admin.core.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

STAGING_PREFIX = b".backup-admin-"
ReadInto = Callable[[memoryview], int]
"""Fills a view from a stream as far as there is something; returns the bytes, 0 at the end."""


class EntryKind(StrEnum):
    """The kinds of entries that a backup keeps."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"


class SkipReason(StrEnum):
    """Why an entry is left out on purpose."""

    EXCLUDED = "excluded"
    CACHE_FOLDER = "cache_folder"
    SPECIAL = "special"
    DECLARED_DATABASE = "declared_database"
    SIDECAR = "sidecar"
    PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """One entry of a folder tree, as it was when it was listed.

    `mode` holds the permission bits only. `link_group` is the same for all
    names of one file and empty when the file has one name. A file marked
    `is_database` is a live SQLite file: `capture_database` copies it. It `is_quiet`
    when no journal with anything in it lay beside it: what it holds is in the
    file alone.
    """

    path: bytes
    kind: EntryKind
    size: int
    mode: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link_target: bytes = b""
    link_group: str = ""
    is_database: bool = False
    is_quiet: bool = False


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells one state of a file from another, as far as `stat` can."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class DatabaseCopy:
    """A copy of a live database file; the caller removes it.

    `stamp` is that of the file when the copy is the file, byte for byte. There is
    none when SQLite put file and journal together.
    """

    path: Path
    stamp: FileStamp | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was left out on purpose; its content was not looked at."""

    path: bytes
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that should have been captured and could not be."""

    path: bytes
    message: str


class Replaced(SourceError):
    """Another file took the place of one between its listing and its opening."""

    code = "replaced"


class LiveUnusable(SourceError):
    """The live database is missing or damaged, so it cannot be written into.

    The way that is left is `place_offline`.
    """

    code = "live_unusable"
