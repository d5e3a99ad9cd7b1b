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

What is stored page by page is read in pieces. So that a restore costs no more for a
database with a long history than for a new one, pages are stored anew before a
shard lies in too many chunks, or these hold too much that is no longer needed.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict, deque
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, SourceError
from backup_admin.repository.content import ReadInto, decode_refs, encode_refs, fill_buffer
from backup_admin.repository.page_extents import (
    Extent,
    is_dear_to_read,
    keep_extents,
    pages_to_gather,
    runs_of,
)
from backup_admin.repository.page_groups import GroupDigests
from backup_admin.repository.types import MIB, ChunkKind, ChunkRef, Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor
    from pathlib import Path

    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.store import ChunkWriter

_HASH = 16
_EXTENT = struct.Struct(">II32sII")
_HEAD = 8
_ROOT_HEAD = 16
_SHARDS_OF_A_SIZE = 32_768
_MAX_SHARDS = 116_000
_RECENT_CHUNKS = 12
_SHARDS_HELD = 2


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

    def shard(self, number: int, start: int, length: int) -> tuple[ChunkRef, int] | None:
        """Return a shard and the bytes it describes of the `length` from `start` on."""
        if number >= len(self.shards):
            return None
        return self.shards[number], min(length, self.size - start)


class PageWriter:
    """Stores a database file page by page, against the snapshot before.

    What is read and hashed goes to a thread that compresses and stores it: two processors are at work.
    The chunk writer is used by one of both at a time.
    """

    def __init__(
        self,
        writer: ChunkWriter,
        reader: ChunkReader,
        keys: RepositoryKeys,
        *,
        pages_per_shard: int,
        groups: Path,
    ) -> None:
        """`groups` is the folder where this machine keeps digests to compare with."""
        self._groups = groups
        self._writer = writer
        self._reader = reader
        self._keys = keys
        self._per_shard = pages_per_shard

    def write(self, read_into: ReadInto, page_size: int, parent: ChunkRef | None) -> Content:
        """Read a database file to its end, store what is new, and describe it."""
        layout = (page_size, self._per_shard)
        with closing(GroupDigests(self._groups, self._keys.page_hash, layout, parent)) as groups:
            content = self._write(read_into, page_size, self._parent_root(page_size, parent), groups)
            if content.pages is not None:
                groups.keep(content.pages)
        return content

    def _write(
        self, read_into: ReadInto, page_size: int, old: PageRoot | None, groups: GroupDigests
    ) -> Content:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - who only reads does without

        digest = hashlib.sha256()
        size = number = 0
        with ThreadPoolExecutor(1, thread_name_prefix="page-writer") as storing:
            shards = _Shards(storing)
            while True:
                wanted = self._pages_of_shard(number) * page_size
                buffer = shards.buffer(wanted)
                filled = fill_buffer(read_into, buffer)
                if filled:
                    if number == _MAX_SHARDS:
                        raise SourceError("A database is too large for a page map; nothing was committed.")
                    digest.update(buffer[:filled])
                    before = None if old is None else old.shard(number, size, wanted)
                    size += filled
                    number += 1
                    shards.add(buffer, self._compare(buffer[:filled], page_size, before, groups))
                if filled < wanted:
                    break
            refs = shards.finish()
        root = page_size.to_bytes(4, "big") + size.to_bytes(8, "big") + len(refs).to_bytes(4, "big")
        ref = self._writer.put(ChunkKind.DATABASE, root + encode_refs(refs), compress=True)
        return Content(size, digest.hexdigest(), pages=ref)

    def _pages_of_shard(self, number: int) -> int:
        """Shards double at certain numbers, so that the root of a huge database stays one chunk."""
        return self._per_shard << number // _SHARDS_OF_A_SIZE

    def _parent_root(self, page_size: int, parent: ChunkRef | None) -> PageRoot | None:
        if parent is None:
            return None
        root = read_root(self._reader, parent)
        return root if root.page_size == page_size else None

    def _compare(
        self, data: memoryview, page_size: int, before: tuple[ChunkRef, int] | None, groups: GroupDigests
    ) -> Callable[[], ChunkRef]:
        """Find out what changed in a shard; return what stores it."""
        same = groups.compare(data)
        old = Shard((), ())
        if before is not None:
            ref, size = before
            if size == len(data) and all(same):
                return lambda: ref
            old = read_shard(self._reader, ref)
        hashes = self._hashes(data, page_size, old.hashes, groups.pages, same)
        if before is not None and hashes == old.hashes:
            return lambda: ref
        return partial(self._store_shard, data, page_size, old, hashes)

    def _store_shard(
        self, data: memoryview, page_size: int, old: Shard, hashes: tuple[bytes, ...]
    ) -> ChunkRef:
        fresh = {n for n, value in enumerate(hashes) if n >= len(old.hashes) or old.hashes[n] != value}
        extents = keep_extents(old.extents, fresh, len(hashes), page_size)
        if scattered := pages_to_gather(extents, len(fresh)):
            fresh |= scattered
            extents = keep_extents(old.extents, fresh, len(hashes), page_size)
        runs = list(runs_of(sorted(fresh), max(1, MIB // page_size)))
        if is_dear_to_read(extents, runs, len(hashes), page_size):
            extents, runs = [], list(runs_of(range(len(hashes)), max(1, MIB // page_size)))
        extents += self._store_runs(data, page_size, runs)
        extents.sort(key=lambda extent: extent.first)
        return self._writer.put(
            ChunkKind.DATABASE, encode_shard(Shard(hashes, tuple(extents))), compress=True
        )

    def _hashes(
        self, data: memoryview, page_size: int, old: tuple[bytes, ...], group: int, same: list[bool]
    ) -> tuple[bytes, ...]:
        """Hash every page, but for those of groups that are as they were."""
        count = -(-len(data) // page_size)
        hashes: list[bytes] = []
        for first, unchanged in zip(range(0, count, group), same, strict=True):
            pages = range(first, min(first + group, count))
            if unchanged and pages.stop <= len(old):
                hashes += old[pages.start : pages.stop]
            else:
                part = data[pages.start * page_size : pages.stop * page_size]
                hashes += self._keys.page_hashes(part, page_size)
        return tuple(hashes)

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
            if len(part) == MIB:  # as it is on a first backup: spare the copy
                ref = self._writer.put(ChunkKind.PAGES, part, compress=True)
                extents.append(Extent(first, count, ref, 0))
            elif count:
                waiting.append((first, count, len(gathered)))
                gathered += part
        return extents


class _Shards:
    """Shards that another thread stores while the next one is read and hashed."""

    def __init__(self, storing: ThreadPoolExecutor) -> None:
        self._storing = storing
        self._waiting: deque[tuple[memoryview, Future[ChunkRef]]] = deque()
        self._refs: list[ChunkRef] = []

    def buffer(self, size: int) -> memoryview:
        """Return a buffer that nobody uses, when there is one."""
        buffer = memoryview(b"")
        if len(self._waiting) == _SHARDS_HELD:
            buffer = self._take_oldest()
        return buffer if len(buffer) == size else memoryview(bytearray(size))

    def add(self, buffer: memoryview, store: Callable[[], ChunkRef]) -> None:
        """Let a shard be stored; its buffer is in use until then."""
        self._waiting.append((buffer, self._storing.submit(store)))

    def finish(self) -> list[ChunkRef]:
        """Wait for all shards; return them in their order."""
        while self._waiting:
            self._take_oldest()
        return self._refs

    def _take_oldest(self) -> memoryview:
        buffer, stored = self._waiting.popleft()
        self._refs.append(stored.result())
        return buffer


class _RecentChunks:
    """Page chunks, of which the last few are kept: the pieces of a shard lie mixed in them."""

    def __init__(self, reader: ChunkReader) -> None:
        self._reader = reader
        self._chunks: OrderedDict[ChunkRef, memoryview] = OrderedDict()

    def read(self, ref: ChunkRef) -> memoryview:
        chunk = self._chunks.get(ref)
        if chunk is None:
            chunk = self._chunks[ref] = self._reader.read(ChunkKind.PAGES, ref)
            if len(self._chunks) > _RECENT_CHUNKS:
                self._chunks.popitem(last=False)
        else:
            self._chunks.move_to_end(ref)
        return chunk


def iterate_pages(reader: ChunkReader, root_ref: ChunkRef) -> Iterator[memoryview]:
    """Yield the bytes of a database file in order; raise `Damaged`."""
    root = read_root(reader, root_ref)
    chunks = _RecentChunks(reader)
    left = root.size
    for ref in root.shards:
        shard = read_shard(reader, ref)
        expected = 0
        for extent in shard.extents:
            if extent.first != expected:
                raise Damaged("A page map has a gap.")
            expected += extent.count
            length = min(extent.count * root.page_size, left)
            chunk = chunks.read(extent.chunk)
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
    data, start = _open_shard(reader, ref)
    hashes = tuple(data[at : at + _HASH] for at in range(_HEAD, start, _HASH))
    extents = tuple(
        Extent(first, count, ChunkRef(chunk, size), offset)
        for first, count, chunk, size, offset in _EXTENT.iter_unpack(data[start:])
    )
    return Shard(hashes, extents)


def read_shard_chunks(reader: ChunkReader, ref: ChunkRef) -> Iterator[bytes]:
    """Yield the ids of the chunks that the pages of a shard lie in; raise `Damaged`."""
    data, start = _open_shard(reader, ref)
    for at in range(start, len(data), _EXTENT.size):
        yield data[at + 8 : at + 40]


def _open_shard(reader: ChunkReader, ref: ChunkRef) -> tuple[bytes, int]:
    """Return a shard as it was written, and where its extents begin."""
    data = bytes(reader.read(ChunkKind.DATABASE, ref))
    pages = int.from_bytes(data[:4], "big")
    count = int.from_bytes(data[4:8], "big")
    start = _HEAD + pages * _HASH
    if len(data) != start + count * _EXTENT.size:
        raise Damaged("A page map has a shard of an impossible length.")
    return data, start


def encode_shard(shard: Shard) -> bytes:
    """Write one shard of a page map."""
    head = len(shard.hashes).to_bytes(4, "big") + len(shard.extents).to_bytes(4, "big")
    rows = (
        _EXTENT.pack(extent.first, extent.count, *extent.chunk, extent.offset) for extent in shard.extents
    )
    return head + b"".join(shard.hashes) + b"".join(rows)
