"""Which chunks snapshots need: every shard and page map is read once, however many share it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import Damaged
from backup_admin.repository.content import decode_refs
from backup_admin.repository.entries import iterate_shards, ref_from_json
from backup_admin.repository.pages import read_root, read_shard
from backup_admin.repository.types import ChunkKind, ChunkRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import Content, FilesRoot, Manifest

_FOREIGN = (ValueError, KeyError, TypeError, IndexError, AttributeError)


class Marker:
    """Tells `add` the id of every chunk that manifests need, some ids more than once."""

    def __init__(self, reader: ChunkReader, add: Callable[[bytes], object]) -> None:
        self._reader = reader
        self._add = add
        self._read: set[bytes] = set()

    def mark(self, manifest: Manifest) -> None:
        """Mark all that one snapshot needs; raise `Damaged` when that cannot be told."""
        for entry in manifest.databases:
            self._mark_content(entry.content)
        for root in manifest.files:
            self._mark_tree(root)
        if manifest.settings is not None:
            self._add(manifest.settings.content.id)

    def _mark_tree(self, root: FilesRoot) -> None:
        fresh = [ref for ref in root.shard_lists if self._is_new(ref)]
        if not fresh and root.shard_lists:
            return
        for row in iterate_shards(self._reader, root):
            if self._is_new(row.ref):
                self._mark_shard(bytes(self._reader.read(ChunkKind.MANIFEST, row.ref)))

    def _mark_shard(self, lines: bytes) -> None:
        add = self._add
        try:
            for row in json.loads(b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]"):
                if row[1] == "f":
                    content = row[8]
                    if isinstance(content, list):
                        for chunk_id, _ in content:
                            add(bytes.fromhex(chunk_id))
                    else:
                        self._mark_indirect(content)
        except _FOREIGN as error:
            raise Damaged(f"An entry of a folder tree cannot be read: {error}.") from error

    def _mark_indirect(self, content: dict[str, Any]) -> None:
        if "pages" in content:
            self._mark_pages(ref_from_json(content["pages"]))
        else:
            self._mark_lists(ref_from_json(ref) for ref in content["lists"])

    def _mark_content(self, content: Content) -> None:
        if content.pages is not None:
            self._mark_pages(content.pages)
        self._mark_lists(content.chunk_lists)
        for ref in content.chunks:
            self._add(ref.id)

    def _mark_lists(self, lists: Iterable[ChunkRef]) -> None:
        for part in lists:
            if self._is_new(part):
                for ref in decode_refs(bytes(self._reader.read(ChunkKind.MANIFEST, part))):
                    self._add(ref.id)

    def _mark_pages(self, root: ChunkRef) -> None:
        if not self._is_new(root):
            return
        for ref in read_root(self._reader, root).shards:
            if self._is_new(ref):
                for extent in read_shard(self._reader, ref).extents:
                    self._add(extent.chunk.id)

    def _is_new(self, ref: ChunkRef) -> bool:
        """Mark a chunk that leads to others; say whether those have still to be read."""
        self._add(ref.id)
        if ref.id in self._read:
            return False
        self._read.add(ref.id)
        return True
