"""What a storage really does, found out by trying: back ends are probed, not believed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import StorageDenied, StorageError
from backup_admin.core.ids import is_ulid
from backup_admin.storage.base import CanBeMade, LooksBeforePut, PutResult, locking

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage

PREFIX = "probe-"
_CONTENT = bytes(range(256)) * 16
_OTHER = b"another object of the same name"
_PART = (100, 300)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a storage does that some do not, and both is fine.

    `keeps_names`: it keeps a taken name by itself; where it does not, writers must take turns.
    `may_delete`: our key may; one that may not is the safer one to back up with.
    """

    keeps_names: bool
    may_delete: bool


def probe_storage(storage: Storage, unique: str) -> Probed:
    """Write an object, read it and a part of it back, try to overwrite it, delete it.

    `unique` makes the name of the object, which is gone again afterwards, unless our key may not
    delete: it stays until a prune that may. Raises
    `StorageError` naming what the storage does not do: a repository in it would
    lose commits or bytes.
    """
    if isinstance(storage, CanBeMade):
        storage.make()
    name = PREFIX + unique
    storage.put(name, _CONTENT)
    may_delete = False
    try:
        _check_kept(storage, name)
        _check_locked(storage, name)
        keeps_names = not isinstance(storage, LooksBeforePut) or not storage.overwrites(name, _OTHER)
    finally:
        with suppress(StorageDenied):
            storage.delete(name)
            may_delete = True
    if may_delete and storage.stat(name) is not None:
        raise StorageError(f"{storage.label} still has an object after it was deleted.")
    return Probed(keeps_names, may_delete)


def is_left_probe(storage: Storage, name: str) -> bool:
    """Say whether an object is what a probe left that was killed, or whose key may not delete."""
    rest = name.removeprefix(PREFIX)
    return rest != name and (is_ulid(rest) or storage.get(name) == _CONTENT)


def _check_kept(storage: Storage, name: str) -> None:
    if storage.get(name) != _CONTENT:
        raise StorageError(f"{storage.label} gave back other bytes than were written.")
    offset, length = _PART
    if storage.get(name, offset, length) != _CONTENT[offset : offset + length]:
        raise StorageError(f"{storage.label} gives back wrong parts of an object.")
    if name not in {info.name for info in storage.list_objects(PREFIX)}:
        raise StorageError(f"{storage.label} does not list an object that was just written.")
    if storage.put(name, _OTHER) is not PutResult.EXISTS or storage.get(name) != _CONTENT:
        raise StorageError(
            f"{storage.label} overwrites objects it was told to keep; two backups at once would "
            "lose one. It cannot hold a repository."
        )


def _check_locked(storage: Storage, name: str) -> None:
    keeper = locking(storage)
    if keeper is not None and keeper.locked_until(name) is None:
        raise StorageError(
            f"{storage.label} does not say that what was put is locked. Make the bucket with Object Lock and "
            "allow the key s3:GetObjectRetention, or leave lock_days out of the address."
        )
