"""What a storage really does, found out by trying: back ends are probed, not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import StorageError
from backup_admin.storage.base import CanBeMade, LooksBeforePut, PutResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.storage.base import Storage

PREFIX = "probe-"
_CONTENT = bytes(range(256)) * 16
_OTHER = b"another object of the same name"
_PART = (100, 300)


def probe_storage(storage: Storage, unique: str) -> None:
    """Write an object, read it and a part of it back, try to overwrite it, delete it.

    `unique` makes the name of the object, which is gone again afterwards. Raises
    `StorageError` naming what the storage does not do: a repository in it would
    lose commits or bytes.
    """
    _probe(storage, unique, _check_kept)


def probe_for_one_writer(storage: Storage, unique: str) -> None:
    """Do the same, but let the storage overwrite: enough where only one process writes."""
    _probe(storage, unique, _check_read)


def _probe(storage: Storage, unique: str, check: Callable[[Storage, str], None]) -> None:
    if isinstance(storage, CanBeMade):
        storage.make()
    name = PREFIX + unique
    storage.put(name, _CONTENT)
    try:
        check(storage, name)
    finally:
        storage.delete(name)
    if storage.stat(name) is not None:
        raise StorageError(f"{storage.label} still has an object after it was deleted.")


def is_left_probe(storage: Storage, name: str) -> bool:
    """Say whether an object is what a probe left that was killed."""
    return name.startswith(PREFIX) and storage.get(name) == _CONTENT


def _check_read(storage: Storage, name: str) -> None:
    if storage.get(name) != _CONTENT:
        raise StorageError(f"{storage.label} gave back other bytes than were written.")
    offset, length = _PART
    if storage.get(name, offset, length) != _CONTENT[offset : offset + length]:
        raise StorageError(f"{storage.label} gives back wrong parts of an object.")


def _check_kept(storage: Storage, name: str) -> None:
    _check_read(storage, name)
    kept = storage.put(name, _OTHER) is PutResult.EXISTS and storage.get(name) == _CONTENT
    if not kept or (isinstance(storage, LooksBeforePut) and storage.overwrites(name, _OTHER)):
        raise StorageError(
            f"{storage.label} overwrites objects it was told to keep; two backups at once would "
            "lose one. It cannot hold a repository."
        )
