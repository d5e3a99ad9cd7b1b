"""A storage is tried before it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import StorageError
from backup_admin.repository.creation import create_repository
from backup_admin.repository.secrets import generate_application_key, parse_application_key
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.probe import probe_for_one_writer, probe_storage

if TYPE_CHECKING:
    from backup_admin.storage.base import Buffer, PutResult


class Forgetful(MemoryStorage):
    """Says yes and keeps something else."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, offset, length)[:-1]


class Overwriting(MemoryStorage):
    """Ignores that a name is taken, as some S3 servers do."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return super().put(name, data, if_absent=False)


class WithoutParts(MemoryStorage):
    """Ignores the offset of a ranged read."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, 0, length)


class Keeping(MemoryStorage):
    """Does not delete."""

    def delete(self, name: str) -> None:
        """Keep the object."""


def test_a_sound_storage_is_left_as_it_was() -> None:
    storage = MemoryStorage()

    probe_storage(storage, "1")

    assert list(storage.list_objects("")) == []


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        (Forgetful(), "other bytes"),
        (Overwriting(), "overwrites"),
        (WithoutParts(), "wrong parts"),
        (Keeping(), "after it was deleted"),
    ],
)
def test_a_storage_that_breaks_a_promise_is_refused(storage: MemoryStorage, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        probe_storage(storage, "1")


def test_a_storage_that_overwrites_is_enough_for_one_writer() -> None:
    storage = Overwriting()

    probe_for_one_writer(storage, "1")

    assert list(storage.list_objects("")) == []


@pytest.mark.parametrize("storage", [Forgetful(), WithoutParts(), Keeping()])
def test_one_writer_needs_all_else_too(storage: MemoryStorage) -> None:
    with pytest.raises(StorageError):
        probe_for_one_writer(storage, "1")


def test_no_repository_is_made_in_a_storage_that_overwrites() -> None:
    storage = Overwriting()
    key = parse_application_key(generate_application_key().reveal())

    with pytest.raises(StorageError, match="overwrites"):
        create_repository(storage, [(key, "")], clock=SystemClock())

    assert list(storage.list_objects("")) == []


def test_what_a_killed_probe_left_is_cleared() -> None:
    storage = MemoryStorage()
    key = parse_application_key(generate_application_key().reveal())
    storage.put("probe-1", bytes(range(256)) * 16)

    create_repository(storage, [(key, "")], clock=SystemClock())

    assert list(storage.list_objects("probe-")) == []
