"""Making a repository in an empty place."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import Clock, format_time
from backup_admin.core.errors import (
    BadObjectName,
    RepositoryExists,
    StorageDenied,
    StorageNotEmpty,
    UsageError,
)
from backup_admin.core.ids import new_ulid
from backup_admin.repository import config as repository_config
from backup_admin.repository import slots
from backup_admin.repository.config import Config, Parameters
from backup_admin.repository.keys import RepositoryKeys, new_keyring, sha256
from backup_admin.storage import probe
from backup_admin.storage.base import CanBeMade, PutResult, Storage
from backup_admin.storage.turns import PREFIX as TURNS
from backup_admin.storage.turns import TakesTurns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.repository.secrets import RepositorySecret

_MOST_LEFT = 64  # a key that may not delete leaves one object at each look


@dataclass(frozen=True, slots=True)
class NewRepository:
    """What `create_repository` made, and whether the storage lets our key delete."""

    repo_id: str
    slots: tuple[str, ...]
    may_delete: bool


def create_repository(
    storage: Storage,
    secrets: Sequence[tuple[RepositorySecret, str]],
    *,
    clock: Clock,
    parameters: Parameters | None = None,
) -> NewRepository:
    """Make a repository that each of the secrets opens.

    The object `config` comes last and makes it real: what an interrupted call
    left is cleared by the next. The storage is tried out first. Raises
    `RepositoryExists`, `StorageNotEmpty` or `StorageError`.
    """
    if not secrets:
        raise UsageError("A repository needs at least one key.")
    _prepare_storage(storage)
    now = clock.now()
    probed = probe.probe_storage(storage, new_ulid(now))
    storage = storage if probed.keeps_names else TakesTurns(storage)
    repo_id = os.urandom(32)
    keyring = new_keyring()
    made = [slots.make_slot(secret, keyring, repo_id, label=label, now=now) for secret, label in secrets]
    for name, data in made:
        storage.put(name, data)
    digests = {name.removeprefix(slots.PREFIX): sha256(data).hex() for name, data in made}
    features = () if probed.keeps_names else (repository_config.SINGLE_WRITER,)
    config = Config(repo_id, format_time(now), parameters or Parameters(), digests, features)
    sealed = repository_config.seal_config(config, RepositoryKeys(keyring, repo_id))
    if storage.put(repository_config.NAME, sealed) is PutResult.EXISTS and (
        storage.get(repository_config.NAME) != sealed
    ):
        with suppress(StorageDenied):  # then they stay: the config names the slots that count
            for name, _ in made:
                storage.delete(name)
        raise RepositoryExists(f"Another process made a repository in {storage.label} just now.")
    return NewRepository(repo_id.hex(), tuple(digests), probed.may_delete)


def holds_repository(storage: Storage) -> bool:
    """Say whether a repository is in a storage; reads only.

    What an interrupted `create_repository` left counts as nothing. Raises
    `StorageNotEmpty` when other things are there.
    """
    if storage.stat(repository_config.NAME) is not None:
        return True
    _leftovers(storage)
    return False


def _prepare_storage(storage: Storage) -> None:
    """Make sure the storage is there and empty; clear what an interrupted call left."""
    if isinstance(storage, CanBeMade):
        storage.make()
    if holds_repository(storage):
        raise RepositoryExists(f"{storage.label} already holds a repository; it was not touched.")
    for name in _leftovers(storage):
        try:
            storage.delete(name)
        except StorageDenied as error:
            if probe.is_left_probe(storage, name):
                continue  # it harms nothing; a prune by another key clears it
            raise StorageNotEmpty(
                f"{storage.label} holds {name}, which an interrupted call left, and the key may not delete. "
                "Give another prefix, or remove it with a key that may. Nothing was made."
            ) from error


def _is_leftover(storage: Storage, name: str) -> bool:
    try:
        is_slot = name.startswith(slots.PREFIX) and storage.get(name, 0, 4) == slots.MAGIC
        return is_slot or probe.is_left_probe(storage, name)
    except BadObjectName:
        return False


def _leftovers(storage: Storage) -> list[str]:
    left: list[str] = []
    for info in storage.list_objects(""):
        name = info.name
        if name.startswith(TURNS):
            continue  # of another that makes one just now, or was killed doing it
        if len(left) >= _MOST_LEFT or not _is_leftover(storage, name):
            raise StorageNotEmpty(
                f"{storage.label} holds other things (for example {name!r}); "
                "give an empty or new place. Nothing was touched."
            )
        left.append(name)
    return left
