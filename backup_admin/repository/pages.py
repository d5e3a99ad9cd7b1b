"""Databases page by page: only pages that changed are stored.

The pages of a database are grouped in shards (1,024 pages). A shard is a chunk
of kind 03 with the keyed hash of each page and the extents that say in which
page chunk (kind 04, up to 1 MiB of pages) each run of pages lies. The root, also
of kind 03, lists the shards. An unchanged shard is the parent's shard.

Shard: `u32be page count || u32be extent count || hash[16] of each page || extents`
with extent = `u32be first page in the shard || u32be count || id[32] || u32be
chunk size || u32be offset in the chunk`.
Root: `u32be page size || u64be file size || u32be shard count || (id[32] || u32be
size) of each shard`. The last page may be cut short by the end of the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.repository.content import ReadInto, decode_refs, encode_refs, fill_buffer
from backup_admin.repository.types import MIB, ChunkKind, ChunkRef, Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.store import ChunkWriter

_HASH = 16
_EXTENT = 48
_HEAD = 8
_ROOT_HEAD = 16
_MAX_EXTENTS = 512


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of pages of a shard that lies together in one page chunk."""

    first: int
    count: int
    chunk: ChunkRef
    offset: int


@dataclass(frozen=True, slots=True)
class Shard:
    """The hashes of a group of pages, and where the pages lie."""

    hashes: tuple[bytes, ...]
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class PageRoot:
    """What a page map begins with."""

    page_size: int
    size: int
    shards: tuple[ChunkRef, ...]


