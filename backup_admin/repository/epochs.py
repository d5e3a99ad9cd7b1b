"""Epoch objects: the keys that a rotation adds, for slots that do not hold them yet.

`epochs/<kid>` is sealed under the epoch that was written before. It names the new
one for good, so that two rotations never mean different keys by one number, and
holds its key when every secret shall go on working; else it holds none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.errors import Damaged, NewerVersion, ObjectMissing
from backup_admin.repository.keys import KEY_BYTES, MAX_KID, RepositoryKeys
from backup_admin.repository.objects import ObjectType, open_object, seal_object

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage

PREFIX = "epochs/"
_VERSION = 1
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True, repr=False)
class Epoch:
    """What an epoch object says; `under` is the epoch it is sealed under."""

    kid: int
    key: bytes
    under: int


def epoch_name(kid: int) -> str:
    """Return the storage name of an epoch object."""
    return f"{PREFIX}{kid:05d}"


def seal_epoch(keys: RepositoryKeys, kid: int, key: bytes) -> bytes:
    """Write an epoch object under the epoch in use; without a key it only takes the number."""
    body = dump_canonical({"v": _VERSION, "kid": kid, "key": key.hex()})
    return seal_object(keys, ObjectType.EPOCH, epoch_name(kid), [body])


def read_epoch(storage: Storage, keys: RepositoryKeys, kid: int) -> Epoch:
    """Read an epoch object; raise `ObjectMissing`, `Damaged` or `NewerVersion`."""
    name = epoch_name(kid)
    data = storage.get(name, 0, _MAX_BYTES)
    under = int.from_bytes(data[8:10], "big")
    if under >= kid:
        raise Damaged(f"{name} in {storage.label} is sealed under a later key.")
    try:
        value = load_strict(open_object(keys, ObjectType.EPOCH, name, data)[0])
        if value["v"] != _VERSION:
            raise NewerVersion(f"{name} was written by a newer version; nothing was written.")
        epoch = Epoch(int(value["kid"]), bytes.fromhex(value["key"]), under)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{name} in {storage.label} cannot be read: {error}.") from error
    except Damaged as error:
        raise Damaged(f"{name} in {storage.label}: {error}") from error
    if epoch.kid != kid or len(epoch.key) not in (0, KEY_BYTES):
        raise Damaged(f"{name} in {storage.label} does not hold key {kid}.")
    return epoch


def find_epoch(storage: Storage, keys: RepositoryKeys, kid: int) -> bytes | None:
    """Return the key of an epoch that a rotation left for older slots, or None."""
    if 0 < kid <= MAX_KID:
        with suppress(ObjectMissing):
            return read_epoch(storage, keys, kid).key or None
    return None
