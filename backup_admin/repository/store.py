"""Storing chunks: each worker thread fills a pack of its own, one thread uploads, one reads back.

No lock is taken in the hot loop: `dict.setdefault` reserves a chunk id, so two
threads never store the same chunk twice. Buffers come from a small pool, so that
memory does not grow with the data.

Where the storage is far away, what counts is how many packs are under way, and where packs are
large, how many there are. In both cases all workers fill one pack, several threads upload, and
each reads back what it stored into the memory it was sent from.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.core.direct_io import aligned_buffer
from backup_admin.core.errors import BackupAdminError, StorageError
from backup_admin.repository.index import RECORD_BYTES, Index, PackInfo, seal_index
from backup_admin.repository.objects import FRAME_OVERHEAD
from backup_admin.repository.pack_proof import Proof
from backup_admin.repository.packs import ChunkSpan, PackBuilder, Segment, index_records, pack_name
from backup_admin.repository.types import MAX_SEGMENT_BYTES, ChunkKind, ChunkRef
from backup_admin.storage.base import PutResult, Storage, parallel_calls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from mmap import mmap

    from backup_admin.repository.config import Parameters
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.pending import PendingPacks

_SMALL = 256 << 10
_INDEX_RECORDS = 65_536
_STOP = None
_LARGE_PACK = 32 << 20
_LARGE_PACKS_HELD = 1
_FAR_PACKS_HELD = 3


class ChunkStore:
    """All that one run adds to a repository before it commits."""

    def __init__(
        self,
        storage: Storage,
        keys: RepositoryKeys,
        parameters: Parameters,
        index: Index,
        pending: PendingPacks,
        *,
        threads: int = 2,
    ) -> None:
        self._storage = storage
        self._pending = pending
        self.base = 0  # number of the newest chain entry that the index knows of
        self._keys = keys
        self.parameters = parameters
        self._index = index
        self._claimed: dict[bytes, object] = {}
        self._buffer_bytes = (
            parameters.pack + MAX_SEGMENT_BYTES + parameters.pack_padding + 64 * FRAME_OVERHEAD
        )
        is_large, is_far = parameters.pack > _LARGE_PACK, parallel_calls(storage) > 1
        held = _LARGE_PACKS_HELD if is_large else _FAR_PACKS_HELD if is_far else threads + 1
        self._buffers: queue.SimpleQueue[bytearray | mmap | None] = queue.SimpleQueue()
        for _ in range(held):
            self._buffers.put(None)
        self._shared = _Filling(self) if is_large or is_far else None
        self._upload_threads = 1 if self._shared is None else held
        self._full: queue.Queue[PackBuilder | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._writers: list[ChunkWriter] = []
        self._packs: list[PackInfo] = []
        self._records = bytearray()
        self._uploaders: list[threading.Thread] = []
        self._listing = threading.Lock()
        self.proof = Proof(storage, keys)
        self.new_packs: list[PackInfo] = []
        self.new_indexes: list[str] = []
        self.stored_bytes = 0

    def writer(self) -> ChunkWriter:
        """Return a writer for the calling thread alone."""
        writer = ChunkWriter(self, self._keys, self._shared or _Filling(self))
        self._writers.append(writer)
        return writer

    def adopt(self, packs: Iterable[tuple[PackInfo, list[Segment]]]) -> None:
        """Take over packs that an earlier run left behind. Call before anything is stored."""
        for info, segments in packs:
            self.proof.add(info)
            self._list_pack(info, segments)
        self._flush_index()

    def forget_pending(self) -> None:
        """Drop the notes about packs, once the chain names them."""
        self._pending.clear()

    def claim(self, chunk_id: bytes) -> bool:
        """Reserve a chunk; False when it is stored already or by another thread."""
        if chunk_id in self._claimed or self._index.has(chunk_id):
            return False
        token = object()
        return self._claimed.setdefault(chunk_id, token) is token

    def take_builder(self) -> PackBuilder:
        """Return an empty pack; waits while all buffers are being uploaded."""
        self.raise_failure()
        while True:
            with suppress(queue.Empty):
                buffer = self._buffers.get(timeout=1)
                return PackBuilder(
                    self._keys, aligned_buffer(self._buffer_bytes) if buffer is None else buffer
                )
            self.raise_failure()

    def upload(self, builder: PackBuilder) -> None:
        """Hand a full pack to a thread that uploads."""
        if len(self._uploaders) < self._upload_threads:
            thread = threading.Thread(target=self._upload_all, name="pack-uploader", daemon=True)
            self._uploaders.append(thread)
            thread.start()
        while True:
            self.raise_failure()
            with suppress(queue.Full):
                self._full.put(builder, timeout=1)
                return

    def finish(self) -> None:
        """Store what is left in all writers, prove all packs, store the index. Call from one thread."""
        for writer in self._writers:
            writer.close_segment()
        for writer in self._writers:
            writer.flush()
        self._stop_uploaders()
        self.raise_failure()
        self.proof.finish()
        self.raise_failure()
        self._flush_index()

    def close(self) -> None:
        """Stop the threads; what was not stored is lost."""
        self._stop_uploaders()
        self.proof.close()
        # Each knows the store: the circle would hold the index and its files.
        self._writers.clear()
        self._shared = None

    def raise_failure(self) -> None:
        """Raise what went wrong in the threads that upload and prove."""
        failure = self._failure or self.proof.failure
        if failure is not None:
            raise failure

    def _stop_uploaders(self) -> None:
        for _ in self._uploaders:
            # Whichever takes it stops; one that failed takes none.
            while any(uploader.is_alive() for uploader in self._uploaders):
                with suppress(queue.Full):
                    self._full.put(_STOP, timeout=0.2)
                    break
        for uploader in self._uploaders:
            uploader.join()
        self._uploaders.clear()

    def _upload_all(self) -> None:
        try:
            while (builder := self._full.get()) is not _STOP:
                self._store(builder)
        except BackupAdminError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001
            # handed to the thread that waits, which raises it
            failure = StorageError(f"Storing a pack failed: {error}.")
            failure.__cause__ = error
            self._failure = failure

    def _store(self, builder: PackBuilder) -> None:
        data, info = builder.finish(self.parameters.pack_padding)
        self._pending.note(info.name)
        put_object(self._storage, pack_name(info.name), data)
        segments, buffer = builder.segments, builder.release()
        if self._shared is None:
            self.proof.add(info)
        else:
            self.proof.prove(info, buffer)
        self._buffers.put(buffer)
        with self._listing:
            self.stored_bytes += info.size
            self._list_pack(info, segments)

    def _list_pack(self, info: PackInfo, segments: list[Segment]) -> None:
        self.new_packs.append(info)
        self._packs.append(info)
        self._records += b"".join(index_records(len(self._packs) - 1, segments))
        if len(self._records) >= _INDEX_RECORDS * RECORD_BYTES:
            self._flush_index()

    def _flush_index(self) -> None:
        if not self._packs:
            return
        records = sorted(
            bytes(self._records[at : at + RECORD_BYTES]) for at in range(0, len(self._records), RECORD_BYTES)
        )
        name, data = seal_index(self._keys, self._packs, records)
        put_object(self._storage, name, data)
        self._index.add(name, data)
        self.new_indexes.append(name)
        self.stored_bytes += len(data)
        for record in records:
            self._claimed.pop(record[:32], None)
        self._packs, self._records = [], bytearray()


class _Filling:
    """The pack that is being filled, by one writer or by all."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._limit = store.parameters.pack
        self._lock = threading.Lock()
        self._builder: PackBuilder | None = None

    def add(self, data: bytes | bytearray | memoryview, spans: list[ChunkSpan], level: int) -> None:
        """Add a segment; hands the pack over first when there is no room."""
        with self._lock:
            if self._builder is None:
                self._builder = self._store.take_builder()
            if not self._builder.has_room(len(data), len(spans), self._limit):
                self._store.upload(self._builder)
                self._builder = None  # it is not ours any more, also when no other comes
                self._builder = self._store.take_builder()
            self._builder.add(data, spans, level=level)

    def flush(self) -> None:
        """Hand the pack over, however little is in it."""
        with self._lock:
            if self._builder is not None and self._builder.segments:
                self._store.upload(self._builder)
            self._builder = None


