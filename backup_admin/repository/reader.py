"""Reading chunks back, each compared with its name before anybody sees it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from backup_admin.core.direct_io import BLOCK_BYTES, DIRECT_BYTES, aligned, aligned_buffer
from backup_admin.core.errors import Damaged, ObjectMissing
from backup_admin.repository.objects import LENGTH_BYTES, TAG_BYTES, ObjectCipher, ObjectType, check_header
from backup_admin.repository.packs import LOGICAL_NAME, Method, decode_segment, pack_name
from backup_admin.repository.read_ahead import Held, ReadAhead
from backup_admin.repository.types import MAX_SEGMENT_BYTES, ChunkKind, ChunkRef
from backup_admin.storage.base import Storage, get_into, parallel_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from backup_admin.repository.index import Index, Location
    from backup_admin.repository.keys import RepositoryKeys

_SEGMENTS = 8
_AHEAD = 512 << 10
_FAR_AHEAD = 4 << 20
_SPARES = 3
_FAR_SPARES = 2  # what is read ahead needs the memory more
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
        self._segments: OrderedDict[tuple[bytes, int], bytes | memoryview] = OrderedDict()
        self._ciphers: OrderedDict[bytes, ObjectCipher] = OrderedDict()
        self._lock = threading.Lock()
        self._later = later
        self._later_lock = threading.Lock()
        self._local = threading.local()
        calls = parallel_calls(storage)
        self._ahead = ReadAhead(storage, calls) if calls > 1 else None
        self._told: dict[bytes, Location] = {}
        self._ahead_bytes = _AHEAD if self._ahead is None else _FAR_AHEAD
        self.bytes_read = 0

    @property
    def reads_ahead(self) -> bool:
        """Say whether it helps to tell of chunks before they are read."""
        return self._ahead is not None

    def expect(self, refs: Iterable[ChunkRef], *, at_once: bool = False) -> None:
        """Tell of chunks that will be read, in this order; a chunk that will not be holds memory.

        What lies close together is read together, unless it shall be read at once.
        """
        if self._ahead is None:
            return
        for ref in refs:
            with suppress(Damaged):  # who reads it is told
                location = next(self._index.locations(ref.id), None)
                if location is not None:
                    self._told[ref.id] = location
                    self._ahead.expect(location, at_once=at_once)

    def expect_no_more(self) -> None:
        """Tell that all was told that will be read for a while."""
        if self._ahead is not None:
            self._ahead.expect_no_more()

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
        if self._told and (told := self._told.pop(ref.id, None)) is not None:
            with suppress(Damaged):
                return self._read_at(told, kind, ref)
        for location in index.locations(ref.id):
            try:
                return self._read_at(location, kind, ref)
            except Damaged as error:
                failure = failure or error
        raise failure or Damaged(f"Chunk {ref.id.hex()[:16]} is in no pack the index knows.")

    def _read_at(self, location: Location, kind: ChunkKind, ref: ChunkRef) -> memoryview:
        if location.method == Method.RAW and location.length == location.frame_length - TAG_BYTES:
            data = self._open_alone(location)
        else:
            segment = self._segment(location)
            data = memoryview(segment)[location.offset : location.offset + location.length]
        if len(data) != ref.size or self._keys.chunk_id(kind, data) != ref.id:
            raise Damaged(
                f"Chunk {ref.id.hex()[:16]} in {pack_name(location.pack.name)} is not what its name says."
            )
        if self._ahead is not None:
            self._ahead.done(location)
        return data

    def _open_alone(self, location: Location) -> memoryview:
        """Open a chunk that has a raw segment to itself, in memory that is used again when nobody looks."""
        with self._naming(location) as own:
            sealed = self._sealed(location, own)
            data = own.spare(location.length)
            self._cipher(location).open_into(sealed, location.frame_number, data, last=False)
            return data[location.offset :]

    def _segment(self, location: Location) -> bytes | memoryview:
        key = (location.pack.name, location.frame_number)
        with self._lock:
            found = self._segments.get(key)
            if found is not None:
                self._segments.move_to_end(key)
                return found
        with self._naming(location) as own:
            sealed = self._sealed(location, own)
            plain = self._cipher(location).open(sealed, location.frame_number, last=False)
            segment = decode_segment(plain, location.method)
        with self._lock:
            self._segments[key] = segment
            if len(self._segments) > _SEGMENTS:
                self._segments.popitem(last=False)
        return segment

    @contextmanager
    def _naming(self, location: Location) -> Iterator[_Memory]:
        """Give the memory of this thread; say of which pack it is when something is damaged."""
        own: _Memory | None = getattr(self._local, "memory", None)
        if own is None:
            own = self._local.memory = _Memory(_SPARES if self._ahead is None else _FAR_SPARES)
        try:
            yield own
        except ObjectMissing as error:
            name = pack_name(location.pack.name)
            raise Damaged(f"{name} is missing from {self._storage.label}.") from error
        except Damaged as error:
            name = pack_name(location.pack.name)
            raise Damaged(f"{name} in {self._storage.label} is damaged: {error}") from error
        finally:
            if self._ahead is not None and own.held is not None:
                self._ahead.release(own.held)
                own.held = None

    def _sealed(self, location: Location, own: _Memory) -> memoryview:
        """Return the bytes of a frame. Who reads a pack in order gets some in advance."""
        size, offset = location.frame_length, location.frame_offset
        if size < TAG_BYTES or size > MAX_SEGMENT_BYTES + 4096:
            raise Damaged("the index gives a frame of it an impossible length")
        if self._ahead is not None and (held := self._ahead.hold(location)) is not None:
            own.held = held
            self.bytes_read += size
            return held.view
        if own.pack != location.pack.name or not own.start <= offset or offset + size > own.end:
            goes_on = own.pack == location.pack.name and own.start < offset <= own.end + LENGTH_BYTES
            start, end = offset, offset + size
            if goes_on:
                end = max(end, min(offset + self._ahead_bytes, location.pack.size))
            if end - start >= DIRECT_BYTES:
                start, end = aligned(start, end)
            buffer = own.window(end - start)
            own.pack = b""
            count = get_into(self._storage, pack_name(location.pack.name), start, buffer)
            self.bytes_read += count
            if start + count < offset + size:
                raise Damaged("it is cut short")
            own.pack, own.start, own.end = location.pack.name, start, start + count
        return own.window(offset - own.start + size)[offset - own.start :]

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


class _Memory:
    """What one thread reads into, again and again: new memory is as dear as a digest of it."""

    def __init__(self, spares: int) -> None:
        self.pack = b""
        self.start = self.end = 0
        self._window = aligned_buffer(BLOCK_BYTES)
        self.held: Held | None = None
        self._spares: list[bytearray] = []
        self._most_spares = spares

    def window(self, size: int) -> memoryview:
        """Return the first bytes of the memory for sealed bytes, which are not kept when it grows."""
        if len(self._window) < size:
            self._window = aligned_buffer(size)
        return memoryview(self._window)[:size]

    def spare(self, size: int) -> memoryview:
        """Return memory that no view is on any more."""
        for number, buffer in enumerate(self._spares):
            if _is_free(buffer):
                if len(buffer) < size:
                    self._spares[number] = bytearray(size)
                return memoryview(self._spares[number])[:size]
        fresh = bytearray(size)
        if len(self._spares) < self._most_spares:
            self._spares.append(fresh)
        return memoryview(fresh)[:size]


def _is_free(buffer: bytearray) -> bool:
    """Say whether no view is on a buffer: only then Python lets it grow."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
