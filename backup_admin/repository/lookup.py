"""One entry, one folder or one branch of a folder tree, read without the rest of the tree.

The list of shards says where each begins; only those that can hold what is asked are read.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.core.paths import MAX_NAME_BYTES, path_from_json, sort_key
from backup_admin.repository.entries import ShardRow, decode_entry, iterate_shards
from backup_admin.repository.types import ChunkKind, FileEntry, FilesRoot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from backup_admin.repository.reader import ChunkReader

_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)


def find_entry(reader: ChunkReader, root: FilesRoot, path: bytes) -> FileEntry | None:
    """Return the entry with this path, or None; raise `Damaged`."""
    key = sort_key(path)
    found = _Tree(reader, root).seek(key, key + b"\0")
    return None if found is None else found.entry()


def list_folder(reader: ChunkReader, root: FilesRoot, path: bytes) -> Iterator[FileEntry]:
    """Yield what lies directly in a folder, in order; `b""` is the root. Raise `Damaged`.

    Large folders in it are leapt over. Yields nothing where no such folder is.
    """
    start, end = _range_below(path)
    tree = _Tree(reader, root)
    position = start
    while (place := tree.seek(position, end)) is not None:
        child = start + place.key[len(start) :].partition(b"\0")[0]
        if place.key == child:
            yield place.entry()
        position = child + b"\1"  # the first key that is not below the child


def entries_below(reader: ChunkReader, root: FilesRoot, path: bytes) -> Iterator[FileEntry]:
    """Yield everything below a folder in the order of a walk; `b""` is the root.

    The folder itself is not among it. Raises `Damaged`.
    """
    position, end = _range_below(path)
    tree = _Tree(reader, root)
    while (place := tree.seek(position, end)) is not None:
        yield place.entry()
        position = place.key + b"\0"


def branch_entries(reader: ChunkReader, root: FilesRoot, paths: Iterable[bytes]) -> Iterator[FileEntry]:
    """Yield the entries at and below these paths, and the folders above, in the order of a walk.

    Each comes once; what is not there is passed over. Raises `Damaged`.
    """
    tree = _Tree(reader, root)
    reached = b""  # all before this key was yielded
    for path in sorted(paths, key=sort_key):
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            key = b"\0".join(parts[:depth])
            if key >= reached and (place := tree.seek(key, key + b"\0")) is not None:
                yield place.entry()
                reached = key + b"\0"
        position, end = max(sort_key(path), reached), _range_below(path)[1]
        while (place := tree.seek(position, end)) is not None:
            yield place.entry()
            position = reached = place.key + b"\0"


def _range_below(path: bytes) -> tuple[bytes, bytes]:
    """Return the first key that can lie below a folder, and the first behind them all."""
    if not path:
        return b"", b"\xff" * (MAX_NAME_BYTES + 1)  # longer than any name
    key = sort_key(path)
    return key + b"\0", key + b"\1"


@dataclass(frozen=True, slots=True)
class _Place:
    """One line of a shard, by the key that orders it; decoded when it is wanted."""

    key: bytes
    line: bytes

    def entry(self) -> FileEntry:
        try:
            return decode_entry(self.line)
        except _FOREIGN as error:
            raise Damaged(f"An entry of a folder tree cannot be read: {error}.") from error


class _Tree:
    """The list of shards of a tree, and the one shard that was read last."""

    def __init__(self, reader: ChunkReader, root: FilesRoot) -> None:
        self._reader = reader
        self._rows = list(iterate_shards(reader, root))
        self._firsts = [sort_key(row.first) for row in self._rows]
        if not _ascends(self._firsts):
            raise Damaged("The shards of a folder tree are out of order.")
        self._number = -1
        self._keys: list[bytes] = []
        self._lines: list[bytes] = []

    def seek(self, key: bytes, end: bytes) -> _Place | None:
        """Return the first line whose key is not before `key`, when it is before `end`."""
        number = max(0, bisect_right(self._firsts, key) - 1)
        while number < len(self._rows) and self._firsts[number] < end:
            self._read(number)
            at = bisect_left(self._keys, key)
            if at < len(self._keys):
                return _Place(self._keys[at], self._lines[at]) if self._keys[at] < end else None
            number += 1
        return None

    def _read(self, number: int) -> None:
        if number == self._number:
            return
        row = self._rows[number]
        lines = bytes(self._reader.read(ChunkKind.MANIFEST, row.ref)).split(b"\n")[:-1]
        try:
            values = json.loads(b"[" + b",".join(lines) + b"]")
            keys = [sort_key(path_from_json(value[0])) for value in values]
        except _FOREIGN as error:
            raise Damaged(f"A shard of a folder tree cannot be read: {error}.") from error
        self._check(row, keys, len(lines))
        self._number, self._keys, self._lines = number, keys, lines

    def _check(self, row: ShardRow, keys: list[bytes], line_count: int) -> None:
        if not len(keys) == line_count == row.count or keys[:1] != [sort_key(row.first)]:
            raise Damaged("A shard of a folder tree is not what the list of shards says.")
        if not _ascends(keys):
            raise Damaged("A folder tree in the manifest is out of order or names a path twice.")


def _ascends(keys: list[bytes]) -> bool:
    return all(before < after for before, after in pairwise(keys))
