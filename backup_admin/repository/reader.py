"""Reading chunks back, each compared with its name before anybody sees it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, ObjectMissing
from backup_admin.repository.objects import TAG_BYTES, ObjectCipher, ObjectType, check_header
from backup_admin.repository.packs import LOGICAL_NAME, decode_segment, pack_name
from backup_admin.repository.types import MAX_SEGMENT_BYTES, ChunkKind, ChunkRef
from backup_admin.storage.base import Storage, get_into

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.repository.index import Index, Location
    from backup_admin.repository.keys import RepositoryKeys

_SEGMENTS = 8
_CIPHERS = 256


class ChunkReader:
    """Reads chunks; may be used from several threads.

    Keeps the last few decoded segments, since neighbours are usually wanted next. `later`
    gives a newer index when there is one: a prune may move chunks while they are read.
    """

    def __init__(
        self,
        storage: Storage,
        keys: RepositoryKeys,
        index: Index,
        later: Callable[[], Index | None] | None = None,
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._index = index
        self._segments: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._ciphers: OrderedDict[bytes, ObjectCipher] = OrderedDict()
        self._lock = threading.Lock()
        self._later = later
        self._later_lock = threading.Lock()
        self._local = threading.local()
        self.bytes_read = 0

    def read(self, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        """Return the plain bytes of a chunk; one that lies in several packs from any of them.

        Raises `Damaged` when it is missing or not what its name says.
        """
        index = self._index
        while True:
            try:
                return self._read_from(index, kind, ref)
            except Damaged:
                newer = self._newer_index(index)
                if newer is None:
                    raise
                index = newer

    def _newer_index(self, tried: Index) -> Index | None:
        """Return an index that another thread or process made since; None when there is none."""
        with self._later_lock:
            if self._index is tried:
                newer = None if self._later is None else self._later()
                if newer is None:
                    return None
                self._index = newer
            return self._index

    def _read_from(self, index: Index, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        failure: Damaged | None = None
        for location in index.locations(ref.id):
            try:
                return self._read_at(location, kind, ref)
            except Damaged as error:
                failure = failure or error
        raise failure or Damaged(f"Chunk {ref.id.hex()[:16]} is in no pack the index knows.")

    def _read_at(self, location: Location, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        segment = self._segment(location)
        data = memoryview(segment)[location.offset : location.offset + location.length]
        if len(data) != ref.size or self._keys.chunk_id(kind, data) != ref.id:
            raise Damaged(
                f"Chunk {ref.id.hex()[:16]} in {pack_name(location.pack.name)} is not what its name says."
            )
        return data

    def _segment(self, location: Location) -> bytes:
        key = (location.pack.name, location.frame_number)
        with self._lock:
            found = self._segments.get(key)
            if found is not None:
                self._segments.move_to_end(key)
                return found
        segment = self._decode(location)
        with self._lock:
            self._segments[key] = segment
            if len(self._segments) > _SEGMENTS:
                self._segments.popitem(last=False)
        return segment

    def _decode(self, location: Location) -> bytes:
        name = pack_name(location.pack.name)
        size = location.frame_length
        if size < TAG_BYTES or size > MAX_SEGMENT_BYTES + 4096:
            raise Damaged(f"The index gives a frame of {name} an impossible length.")
        buffer = self._buffer(size)
        try:
            count = get_into(self._storage, name, location.frame_offset, buffer)
            self.bytes_read += count
            if count != size:
                raise Damaged("it is cut short")
            cipher = self._cipher(location)
            plain = cipher.open(buffer, location.frame_number, last=False)
            return decode_segment(plain, location.method)
        except ObjectMissing as error:
            raise Damaged(f"{name} is missing from {self._storage.label}.") from error
        except Damaged as error:
            raise Damaged(f"{name} in {self._storage.label} is damaged: {error}") from error

    def _cipher(self, location: Location) -> ObjectCipher:
        with self._lock:
            cipher = self._ciphers.get(location.pack.name)
        if cipher is None:
            check_header(location.pack.header, ObjectType.PACK)
            cipher = ObjectCipher(self._keys, location.pack.header, LOGICAL_NAME)
            with self._lock:
                self._ciphers[location.pack.name] = cipher
                if len(self._ciphers) > _CIPHERS:
                    self._ciphers.popitem(last=False)
        return cipher

    def _buffer(self, size: int) -> memoryview:
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = bytearray(size)
            self._local.buffer = buffer
        return memoryview(buffer)[:size]