class PageWriter:
    """Stores a database file page by page, against the snapshot before."""

    def __init__(
        self, writer: ChunkWriter, reader: ChunkReader, keys: RepositoryKeys, *, pages_per_shard: int
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._keys = keys
        self._per_shard = pages_per_shard

    def write(self, read_into: ReadInto, page_size: int, parent: ChunkRef | None) -> Content:
        """Read a database file to its end, store what is new, and describe it."""
        old = self._parent_shards(page_size, parent)
        buffer = memoryview(bytearray(self._per_shard * page_size))
        digest = hashlib.sha256()
        size = 0
        shards: list[ChunkRef] = []
        while filled := fill_buffer(read_into, buffer):
            digest.update(buffer[:filled])
            size += filled
            before = old[len(shards)] if len(shards) < len(old) else None
            shards.append(self._write_shard(buffer[:filled], page_size, before))
            if filled < len(buffer):
                break
        root = page_size.to_bytes(4, "big") + size.to_bytes(8, "big") + len(shards).to_bytes(4, "big")
        ref = self._writer.put(ChunkKind.DATABASE, root + encode_refs(shards), compress=True)
        return Content(size, digest.hexdigest(), pages=ref)

    def _parent_shards(self, page_size: int, parent: ChunkRef | None) -> tuple[ChunkRef, ...]:
        if parent is None:
            return ()
        root = read_root(self._reader, parent)
        return root.shards if root.page_size == page_size else ()

    def _write_shard(self, data: memoryview, page_size: int, before: ChunkRef | None) -> ChunkRef:
        hashes = tuple(
            self._keys.page_hash(data[at : at + page_size]) for at in range(0, len(data), page_size)
        )
        old = Shard((), ()) if before is None else read_shard(self._reader, before)
        if before is not None and hashes == old.hashes:
            return before
        changed = [n for n, value in enumerate(hashes) if n >= len(old.hashes) or old.hashes[n] != value]
        extents = _keep_extents(old.extents, set(changed), len(hashes), page_size)
        runs = list(_runs(changed, max(1, MIB // page_size)))
        if len(extents) + len(runs) > _MAX_EXTENTS:
            extents, runs = [], list(_runs(range(len(hashes)), max(1, MIB // page_size)))
        extents += self._store_runs(data, page_size, runs)
        extents.sort(key=lambda extent: extent.first)
        return self._writer.put(
            ChunkKind.DATABASE, encode_shard(Shard(hashes, tuple(extents))), compress=True
        )

    def _store_runs(self, data: memoryview, page_size: int, runs: list[tuple[int, int]]) -> list[Extent]:
        extents: list[Extent] = []
        gathered = bytearray()
        waiting: list[tuple[int, int, int]] = []
        for first, count in [*runs, (0, 0)]:
            part = data[first * page_size : (first + count) * page_size]
            if waiting and (count == 0 or len(gathered) + len(part) > MIB):
                ref = self._writer.put(ChunkKind.PAGES, gathered, compress=True)
                extents += [Extent(start, length, ref, offset) for start, length, offset in waiting]
                gathered, waiting = bytearray(), []
            if count:
                waiting.append((first, count, len(gathered)))
                gathered += part
        return extents


def iterate_pages(reader: ChunkReader, root_ref: ChunkRef) -> Iterator[memoryview]:
    """Yield the bytes of a database file in order; raise `Damaged`."""
    root = read_root(reader, root_ref)
    left = root.size
    for ref in root.shards:
        shard = read_shard(reader, ref)
        expected = 0
        for extent in shard.extents:
            if extent.first != expected:
                raise Damaged("A page map has a gap.")
            expected += extent.count
            length = min(extent.count * root.page_size, left)
            chunk = reader.read(ChunkKind.PAGES, extent.chunk)
            part = chunk[extent.offset : extent.offset + length]
            if len(part) != length:
                raise Damaged("A page map points beyond its chunk.")
            left -= length
            yield part
        if expected != len(shard.hashes):
            raise Damaged("A page map has a gap.")
    if left:
        raise Damaged("A page map ends before the file does.")


def page_refs(reader: ChunkReader, root_ref: ChunkRef) -> Iterator[tuple[ChunkKind, ChunkRef]]:
    """Yield every chunk a page map needs, the map's own included."""
    yield ChunkKind.DATABASE, root_ref
    for ref in read_root(reader, root_ref).shards:
        yield ChunkKind.DATABASE, ref
        last = None
        for extent in read_shard(reader, ref).extents:
            if extent.chunk != last:
                yield ChunkKind.PAGES, extent.chunk
                last = extent.chunk


def read_root(reader: ChunkReader, ref: ChunkRef) -> PageRoot:
    """Read the root of a page map; raise `Damaged`."""
    data = bytes(reader.read(ChunkKind.DATABASE, ref))
    page_size = int.from_bytes(data[:4], "big")
    count = int.from_bytes(data[12:16], "big")
    if len(data) != _ROOT_HEAD + 36 * count or not 512 <= page_size <= 65_536:
        raise Damaged("A page map has an impossible root.")
    return PageRoot(page_size, int.from_bytes(data[4:12], "big"), tuple(decode_refs(data[_ROOT_HEAD:])))


def read_shard(reader: ChunkReader, ref: ChunkRef) -> Shard:
    """Read one shard of a page map; raise `Damaged`."""
    data = bytes(reader.read(ChunkKind.DATABASE, ref))
    pages = int.from_bytes(data[:4], "big")
    count = int.from_bytes(data[4:8], "big")
    start = _HEAD + pages * _HASH
    if len(data) != start + count * _EXTENT:
        raise Damaged("A page map has a shard of an impossible length.")
    hashes = tuple(data[at : at + _HASH] for at in range(_HEAD, start, _HASH))
    return Shard(
        hashes, tuple(_decode_extent(data[at : at + _EXTENT]) for at in range(start, len(data), _EXTENT))
    )


def encode_shard(shard: Shard) -> bytes:
    """Write one shard of a page map."""
    head = len(shard.hashes).to_bytes(4, "big") + len(shard.extents).to_bytes(4, "big")
    rows = (
        b"".join(
            (
                extent.first.to_bytes(4, "big"),
                extent.count.to_bytes(4, "big"),
                extent.chunk.id,
                extent.chunk.size.to_bytes(4, "big"),
                extent.offset.to_bytes(4, "big"),
            )
        )
        for extent in shard.extents
    )
    return head + b"".join(shard.hashes) + b"".join(rows)


def _decode_extent(row: bytes) -> Extent:
    number = [int.from_bytes(row[at : at + 4], "big") for at in (0, 4, 40, 44)]
    return Extent(number[0], number[1], ChunkRef(row[8:40], number[2]), number[3])


def _runs(pages: list[int] | range, longest: int) -> Iterator[tuple[int, int]]:
    first = count = 0
    for page in pages:
        if count and (page != first + count or count == longest):
            yield first, count
            count = 0
        if not count:
            first = page
        count += 1
    if count:
        yield first, count


def _keep_extents(
    extents: tuple[Extent, ...], changed: set[int], page_count: int, page_size: int
) -> list[Extent]:
    kept: list[Extent] = []
    for extent in extents:
        numbers = range(extent.first, extent.first + extent.count)
        pages = [number for number in numbers if number not in changed and number < page_count]
        kept += [
            Extent(first, count, extent.chunk, extent.offset + (first - extent.first) * page_size)
            for first, count in _runs(pages, extent.count)
        ]
    return kept
