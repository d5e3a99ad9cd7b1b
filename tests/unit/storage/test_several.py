"""Several objects are read at once where a storage is far away, and come in order everywhere."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import ObjectMissing
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.several import read_each

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage


class MeetingStorage(MemoryStorage):
    """Answers a call only when so many others are under way."""

    def __init__(self, parallel_calls: int) -> None:
        super().__init__()
        self.parallel_calls = parallel_calls
        self._together = threading.Barrier(parallel_calls, timeout=20)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._together.wait()
        return super().get(name, offset, length)


@pytest.mark.parametrize("storage", [MemoryStorage(), MeetingStorage(3)])
def test_objects_come_in_order_and_one_that_is_missing_is_told_in_its_place(storage: Storage) -> None:
    names = [f"a/{number}" for number in range(6)]
    for name in names:
        if name != "a/4":
            storage.put(name, name.encode())

    found = list(read_each(storage, names, 100))

    assert found[:4] == [b"a/0", b"a/1", b"a/2", b"a/3"]
    assert isinstance(found[4], ObjectMissing)
    assert found[5] == b"a/5"
