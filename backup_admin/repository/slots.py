"""Slots: the wrapped copies of the keyring, any one of which opens the repository.

A slot file is `BKS1 || u16be header length || header || commit[32] || wrap`. The
header is canonical JSON in clear. Hostile or weak parameters are refused before
any work is done for them.
"""

from __future__ import annotations

import hmac
import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time
from backup_admin.core.errors import (
    BackupAdminError,
    Damaged,
    NewerVersion,
    ObjectMissing,
    RepositoryError,
    StorageError,
    WrongKey,
)
from backup_admin.repository.keys import Keyring, expand, merge_keyrings, parse_keyring, sha256
from backup_admin.repository.secrets import RepositorySecret, SecretKind
from backup_admin.storage.several import read_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from backup_admin.storage.base import Storage

PREFIX = "keys/"
MAGIC = b"BKS1"
_MAX_HEADER = 4096
_MAX_BYTES = 64 << 10
MOST_FILES = 32
# A rotation writes each slot anew before it removes the one before.
MOST_IN_USE = 15
_LABEL = b"backup_admin/v1/"
_NONCE = bytes(12)
_LOG2N_RANGE = range(15, 21)
_MAX_R = 16
_MAX_P = 4
_MAX_MEMORY = 1 << 30
_DEFAULT_LOG2N = 17


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """What stands in clear about one slot."""

    id: str
    kind: str
    created_at: str
    label: str
    epochs: tuple[int, ...]
    """The epochs in it, oldest first; it may reach newer ones all the same."""


@dataclass(frozen=True, slots=True)
class SlotFile:
    """One file below `keys/`: its SHA-256, and what stands in clear or why it cannot be read."""

    id: str
    digest: str
    info: SlotInfo | None
    problem: str


@dataclass(frozen=True, slots=True)
class _Slot:
    info: SlotInfo
    header: bytes
    kdf: dict[str, Any]
    salt: bytes
    commit: bytes
    wrap: bytes


def slot_keys(root: bytes, repo_id: bytes, header: bytes) -> tuple[bytes, bytes]:
    """Return commitment and key-encryption key of a slot."""
    tail = repo_id + header
    return expand(root, _LABEL + b"slot-commit" + tail), expand(root, _LABEL + b"slot-kek" + tail)


def wrap_keyring(root: bytes, repo_id: bytes, header: bytes, keyring: bytes) -> tuple[bytes, bytes]:
    """Return commitment and wrapped keyring. The salt in the header makes the key fresh."""
    commit, key = slot_keys(root, repo_id, header)
    return commit, AESGCM(key).encrypt(_NONCE, keyring, commit + header)


def scrypt_root(passphrase: bytes, salt: bytes, *, log2n: int, r: int, p: int) -> bytes:
    """Stretch a passphrase (RFC 7914)."""
    return Scrypt(salt=salt, length=32, n=1 << log2n, r=r, p=p).derive(passphrase)


def make_slot(
    secret: RepositorySecret, keyring: Keyring, repo_id: bytes, *, label: str, now: datetime
) -> tuple[str, bytes]:
    """Return name and bytes of a new slot for a secret."""
    slot_id = os.urandom(8).hex()
    kdf: dict[str, Any] = {"name": "hkdf"}
    if secret.kind is SecretKind.PASSPHRASE:
        kdf = {"name": "scrypt", "log2n": _DEFAULT_LOG2N, "r": 8, "p": 1}
    header = dump_canonical(
        {
            "v": 1,
            "slot": slot_id,
            "type": secret.kind.value,
            "kdf": kdf,
            "salt": os.urandom(16).hex(),
            "created": format_time(now),
            "label": label[:200],
            "epochs": sorted(keyring.epochs),
        }
    )
    slot = _parse_header(slot_id, header, b"", b"")
    commit, wrap = wrap_keyring(_root(slot, secret), repo_id, header, keyring.to_bytes())
    return slot_name(slot_id), MAGIC + len(header).to_bytes(2, "big") + header + commit + wrap


