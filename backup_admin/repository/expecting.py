"""Telling a reader of what comes next, so that a storage that is far away is asked in time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from backup_admin.core.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from backup_admin.repository.entries import ShardRow
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import FileEntry

T = TypeVar("T")

_FILE_BYTES = 128 << 20
_SHARD_BYTES = 4 << 20
_MOST_ITEMS = 8192


def expecting_files(reader: ChunkReader, entries: Iterable[FileEntry]) -> Iterator[FileEntry]:
    """Yield the entries in order; their chunks are told of early. Each of them has to be read."""

    def tell(entry: FileEntry) -> None:
        if entry.content is not None:
            reader.expect(entry.content.chunks)

    return _expecting(reader, entries, tell, lambda entry: entry.size, _FILE_BYTES)


def expecting_shards(reader: ChunkReader, rows: Iterable[ShardRow]) -> Iterator[ShardRow]:
    """Yield the rows in order; their shards are told of early. Each of them has to be read."""

    def tell(row: ShardRow) -> None:
        reader.expect((row.ref,), at_once=True)

    return _expecting(reader, rows, tell, lambda row: row.ref.size, _SHARD_BYTES)


def _expecting(
    reader: ChunkReader,
    items: Iterable[T],
    tell: Callable[[T], None],
    size_of: Callable[[T], int],
    most_bytes: int,
) -> Iterator[T]:
    """Hold items back while the reader learns of them; raise what ends them after the last that is sound."""
    if not reader.reads_ahead:
        yield from items
        return
    waiting: deque[T] = deque()
    size = 0
    damage: Damaged | None = None
    try:
        for item in items:
            tell(item)
            waiting.append(item)
            size += size_of(item)
            while size > most_bytes or len(waiting) > _MOST_ITEMS:
                size -= size_of(waiting[0])
                yield waiting.popleft()
    except Damaged as error:
        damage = error
    reader.expect_no_more()
    yield from waiting
    if damage is not None:
        raise damage