class ChunkWriter:
    """Cuts nothing, stores chunks: small compressible ones gathered in segments."""

    def __init__(self, store: ChunkStore, keys: RepositoryKeys, filling: _Filling) -> None:
        self._store = store
        self._keys = keys
        self._segment_limit = store.parameters.segment
        self._level = store.parameters.compression_level
        self._segment = bytearray(self._segment_limit + _SMALL)
        self._segment_size = 0
        self._spans: list[ChunkSpan] = []
        self._filling = filling

    def put(self, kind: ChunkKind, data: bytes | bytearray | memoryview, *, compress: bool) -> ChunkRef:
        """Store a chunk unless it is known, and return its name."""
        size = len(data)
        chunk_id = self._keys.chunk_id(kind, data)
        ref = ChunkRef(chunk_id, size)
        if not self._store.claim(chunk_id):
            return ref
        if not compress or size >= _SMALL:
            self._filling.add(data, [ChunkSpan(kind, chunk_id, 0, size)], self._level if compress else 0)
            return ref
        self._segment[self._segment_size : self._segment_size + size] = data
        self._spans.append(ChunkSpan(kind, chunk_id, self._segment_size, size))
        self._segment_size += size
        if self._segment_size >= self._segment_limit:
            self.close_segment()
        return ref

    def flush(self) -> None:
        """Hand over what is gathered, however little."""
        self.close_segment()
        self._filling.flush()

    def close_segment(self) -> None:
        """Put what is gathered into the pack, however little."""
        if self._spans:
            self._filling.add(memoryview(self._segment)[: self._segment_size], self._spans, self._level)
        self._segment_size, self._spans = 0, []


def put_object(storage: Storage, name: str, data: bytes | bytearray | memoryview) -> None:
    """Store an object under a name that follows from its bytes.

    A name that is taken holds the same bytes, or the storage is damaged there:
    that is read back and told.
    """
    if storage.put(name, data) is PutResult.EXISTS and storage.get(name) != bytes(data):
        raise StorageError(f"{name} in {storage.label} exists with other bytes; nothing was overwritten.")
