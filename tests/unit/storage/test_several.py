"""Several objects are read at once where a storage is far away, and come in order everywhere."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import ObjectMissing, StorageError
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.several import begin, read_each
from tests.fakes import FarStorage, MeetingStorage

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage


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


def test_a_question_to_a_far_storage_is_under_way_before_its_answer_is_wanted() -> None:
    asked = threading.Event()

    def ask() -> str:
        asked.set()
        return "answer"

    answer = begin(FarStorage(MemoryStorage()), ask)

    assert asked.wait(20)
    assert answer() == "answer"


def test_a_question_that_fails_fails_for_who_wants_the_answer() -> None:
    def fail() -> None:
        raise StorageError("no")

    for storage in (MemoryStorage(), FarStorage(MemoryStorage())):
        with pytest.raises(StorageError, match="no"):
            begin(storage, fail)()
