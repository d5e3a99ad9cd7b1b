"""Copying single objects from one storage to another: proven on the way, read back behind it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from backup_admin.core.errors import (
    ObjectMissing,
    RepositoryError,
    StorageError,
    StorageUnavailable,
)
from backup_admin.operations.object_kinds import PACKS, kind_of
from backup_admin.operations.workers import InOrder
from backup_admin.repository.packs import pack_digest, pack_name
from backup_admin.storage.base import ObjectInfo, PutResult, Storage, get_into

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backup_admin.core.progress import Reporter

_THREADS = 3


class OtherBytes(StorageError):
    """A name holds other bytes in one storage than in the other."""

    code = "other_bytes"


class Copier:
    """Copies objects and counts them. Holds one object for each thread, and no more.

    `problems` are sentences about what was not copied.
    """

    def __init__(self, source: Storage, target: Storage, reporter: Reporter, *, read_back: bool) -> None:
        self._source = source
        self._target = target
        self._reporter = reporter
        self._read_back = read_back
        self._lock = threading.Lock()
        self.objects = 0
        self.bytes = 0
        self.problems: list[str] = []

    def copy_all(self, objects: Iterable[ObjectInfo]) -> bool:
        """Copy objects in any order, some at a time; return False when one is not there any more."""
        rests = True

        def take(was_there: bool) -> None:
            nonlocal rests
            rests = rests and was_there

        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mirror")
        under_way = InOrder(take, limit=2 * _THREADS)
        try:
            for info in objects:
                under_way.add(pool.submit(self.copy, info))
            under_way.finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return rests

    def copy(self, info: ObjectInfo) -> bool:
        """Copy an object unless it is damaged; return False when it is not there any more."""
        self._reporter.check_cancelled()
        try:
            data = self._read(info)
        except ObjectMissing:
            return False
        if data is None:
            return True
        try:
            self._store(info.name, data)
        except OtherBytes as error:
            self._note(str(error))
            return True
        with self._lock:
            self.objects += 1
            self.bytes += len(data)
        self._reporter.advance(size=len(data), items=1)
        return True

    def _read(self, info: ObjectInfo) -> bytearray | None:
        """Return the bytes of an object; None when they are not what they must be."""
        data = bytearray(info.size)
        try:
            count = get_into(self._source, info.name, 0, data)
            del data[count:]
            kind = kind_of(info.name)
            if kind is not None:
                kind.prove(info.name, data)
        except (StorageUnavailable, ObjectMissing):
            raise
        except RepositoryError as error:
            self._note(f"{info.name} in {self._source.label} is damaged and was not copied: {error}")
            return None
        except StorageError as error:
            self._note(f"{info.name} in {self._source.label} cannot be read and was not copied: {error}")
            return None
        return data

    def _store(self, name: str, data: bytearray) -> None:
        if not PACKS.has(name):
            put_same(self._target, self._source.label, name, data)
            return
        # A pack is proven by its name, so another of this name is a damaged one.
        if self._target.put(name, data) is PutResult.EXISTS and not self._holds(name, len(data)):
            self._target.put(name, data, if_absent=False)
        if not self._holds(name, len(data)):
            raise StorageError(f"{self._target.label} gave back other bytes of {name} than were written.")

    def _holds(self, name: str, size: int) -> bool:
        if self._read_back:
            return pack_name(pack_digest(self._target.get(name))) == name
        found = self._target.stat(name)
        return found is not None and found.size == size

    def _note(self, problem: str) -> None:
        with self._lock:
            self.problems.append(problem)


def put_same(target: Storage, origin: str, name: str, data: bytes | bytearray) -> None:
    """Store an object and read it back whole.

    What is there and is the beginning of it was left by an interrupted call, and is replaced.
    Raises `OtherBytes` for anything else, which stays, and `StorageError`.
    """
    if target.put(name, data) is PutResult.EXISTS:
        there = target.get(name)
        if there == data:
            return
        if not data.startswith(there):
            raise OtherBytes(
                f"{name} has other bytes in {target.label} than in {origin}; neither was touched. "
                "`check` of each tells which one is good."
            )
        target.put(name, data, if_absent=False)
    if target.get(name) != data:
        raise StorageError(f"{target.label} gave back other bytes of {name} than were written.")
