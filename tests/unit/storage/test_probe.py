"""A storage is tried before it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import StorageError
from backup_admin.core.state import StateFolder
from backup_admin.operations.marker import remake_config
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import generate_application_key, parse_application_key
from backup_admin.storage.base import PutResult
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.probe import probe_storage
from backup_admin.storage.turns import TakesTurns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.storage.base import Buffer, ObjectInfo


class Forgetful(MemoryStorage):
    """Says yes and keeps something else."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, offset, length)[:-1]


class Overwriting(MemoryStorage):
    """Ignores that a name is taken, as some S3 servers do."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return super().put(name, data, if_absent=False)


class Ignorant(Overwriting):
    """Looks before it puts and ignores the condition, as some S3 servers do."""

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        if if_absent and self.stat(name) is not None:
            return PutResult.EXISTS
        return super().put(name, data)

    def overwrites(self, name: str, data: Buffer) -> bool:
        return super().put(name, data) is PutResult.STORED


class Unlisted(MemoryStorage):
    """Lists nothing that was put."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(())


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
        (Unlisted(), "does not list"),
    ],
)
def test_a_storage_that_breaks_a_promise_is_refused(storage: MemoryStorage, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        probe_storage(storage, "1")


def test_no_repository_is_made_in_a_storage_that_overwrites() -> None:
    storage = Overwriting()
    key = parse_application_key(generate_application_key().reveal())

    with pytest.raises(StorageError, match="overwrites"):
        create_repository(storage, [(key, "")], clock=SystemClock())

    assert list(storage.list_objects("")) == []


def test_in_a_storage_that_ignores_conditions_writers_take_turns() -> None:
    storage = Ignorant()
    key = parse_application_key(generate_application_key().reveal())

    assert not probe_storage(storage, "1").keeps_names
    create_repository(storage, [(key, "")], clock=SystemClock())
    repository = open_repository(storage, key, state=None, clock=SystemClock())

    assert repository.is_single_writer
    assert isinstance(repository.storage, TakesTurns)
    assert probe_storage(MemoryStorage(), "1").keeps_names


def test_a_lost_configuration_is_made_again_with_its_turns(tmp_path: Path) -> None:
    storage, state = Ignorant(), StateFolder(tmp_path)
    key = parse_application_key(generate_application_key().reveal())
    create_repository(storage, [(key, "")], clock=SystemClock())
    before = open_repository(storage, key, state=state, clock=SystemClock())
    storage.delete("config")

    remake_config(storage, before.keys)

    assert open_repository(storage, key, state=state, clock=SystemClock()).is_single_writer


def test_what_a_killed_probe_left_is_cleared() -> None:
    storage = MemoryStorage()
    key = parse_application_key(generate_application_key().reveal())
    storage.put("probe-1", bytes(range(256)) * 16)

    create_repository(storage, [(key, "")], clock=SystemClock())

    assert list(storage.list_objects("probe-")) == []