def slot_name(slot_id: str) -> str:
    """Return the storage name of a slot."""
    return PREFIX + slot_id


def list_slots(storage: Storage) -> tuple[SlotInfo, ...]:
    """Return what stands in clear about all slots; raise `Damaged` or `NewerVersion`."""
    return tuple(_parse_slot(slot_id, data).info for slot_id, data in _read_slots(storage))


def survey_slots(storage: Storage, *, known: Iterable[str] = ()) -> tuple[SlotFile, ...]:
    """Return every file below `keys/`, also those that cannot be read as a slot.

    The slots `known` are looked up also when a list leaves them out.
    """
    return tuple(_survey(slot_id, data) for slot_id, data in _read_slots(storage, known))


def _survey(slot_id: str, data: bytes) -> SlotFile:
    digest = sha256(data).hex()
    try:
        return SlotFile(slot_id, digest, _parse_slot(slot_id, data).info, "")
    except RepositoryError as error:
        return SlotFile(slot_id, digest, None, str(error))


def open_slots(
    storage: Storage,
    secret: RepositorySecret,
    repo_id: bytes,
    *,
    known: Iterable[str] = (),
    listed: Callable[[], Sequence[str]] | None = None,
) -> Keyring:
    """Return what all slots that a secret opens hold together.

    The slots `known` are looked up also when a list leaves them out; `listed` gives the list when
    somebody asked for it already. Raises `WrongKey` when there is none. A damaged slot is only an
    error when no other opens.
    """
    opened, damaged = _open_all(storage, secret, repo_id, known, listed)
    if listed is not None and not opened:  # a rotation may have written them anew since that list
        opened, damaged = _open_all(storage, secret, repo_id, known)
    if opened:
        return merge_keyrings(opened.values())
    if damaged is not None:
        raise damaged
    raise WrongKey(
        f"No key slot in {storage.label} opens with this {secret_word(secret.kind)}; nothing was written."
    )


def opened_slots(storage: Storage, secret: RepositorySecret, repo_id: bytes) -> dict[str, Keyring]:
    """Return the slots that a secret opens, by id, each with the keyring in it; maybe none.

    Raises `StorageError` when one cannot be read: it may be the one.
    """
    opened, damaged = _open_all(storage, secret, repo_id)
    if isinstance(damaged, StorageError):
        raise damaged
    return opened


def _open_all(
    storage: Storage,
    secret: RepositorySecret,
    repo_id: bytes,
    known: Iterable[str] = (),
    listed: Callable[[], Sequence[str]] | None = None,
) -> tuple[dict[str, Keyring], BackupAdminError | None]:
    damaged: BackupAdminError | None = None
    opened: dict[str, Keyring] = {}
    slot_ids = tuple(_slot_ids(listed() if listed else list_ids(storage), known))
    read = read_each(storage, tuple(map(slot_name, slot_ids)), _MAX_BYTES)
    for slot_id, found in zip(slot_ids, read, strict=True):
        try:
            if isinstance(found, StorageError):
                raise found
            slot = _parse_slot(slot_id, found)
            keyring = _open(slot, secret, repo_id) if slot.info.kind == secret.kind.value else None
        except ObjectMissing:
            continue  # removed by another process just now
        except (RepositoryError, StorageError) as error:
            damaged = error
            continue
        if keyring is not None:
            opened[slot_id] = keyring
    return opened, damaged


def _open(slot: _Slot, secret: RepositorySecret, repo_id: bytes) -> Keyring | None:
    commit, key = slot_keys(_root(slot, secret), repo_id, slot.header)
    if not hmac.compare_digest(commit, slot.commit):
        return None
    try:
        return parse_keyring(AESGCM(key).decrypt(_NONCE, slot.wrap, commit + slot.header))
    except InvalidTag as error:
        raise Damaged(f"Key slot {slot.info.id} was altered; use another secret.") from error


