"""Packs: objects of many segments, ending with a table of contents.

A segment is the unit of compression and encryption: one frame of the pack with
one or many chunks. The last frame lists every segment and chunk, padded so that
the size of a pack says little about its content.

Table of contents: `u32be bytes of what follows`, then for each segment `method
u8 || plain size u32be || chunk count u32be`, then for each of its chunks
`kind u8 || id[32] || offset u32be || length u32be`, then zeros up to the padding.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, overload

import zstandard
from blake3 import blake3

from backup_admin.core.errors import Damaged
from backup_admin.repository.index import PackInfo, encode_record
from backup_admin.repository.objects import (
    FRAME_OVERHEAD,
    HEADER_BYTES,
    LENGTH_BYTES,
    ObjectCipher,
    ObjectType,
    check_header,
    frame_spans,
    new_header,
)
from backup_admin.repository.types import MAX_SEGMENT_BYTES, ChunkKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from mmap import mmap

    from backup_admin.repository.keys import RepositoryKeys

PREFIX = "packs/"
LOGICAL_NAME = "pack"
_WORTH_IT = 0.94
_MAX_TOC_BYTES = 1 << 20  # what is known of a pack's chunks takes six times that in memory
_MAX_FRAMES = 65_000
_CHUNK = struct.Struct(">B32sII")
_SEGMENT = struct.Struct(">BII")
_KINDS = {kind.value: kind for kind in ChunkKind}


class _Own(threading.local):
    """What each thread has for itself: making one anew costs as much as a small segment."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_OWN = _Own()


class Method(IntEnum):
    """How the bytes of a segment are kept."""

    RAW = 0
    ZSTD = 1


class ChunkSpan(NamedTuple):
    """Where a chunk lies inside its segment."""

    kind: ChunkKind
    id: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a pack: where its frame is and what is in it."""

    method: int
    plain_size: int
    frame_offset: int
    frame_length: int
    frame_number: int
    chunks: tuple[ChunkSpan, ...]


def pack_name(digest: bytes) -> str:
    """Return the storage name of the pack with this hash."""
    text = digest.hex()
    return f"{PREFIX}{text[:2]}/{text}"


def pack_digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the hash of a pack's bytes, which is its name; needs no key."""
    return blake3(data).digest()


class PackBuilder:
    """Fills one buffer with sealed segments. Used by one thread at a time."""

    def __init__(self, keys: RepositoryKeys, buffer: bytearray | mmap) -> None:
        self._keys = keys
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._compressor: zstandard.ZstdCompressor | None = None
        self.reset()

    def reset(self) -> None:
        """Begin a new pack in the same buffer."""
        self._cipher = ObjectCipher(
            self._keys, new_header(ObjectType.PACK, self._keys.keyring.write_kid), LOGICAL_NAME
        )
        self._view[:HEADER_BYTES] = self._cipher.header
        self.size = HEADER_BYTES
        self.segments: list[Segment] = []
        self._toc_bytes = LENGTH_BYTES

    def has_room(self, plain_size: int, chunk_count: int, limit: int) -> bool:
        """Say whether a segment still fits below the limit of a pack."""
        toc = self._toc_bytes + _SEGMENT.size + _CHUNK.size * chunk_count
        needed = self.size + plain_size + toc + 2 * FRAME_OVERHEAD
        return not self.segments or (
            needed <= limit and toc <= _MAX_TOC_BYTES and len(self.segments) < _MAX_FRAMES
        )

    def add(self, data: bytes | bytearray | memoryview, chunks: Sequence[ChunkSpan], *, level: int) -> None:
        """Seal a segment; `level` above zero compresses it when that pays."""
        plain_size = len(data)
        method = Method.RAW
        if level:
            packed = self._compress(data, level)
            if len(packed) < plain_size * _WORTH_IT:
                data, method = packed, Method.ZSTD
        number = len(self.segments)
        length = self._cipher.seal_into(data, number, self._view[self.size :], last=False)
        self.segments.append(
            Segment(
                method, plain_size, self.size + LENGTH_BYTES, length - LENGTH_BYTES, number, tuple(chunks)
            )
        )
        self.size += length
        self._toc_bytes += _SEGMENT.size + _CHUNK.size * len(chunks)

    def finish(self, padding: int) -> tuple[memoryview, PackInfo]:
        """Seal the table of contents; return the pack's bytes, still in the buffer, and its row."""
        toc = _encode_toc(self.segments)
        free = -(self.size + FRAME_OVERHEAD + len(toc)) % padding
        self.size += self._cipher.seal_into(
            toc + bytes(free), len(self.segments), self._view[self.size :], last=True
        )
        data = self._view[: self.size]
        return data, PackInfo(pack_digest(data), self._cipher.header, self.size)

    def release(self) -> bytearray | mmap:
        """Give the buffer back; the builder must not be used after."""
        self._view.release()
        return self._buffer

    def _compress(self, data: bytes | bytearray | memoryview, level: int) -> bytes:
        if self._compressor is None:
            self._compressor = zstandard.ZstdCompressor(level=level)
        return self._compressor.compress(data)


