"""A storage in memory, for tests and rehearsals."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from backup_admin.core.errors import ObjectMissing
from backup_admin.storage.base import Buffer, ObjectInfo, PutResult, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator


class MemoryStorage:
    """Keeps objects in a dictionary; everything is gone with the process."""

    def __init__(self, label: str = "memory") -> None:
        self.label = label
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store an object."""
        check_name(name)
        fresh = bytes(data)
        with self._lock:
            if if_absent and name in self._objects:
                return PutResult.EXISTS
            self._objects[name] = fresh
        return PutResult.STORED

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object or a part of it."""
        data = self._find(name)
        return data[offset:] if length is None else data[offset : offset + length]

    def get_into(self, name: str, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill a buffer from an object."""
        part = self._find(name)[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def stat(self, name: str) -> ObjectInfo | None:
        """Return name and size, or None."""
        data = self._objects.get(check_name(name))
        return None if data is None else ObjectInfo(name, len(data))

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in order of name."""
        with self._lock:
            found = [ObjectInfo(name, len(data)) for name, data in self._objects.items()]
        yield from sorted(
            (info for info in found if info.name.startswith(prefix)), key=lambda info: info.name
        )

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._lock:
            self._objects.pop(check_name(name), None)

    def _find(self, name: str) -> bytes:
        data = self._objects.get(check_name(name))
        if data is None:
            raise ObjectMissing(f"{name} is not in {self.label}.")
        return data
