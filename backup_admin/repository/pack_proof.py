"""Proving packs: what the storage returns is read whole, opened, and every chunk named again."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from blake3 import blake3

from backup_admin.core.direct_io import aligned_buffer
from backup_admin.core.errors import (
    BackupAdminError,
    Damaged,
    ObjectMissing,
    StorageError,
    StorageUnavailable,
    VerificationFailed,
)
from backup_admin.repository.objects import TAG_BYTES, ObjectCipher
from backup_admin.repository.packs import (
    Segment,
    check_segment,
    decode_segment,
    pack_digest,
    pack_name,
    read_pack,
)
from backup_admin.repository.types import MAX_SEGMENT_BYTES
from backup_admin.storage.base import Storage, get_into

if TYPE_CHECKING:
    from mmap import mmap

    from backup_admin.repository.index import PackInfo
    from backup_admin.repository.keys import RepositoryKeys

_STOP = None
_SPOILT_EVERY = 512


class PackProver:
    """Proves packs one after the other in the same memory, or in that of the caller.

    For one thread alone, or for several that give memory: they read at once and check in turn.
    """

    def __init__(self, storage: Storage, keys: RepositoryKeys) -> None:
        self._storage = storage
        self._keys = keys
        self._pack: mmap | None = None
        self._plain = memoryview(bytearray(MAX_SEGMENT_BYTES))
        self._checking = threading.Lock()
        self.packs_read = 0
        self.bytes_read = 0

    def prove(self, pack: PackInfo, memory: bytearray | mmap | None = None) -> None:
        """Compare name, seals and the id of every chunk of a pack with what the storage holds.

        What the memory held is lost. Raises `Damaged`, `ObjectMissing` or another `StorageError`.
        """
        data = self._read(pack, self._own_memory(pack) if memory is None else memory)
        try:
            with self._checking:
                self.packs_read += 1
                self.bytes_read += len(data)
                digest = self._check_segments(data)
        except BackupAdminError:  # a damaged header may look like one of a newer version
            digest = pack_digest(data)
            if digest == pack.name:
                raise
        if digest != pack.name:
            raise Damaged("its name does not fit its bytes")

    def _check_segments(self, data: memoryview) -> bytes:
        """Check every chunk; return the digest of the pack, made while each segment is in the processor."""
        hasher = blake3()
        hashed = 0
        cipher, segments = read_pack(self._keys, data)
        for segment in segments:
            end = segment.frame_offset + segment.frame_length
            hasher.update(data[hashed:end])
            hashed = end
            sealed = data[segment.frame_offset : end]
            check_segment(self._keys, segment, self._open(cipher, segment, sealed))
        hasher.update(data[hashed:])
        return hasher.digest()

    def _own_memory(self, pack: PackInfo) -> mmap:
        if self._pack is None or len(self._pack) < pack.size:
            self._pack = aligned_buffer(pack.size)
        return self._pack

    def _read(self, pack: PackInfo, memory: bytearray | mmap) -> memoryview:
        view = memoryview(memory)[: pack.size]
        # What is not read must not look as if it were: the memory may hold what was sent.
        view[::_SPOILT_EVERY] = bytes(len(range(0, pack.size, _SPOILT_EVERY)))
        count = get_into(self._storage, pack_name(pack.name), 0, view)
        if count != pack.size:
            raise Damaged(f"it has {count} bytes instead of {pack.size}")
        return view

    def _open(self, cipher: ObjectCipher, segment: Segment, sealed: memoryview) -> bytes | memoryview:
        size = len(sealed) - TAG_BYTES
        if size > len(self._plain):
            raise Damaged("A segment is larger than the largest allowed size.")
        plain = self._plain[:size]
        cipher.open_into(sealed, segment.frame_number, plain, last=False)
        return decode_segment(plain, segment.method)


class Proof:
    """Proves packs as soon as they are stored: in a thread of its own, or in those that stored them."""

    def __init__(self, storage: Storage, keys: RepositoryKeys) -> None:
        self._prover = PackProver(storage, keys)
        self._waiting: queue.SimpleQueue[PackInfo | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = False
        self.failure: BackupAdminError | None = None

    @property
    def packs_read(self) -> int:
        """Return how many packs were read."""
        return self._prover.packs_read

    @property
    def bytes_read(self) -> int:
        """Return how many bytes of packs were read."""
        return self._prover.bytes_read

    def prove(self, pack: PackInfo, memory: bytearray | mmap) -> None:
        """Prove a pack now, in the memory of the caller; `failure` says what came out."""
        if self.failure is None and not self._given_up:
            self.failure = self._prove(pack, memory) or self.failure

    def add(self, pack: PackInfo) -> None:
        """Prove one more pack, some time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._prove_all, name="pack-prover", daemon=True)
            self._thread.start()
        self._waiting.put(pack)

    def finish(self) -> None:
        """Wait until every pack was read; `failure` says what came out."""
        if self._thread is not None:
            self._waiting.put(_STOP)
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop after the pack that is being read."""
        self._given_up = True
        self.finish()

    def _prove_all(self) -> None:
        while (pack := self._waiting.get()) is not _STOP:
            if self.failure is None and not self._given_up:
                self.failure = self._prove(pack)

    def _prove(self, pack: PackInfo, memory: bytearray | mmap | None = None) -> BackupAdminError | None:
        name = pack_name(pack.name)
        try:
            self._prover.prove(pack, memory)
        except ObjectMissing:
            return _failure(f"{name} is missing from the storage.")
        except StorageUnavailable as error:
            return StorageUnavailable(
                f"What was stored could not be read back: {error} No snapshot was made and earlier ones were "
                "not touched. Run the backup again when the storage is there: it takes over what is stored."
            )
        except BackupAdminError as error:
            return _failure(f"{name} is damaged: {error}")
        except Exception as error:  # noqa: BLE001
            # handed to the thread that waits, which raises it
            failure = StorageError(f"Reading {name} back failed: {error}.")
            failure.__cause__ = error
            return failure
        return None


def _failure(message: str) -> VerificationFailed:
    return VerificationFailed(
        f"What was stored cannot be read back: {message} No snapshot was made and earlier "
        "ones were not touched. Check the storage, then run the backup again."
    )
