"""The list of chunks that a file is made of, and its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from backup_admin.repository.types import ChunkKind, ChunkRef, Content

if TYPE_CHECKING:
    from backup_admin.repository.reader import ChunkReader

ReadInto = Callable[[memoryview], int]
_REF_BYTES = 36


def iterate_content(reader: ChunkReader, content: Content) -> Iterator[memoryview]:
    """Yield the bytes of a file chunk by chunk, each checked."""
    return map(partial(reader.read, ChunkKind.DATA), content_refs(reader, content))


def content_refs(reader: ChunkReader, content: Content) -> Iterator[ChunkRef]:
    """Yield the chunks of a file in order."""
    if content.chunk_lists:
        return chain(_listed_refs(reader, content), content.chunks)
    return iter(content.chunks)


def _listed_refs(reader: ChunkReader, content: Content) -> Iterator[ChunkRef]:
    for part in content.chunk_lists:
        yield from decode_refs(bytes(reader.read(ChunkKind.MANIFEST, part)))


def encode_refs(refs: list[ChunkRef]) -> bytes:
    """Write a long list of chunks: id[32] || size u32be each."""
    return b"".join(ref.id + ref.size.to_bytes(4, "big") for ref in refs)


def decode_refs(data: bytes) -> Iterator[ChunkRef]:
    """Read what `encode_refs` wrote."""
    for at in range(0, len(data), _REF_BYTES):
        yield ChunkRef(data[at : at + 32], int.from_bytes(data[at + 32 : at + 36], "big"))


def decode_ids(data: bytes) -> Iterator[bytes]:
    """Read only the names from what `encode_refs` wrote."""
    for at in range(0, len(data), _REF_BYTES):
        yield data[at : at + 32]


def fill_buffer(read_into: ReadInto, view: memoryview) -> int:
    """Read until the buffer is full or the stream ends; return the bytes read."""
    filled = 0
    while filled < len(view):
        count = read_into(view[filled:])
        if count == 0:
            break
        filled += count
    return filled
