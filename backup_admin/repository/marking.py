"""Which chunks snapshots need: every shard and page map is read once, however many share it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import Damaged
from backup_admin.repository.content import decode_ids
from backup_admin.repository.entries import iterate_shards, ref_from_json
from backup_admin.repository.pages import read_root, read_shard_chunks
from backup_admin.repository.types import ChunkKind, ChunkRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import Content, FilesRoot, Manifest

_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)


class Marker:
    """Tells `add` the ids of all chunks that manifests need, many at a time, some ids more than once."""

    def __init__(self, reader: ChunkReader, add: Callable[[Iterable[bytes]], object]) -> None:
        self.reader = reader
        self._add = add
        self._done: set[bytes] = set()
        self._tolerant = False

    def mark(self, manifest: Manifest, *, tolerant: bool = False) -> None:
        """Mark all that one snapshot needs.

        Raises `Damaged` when that cannot be told; `tolerant` leaves out what cannot.
        """
        self._tolerant = tolerant
        for entry in manifest.databases:
            self._mark_content(entry.content)
        for root in manifest.trees():
            for part in root.shard_lists:
                self._once(part, partial(self._mark_shards, replace(root, shard_lists=(part,))))
        if manifest.settings is not None:
            self._add((manifest.settings.content.id,))

    def _mark_shards(self, root: FilesRoot) -> bool:
        rows = iterate_shards(self.reader, root)
        return _every(self._once(row.ref, partial(self._mark_shard, row.ref)) for row in rows)

    def _mark_shard(self, ref: ChunkRef) -> bool:
        needed: list[bytes] = []
        lines = bytes(self.reader.read(ChunkKind.MANIFEST, ref))
        complete = True
        try:
            for row in json.loads(b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]"):
                if row[1] == "f":
                    content = row[8]
                    if isinstance(content, list):
                        needed += [bytes.fromhex(chunk_id) for chunk_id, _ in content]
                    else:
                        complete &= self._mark_indirect(content)
        except _FOREIGN as error:
            raise Damaged(f"An entry of a folder tree cannot be read: {error}.") from error
        finally:
            self._add(needed)
        return complete

    def _mark_indirect(self, content: dict[str, Any]) -> bool:
        if "pages" in content:
            return self._mark_pages(ref_from_json(content["pages"]))
        return self._mark_lists(ref_from_json(ref) for ref in content["lists"])

    def _mark_content(self, content: Content) -> None:
        if content.pages is not None:
            self._mark_pages(content.pages)
        self._mark_lists(content.chunk_lists)
        self._add(ref.id for ref in content.chunks)

    def _mark_lists(self, lists: Iterable[ChunkRef]) -> bool:
        return _every(self._once(part, partial(self._mark_list, part)) for part in lists)

    def _mark_list(self, part: ChunkRef) -> bool:
        self._add(decode_ids(bytes(self.reader.read(ChunkKind.MANIFEST, part))))
        return True

    def _mark_pages(self, root: ChunkRef) -> bool:
        return self._once(root, partial(self._mark_root, root))

    def _mark_root(self, root: ChunkRef) -> bool:
        shards = read_root(self.reader, root).shards
        return _every(self._once(ref, partial(self._mark_page_shard, ref)) for ref in shards)

    def _mark_page_shard(self, ref: ChunkRef) -> bool:
        self._add(read_shard_chunks(self.reader, ref))
        return True

    def _once(self, ref: ChunkRef, mark: Callable[[], bool]) -> bool:
        """Mark a chunk that leads to others, and those, unless that was done; say whether all were found."""
        self._add((ref.id,))
        if ref.id in self._done:
            return True
        try:
            complete = mark()
        except Damaged:
            if not self._tolerant:
                raise
            return False
        if complete:
            self._done.add(ref.id)
        return complete


def _every(results: Iterable[bool]) -> bool:
    """Say whether all are true, looking at every one."""
    return not list(results).count(False)
