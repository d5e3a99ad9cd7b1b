"""One shard of a folder tree as entries, each checked against the list that names it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.core.paths import show_path, sort_key
from backup_admin.repository.entries import ShardRow, decode_entry, iterate_shards
from backup_admin.repository.expecting import expecting_shards
from backup_admin.repository.types import ChunkKind, FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import FilesRoot

_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)


def read_entries(reader: ChunkReader, row: ShardRow) -> list[FileEntry]:
    """Return the entries of a shard in order; raise `Damaged`."""
    lines = bytes(reader.read(ChunkKind.MANIFEST, row.ref)).split(b"\n")[:-1]
    try:
        entries = [decode_entry(line) for line in lines]
    except _FOREIGN as error:
        raise Damaged(f"An entry of a folder tree cannot be read: {error}.") from error
    keys = [sort_key(entry.path) for entry in entries]
    if len(keys) != row.count or keys[:1] != [sort_key(row.first)]:
        raise Damaged("A shard of a folder tree is not what the list of shards says.")
    if any(after <= before for before, after in pairwise(keys)):
        raise Damaged("A folder tree in the manifest is out of order or names a path twice.")
    return entries


def sound_entries(
    reader: ChunkReader, root: FilesRoot, note_damage: Callable[[str], None]
) -> Iterator[FileEntry]:
    """Yield the entries of all shards that can be read, in order; tell of each that cannot.

    Raises `Damaged` when the list of shards itself cannot be read, or is out of order.
    """
    before = b""
    reader.expect(root.shard_lists, at_once=True)
    for row in expecting_shards(reader, iterate_shards(reader, root)):
        try:
            entries = read_entries(reader, row)
        except Damaged as error:
            note_damage(f"{row.count} entries from {show_path(row.first)} on are lost: {error}")
            continue
        if sort_key(entries[0].path) <= before:
            raise Damaged("The shards of a folder tree are out of order.")
        before = sort_key(entries[-1].path)
        yield from entries
