"""Cutting content into chunks and storing them.

Small files are one chunk. Larger ones are cut where their content says
(FastCDC): into pieces of about 1 MiB when they do not compress, of about 32 KiB
when they do, so that a change in the middle leaves the rest as it was.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import zstandard
from pyfastcdc import FastCDC

from backup_admin.repository.content import encode_refs, fill_buffer
from backup_admin.repository.types import ChunkKind, ChunkRef, Content

if TYPE_CHECKING:
    from backup_admin.repository.config import ContentDefined, Parameters
    from backup_admin.repository.content import ReadInto
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.store import ChunkWriter

WINDOW_BYTES = 8 << 20
_SAMPLE = 16 << 10
_RATIO = 0.94
_INLINE_CHUNKS = 64
_LIST_CHUNKS = 8192


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        # Below 1 there is no Huffman coding, and digits of hex, which it halves, look like noise.
        self.sampler = zstandard.ZstdCompressor(level=1)


_OWN = _Own()

_MEDIA = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n",
    b"GIF8",
    b"PK\x03\x04",  # zip, office documents
    b"\x1f\x8b",  # gzip
    b"\x28\xb5\x2f\xfd",  # zstd
    b"BZh",
    b"\xfd7zXZ",
    b"7z\xbc\xaf",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"wOF2",
)


class ContentWriter:
    """Stores the content of files; one for each worker thread, with its own buffer."""

    def __init__(self, writer: ChunkWriter, keys: RepositoryKeys, parameters: Parameters) -> None:
        self.chunks = writer
        self._parameters = parameters
        self._window = bytearray(WINDOW_BYTES)
        self._seed = keys.cdc_seed()
        self._cutters: dict[ContentDefined, FastCDC] = {}

    def write(self, read_into: ReadInto) -> Content:
        """Read a stream to its end, store it, and describe it.

        The digest is that of exactly the bytes that were stored.
        """
        view = memoryview(self._window)
        filled = fill_buffer(read_into, view)
        compress = is_compressible(view[:filled])
        digest = hashlib.sha256(view[:filled])
        if filled <= self._parameters.whole_file:
            chunks = [self.chunks.put(ChunkKind.DATA, view[:filled], compress=compress)] if filled else []
            return Content(filled, digest.hexdigest(), tuple(chunks))
        return self._write_large(read_into, filled, digest, compress=compress)

    def put_part(self, data: bytes) -> ChunkRef:
        """Store a part of the manifest."""
        return self.chunks.put(ChunkKind.MANIFEST, data, compress=True)

    def _write_large(
        self, read_into: ReadInto, filled: int, digest: hashlib._Hash, *, compress: bool
    ) -> Content:
        cutter = self._cutter(self._parameters.stream if compress else self._parameters.media)
        lists: list[ChunkRef] = []
        chunks: list[ChunkRef] = []
        size = filled
        view = memoryview(self._window)
        while filled:
            at_end = filled < len(view)
            used = self._cut(cutter, view[:filled], chunks, at_end=at_end, compress=compress)
            rest = filled - used
            view[:rest] = view[used:filled]
            added = 0 if at_end else fill_buffer(read_into, view[rest:])
            digest.update(view[rest : rest + added])
            size += added
            filled = rest + added
            if at_end:
                break
            while len(chunks) >= _LIST_CHUNKS:
                lists.append(self.put_part(encode_refs(chunks[:_LIST_CHUNKS])))
                del chunks[:_LIST_CHUNKS]
        if lists or len(chunks) > _INLINE_CHUNKS:
            lists.append(self.put_part(encode_refs(chunks)))
            chunks = []
        return Content(size, digest.hexdigest(), tuple(chunks), tuple(lists))

    def _cut(
        self, cutter: FastCDC, data: memoryview, chunks: list[ChunkRef], *, at_end: bool, compress: bool
    ) -> int:
        pieces = list(cutter.cut_buf(data))
        if not at_end and len(pieces) > 1:
            pieces.pop()  # its end may move with what follows
        for piece in pieces:
            part = data[piece.offset : piece.offset + piece.length]
            chunks.append(self.chunks.put(ChunkKind.DATA, part, compress=compress))
        return pieces[-1].offset + pieces[-1].length

    def _cutter(self, sizes: ContentDefined) -> FastCDC:
        cutter = self._cutters.get(sizes)
        if cutter is None:
            cutter = FastCDC(
                sizes.average,
                min_size=sizes.minimum,
                max_size=sizes.maximum,
                normalized_chunking=2,
                seed=self._seed,
            )
            self._cutters[sizes] = cutter
        return cutter


def is_compressible(head: memoryview) -> bool:
    """Guess from the first bytes, or by trying a sample, whether compression pays."""
    start = bytes(head[:12])
    if start.startswith(_MEDIA) or start[4:8] == b"ftyp" or (start[:4] == b"RIFF" and start[8:12] != b"WAVE"):
        return False
    if len(head) < _SAMPLE:
        return True
    middle = len(head) // 2
    sample = head[middle - _SAMPLE // 2 : middle + _SAMPLE // 2]
    return len(_OWN.sampler.compress(sample)) <= _RATIO * len(sample)
