"""A repository is made once, in an empty place, and opens only as what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import (
    BackupAdminError,
    Damaged,
    NewerVersion,
    NotARepository,
    RepositoryExists,
    StorageError,
    StorageNotEmpty,
    UsageError,
    WrongKey,
)
from backup_admin.operations.key_slots import NewSlot, add_secret
from backup_admin.repository.config import Config, Parameters, read_config, seal_config
from backup_admin.repository.creation import create_repository
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import RepositorySecret, SecretKind
from backup_admin.storage.memory import MemoryStorage
from tests.factories import OTHER_SECRET, SECRET, SMALL, make_keys, make_storage, open_test_repository
from tests.fakes import Act, Fault, FaultyStorage, SteppingClock

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

CLOCK = SteppingClock()


def opened(storage: Storage) -> object:
    return open_repository(storage, SECRET, state=None, clock=CLOCK)


def replaced(storage: Storage, config: bytes) -> Storage:
    storage.put("config", config, if_absent=False)
    return storage


def contents(storage: Storage) -> dict[str, bytes]:
    return {info.name: storage.get(info.name) for info in storage.list_objects("")}


def test_each_of_the_secrets_opens_it(tmp_path: Path) -> None:
    storage = MemoryStorage()
    made = create_repository(
        storage, [(SECRET, "app"), (OTHER_SECRET, "recovery")], clock=CLOCK, parameters=SMALL
    )

    repositories = [
        open_repository(storage, secret, state=None, clock=CLOCK) for secret in (SECRET, OTHER_SECRET)
    ]

    assert {repository.repo_id for repository in repositories} == {made.repo_id}
    assert {slot.id for slot in repositories[0].slots()} == set(made.slots)
    assert repositories[0].config.parameters == SMALL
    assert repositories[0].snapshot_ids() == ()


def test_opening_writes_nothing(tmp_path: Path) -> None:
    storage = FaultyStorage(make_storage())

    open_test_repository(storage, tmp_path).index()

    assert set(storage.counts()) <= {"get", "list", "stat"}


def test_a_slot_that_is_added_opens_it() -> None:
    storage = make_storage()
    repository = open_repository(storage, SECRET, state=None, clock=CLOCK)

    add_secret(repository, NewSlot(OTHER_SECRET, "recovery"), actor="tests", clock=CLOCK)

    assert open_repository(storage, OTHER_SECRET, state=None, clock=CLOCK).repo_id == repository.repo_id


def test_a_place_that_holds_a_repository_is_not_touched() -> None:
    storage = make_storage()
    before = contents(storage)

    with pytest.raises(RepositoryExists):
        make_storage(storage)

    assert contents(storage) == before


@pytest.mark.parametrize("name", ["readme", "packs/ab", "keys/0011223344556677"])
def test_a_place_that_holds_other_things_is_not_touched(name: str) -> None:
    storage = MemoryStorage()
    storage.put(name, b"somebody's")

    with pytest.raises(StorageNotEmpty):
        make_storage(storage)

    assert contents(storage) == {name: b"somebody's"}


def test_a_repository_needs_a_key() -> None:
    with pytest.raises(UsageError):
        create_repository(MemoryStorage(), [], clock=CLOCK)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("act", [Act.FAIL, Act.LOSE_REPLY])
def test_what_an_interrupted_start_left_is_cleared_by_the_next(number: int, act: Act) -> None:
    inner = MemoryStorage()
    faulty = FaultyStorage(inner, (Fault("put", number, act),))
    with pytest.raises(StorageError):
        make_storage(faulty)

    if inner.stat("config") is None:
        make_storage(inner)

    opened(inner)
    assert len(list(inner.list_objects("keys/"))) == 1


def test_of_two_who_make_one_at_once_one_wins_and_the_other_leaves_nothing() -> None:
    inner = MemoryStorage()
    faulty = FaultyStorage(inner)

    def intrude(method: str, name: str) -> None:
        if (method, name) == ("put", "config") and inner.stat("config") is None:
            other = MemoryStorage()
            create_repository(other, [(SECRET, "winner")], clock=CLOCK)
            for info in other.list_objects(""):
                inner.put(info.name, other.get(info.name))

    faulty.before = intrude
    with pytest.raises(RepositoryExists, match="just now"):
        make_storage(faulty)

    assert [slot.label for slot in open_repository(inner, SECRET, state=None, clock=CLOCK).slots()] == [
        "winner"
    ]


def test_a_storage_without_its_marker_is_no_repository() -> None:
    storage = make_storage()
    storage.delete("config")

    with pytest.raises(NotARepository, match="right disk"):
        opened(storage)


def test_every_flipped_bit_of_the_configuration_is_noticed() -> None:
    storage = make_storage()
    config = storage.get("config")
    passed = []
    for bit in range(len(config) * 8):
        changed = bytearray(config)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            opened(replaced(storage, bytes(changed)))
            passed.append(bit)
        except (Damaged, NewerVersion, WrongKey):
            pass

    assert passed == []


@pytest.mark.parametrize(
    "config",
    [b"", b"{}", b"[]", b"null", b'{"config":[]}', b'{"config":{"features":[],"format":1}}', b"\xff"],
)
def test_a_configuration_that_makes_no_sense_is_damaged(config: bytes) -> None:
    with pytest.raises(Damaged):
        opened(replaced(make_storage(), config))


def test_a_configuration_written_with_spaces_is_refused() -> None:
    storage = make_storage()
    spaced = storage.get("config").replace(b",", b", ", 1)

    with pytest.raises(Damaged, match="seal"):
        opened(replaced(storage, spaced))


@pytest.mark.parametrize(
    "changes", [{"format": 2}, {"features": ["sealed"]}, {"parameters": {"chunker": "fastcdc-2030"}}]
)
def test_a_repository_of_a_newer_version_is_told_and_not_written(changes: dict[str, Any]) -> None:
    storage = make_storage()
    value = load_strict(storage.get("config"))
    value["config"].update(changes)
    before = contents(replaced(storage, dump_canonical(value)))

    with pytest.raises(NewerVersion, match="nothing was written"):
        opened(storage)

    assert contents(storage) == before


def test_the_configuration_of_another_repository_does_not_fit() -> None:
    storage, other = make_storage(), make_storage()

    with pytest.raises(BackupAdminError) as caught:
        opened(replaced(storage, other.get("config")))

    assert isinstance(caught.value, WrongKey)


def test_the_configuration_is_read_back_as_it_was_sealed() -> None:
    keys = make_keys()
    config = Config(keys.repo_id, "2026-01-01T00:00:00.000000Z", Parameters())
    storage = MemoryStorage()
    storage.put("config", seal_config(config, keys))

    assert read_config(storage)[0] == config


def test_an_application_key_of_another_repository_is_the_wrong_one() -> None:
    with pytest.raises(WrongKey):
        open_repository(make_storage(), RepositorySecret(SecretKind.RAW, b"x" * 32), state=None, clock=CLOCK)