def index_records(pack_number: int, segments: Sequence[Segment]) -> Iterator[bytes]:
    """Return an index record for each chunk of a pack."""
    for segment in segments:
        frame = (segment.frame_offset, segment.method, segment.frame_length, segment.frame_number)
        for chunk in segment.chunks:
            yield encode_record(chunk.id, pack_number, frame, (chunk.offset, chunk.length))


def read_pack(keys: RepositoryKeys, data: memoryview) -> tuple[ObjectCipher, list[Segment]]:
    """Open the table of contents of a whole pack; raise `Damaged`.

    Works without an index: this is how a lost index is made again.
    """
    header = bytes(data[:HEADER_BYTES])
    check_header(header, ObjectType.PACK)
    cipher = ObjectCipher(keys, header, LOGICAL_NAME)
    spans = frame_spans(data)
    offset, size = spans[-1]
    toc = cipher.open(data[offset : offset + size], len(spans) - 1, last=True)
    return cipher, _decode_toc(toc, spans[:-1])


def open_segment(cipher: ObjectCipher, segment: Segment, sealed: memoryview) -> bytes:
    """Decrypt and decompress one segment; raise `Damaged`."""
    data = cipher.open(sealed, segment.frame_number, last=False)
    return decode_segment(data, segment.method)


@overload
def decode_segment(data: bytes, method: int) -> bytes: ...
@overload
def decode_segment(data: memoryview, method: int) -> bytes | memoryview: ...
def decode_segment(data: bytes | memoryview, method: int) -> bytes | memoryview:
    """Undo the compression of a segment, within its size limit; raise `Damaged`."""
    if method == Method.RAW:
        return data
    if method != Method.ZSTD:
        raise Damaged(f"A segment is kept in an unknown way ({method}).")
    try:
        if zstandard.frame_content_size(data) > MAX_SEGMENT_BYTES:
            raise Damaged("A segment claims more than the largest allowed size.")
        return _OWN.decompressor.decompress(data, max_output_size=MAX_SEGMENT_BYTES)
    except zstandard.ZstdError as error:
        raise Damaged(f"A segment does not decompress: {error}.") from error


def check_segment(keys: RepositoryKeys, segment: Segment, plain: bytes | memoryview) -> None:
    """Compare the id of every chunk with its bytes; raise `Damaged`."""
    if len(plain) != segment.plain_size:
        raise Damaged("A segment has another size than its pack says.")
    view = memoryview(plain)
    for chunk in segment.chunks:
        if keys.chunk_id(chunk.kind, view[chunk.offset : chunk.offset + chunk.length]) != chunk.id:
            raise Damaged(f"Chunk {chunk.id.hex()[:16]} is not what its name says.")


def _encode_toc(segments: Sequence[Segment]) -> bytes:
    rows = bytearray()
    for segment in segments:
        rows += _SEGMENT.pack(segment.method, segment.plain_size, len(segment.chunks))
        for chunk in segment.chunks:
            rows += _CHUNK.pack(*chunk)
    return len(rows).to_bytes(LENGTH_BYTES, "big") + bytes(rows)


def _decode_toc(toc: bytes, spans: Sequence[tuple[int, int]]) -> list[Segment]:
    end = LENGTH_BYTES + int.from_bytes(toc[:LENGTH_BYTES], "big")
    at = LENGTH_BYTES
    segments: list[Segment] = []
    for number, (offset, size) in enumerate(spans):
        if at + _SEGMENT.size > end or end > len(toc):
            raise Damaged("A pack's table of contents is cut short.")
        method, plain_size, count = _SEGMENT.unpack_from(toc, at)
        start = at + _SEGMENT.size
        stop = start + _CHUNK.size * count
        if stop > end:
            raise Damaged("A pack's table of contents is cut short.")
        segments.append(Segment(method, plain_size, offset, size, number, _decode_chunks(toc[start:stop])))
        at = stop
    if at != end:
        raise Damaged("A pack's table of contents names segments that are not there.")
    return segments


def _decode_chunks(rows: bytes) -> tuple[ChunkSpan, ...]:
    try:
        return tuple(
            ChunkSpan(_KINDS[kind], chunk_id, offset, length)
            for kind, chunk_id, offset, length in _CHUNK.iter_unpack(rows)
        )
    except KeyError as error:
        raise Damaged(f"A chunk is of an unknown kind ({error}).") from error