def _root(slot: _Slot, secret: RepositorySecret) -> bytes:
    if slot.kdf["name"] == "scrypt":
        return scrypt_root(
            secret.material, slot.salt, log2n=slot.kdf["log2n"], r=slot.kdf["r"], p=slot.kdf["p"]
        )
    return hmac.digest(slot.salt, secret.material, "sha256")


def _read_slots(storage: Storage, known: Iterable[str] = ()) -> Iterator[tuple[str, bytes]]:
    for slot_id in _slot_ids(list_ids(storage), known):
        with suppress(ObjectMissing):  # removed by another process just now
            yield slot_id, storage.get(slot_name(slot_id), 0, _MAX_BYTES)


def list_ids(storage: Storage) -> tuple[str, ...]:
    """Return the ids of all slots that the storage lists; raise `Damaged` when there are too many."""
    infos = tuple(islice(storage.list_objects(PREFIX), MOST_FILES + 1))
    if len(infos) > MOST_FILES:
        raise Damaged(f"{storage.label} has more than {MOST_FILES} key slots.")
    return tuple(info.name.removeprefix(PREFIX) for info in infos)


def _slot_ids(listed: Sequence[str], known: Iterable[str]) -> Iterator[str]:
    """Name the slots that are listed, and those that a list may have left out: they are there or not."""
    yield from listed
    yield from (slot for slot in known if slot not in listed)


def _parse_slot(slot_id: str, data: bytes) -> _Slot:
    if data[:3] != MAGIC[:3] or len(data) < 4:
        raise Damaged(f"Key slot {slot_id} is not a slot.")
    if data[:4] != MAGIC:
        raise NewerVersion(f"Key slot {slot_id} was made by a newer version; nothing was changed.")
    size = int.from_bytes(data[4:6], "big")
    end = 6 + size
    if size > _MAX_HEADER or len(data) < end + 32 + 16:
        raise Damaged(f"Key slot {slot_id} is cut short or too long.")
    return _parse_header(slot_id, data[6:end], data[end : end + 32], data[end + 32 :])


def _parse_header(slot_id: str, header: bytes, commit: bytes, wrap: bytes) -> _Slot:
    try:
        value = load_strict(header, max_bytes=_MAX_HEADER)
        if value["v"] != 1:
            raise NewerVersion(f"Key slot {slot_id} was made by a newer version; nothing was changed.")
        info = SlotInfo(
            str(value["slot"]),
            str(value["type"]),
            str(value["created"]),
            str(value["label"]),
            tuple(map(int, value.get("epochs", (1,)))),
        )
        slot = _Slot(info, header, dict(value["kdf"]), bytes.fromhex(value["salt"]), commit, wrap)
        _check_kdf(slot)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"Key slot {slot_id} cannot be read: {error}.") from error
    return slot


def _check_kdf(slot: _Slot) -> None:
    name = slot.kdf["name"]
    if name == "hkdf" and slot.info.kind != SecretKind.PASSPHRASE.value:
        return
    if name != "scrypt":
        raise NewerVersion(f"Key slot {slot.info.id} uses {name!r}, which this version does not know.")
    log2n, r, p = (slot.kdf[key] for key in ("log2n", "r", "p"))
    if not all(type(number) is int for number in (log2n, r, p)):
        raise ValueError("scrypt parameters that are no whole numbers")
    strong = log2n in _LOG2N_RANGE and 8 <= r <= _MAX_R and 1 <= p <= _MAX_P
    if not strong or 128 * r << log2n > _MAX_MEMORY or len(slot.salt) < 16:
        raise Damaged(f"Key slot {slot.info.id} asks for weak or hostile scrypt parameters; refused.")


def secret_word(kind: str) -> str:
    """Return what people call a kind of secret."""
    return {"raw": "application key", "recovery": "recovery key"}.get(kind, str(kind))
