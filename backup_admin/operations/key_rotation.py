"""Rotate: a new epoch for all that is written from now on; what is stored stays readable.

Slots whose secrets are given get the larger keyring. The others reach the new epoch
through an object sealed under the one before, unless they are to be cut off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, KeyRefused, ObjectMissing, StorageError, WrongKey
from backup_admin.operations.key_slots import (
    ChangePlan,
    NewSlot,
    change_slots,
    finish_earlier,
    usable_slots,
)
from backup_admin.repository import slots
from backup_admin.repository.epochs import Epoch, epoch_name, read_epoch, seal_epoch
from backup_admin.repository.keys import KEY_BYTES, MAX_KID, Keyring

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.secrets import RepositorySecret


@dataclass(frozen=True, slots=True)
class RotationReport:
    """What a rotation did, by slot ids.

    `bridged` slots were not written anew and reach the new key all the same. `left`
    are files that should be gone and could not be deleted.
    """

    kid: int
    rewrapped: tuple[str, ...]
    bridged: tuple[str, ...]
    dropped: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """A secret that was given, and the slots in the storage that it opens."""

    secret: RepositorySecret
    slots: Mapping[str, Keyring]


def rotate(
    repository: Repository,
    secrets: Sequence[RepositorySecret],
    *,
    drop: Collection[str] = (),
    cut_off: bool = False,
    actor: str,
    clock: Clock,
) -> RotationReport:
    """Write everything from now on under a new key.

    With `cut_off` nobody reaches it who holds only what opened the repository before:
    the secret of each slot must be given, or the slot dropped. Safe to repeat after an
    interruption. Raises `KeyRefused` or `WrongKey` before anything is written.
    """
    finish_earlier(repository, actor=actor)
    holders = find_holders(repository, secrets)
    others = remaining_slots(repository, holders, drop)
    if cut_off:
        require_none(repository, others, "would be cut off")
    repository.refresh()
    epoch = _begin_epoch(repository, holders, bridge=not cut_off)
    repository.keys.add_epoch(epoch.kid, epoch.key)
    plan = rewrap_plan(repository, holders, repository.keys.keyring, drop)
    plan = replace(plan, more={"write_kid": epoch.kid})
    change = change_slots(repository, plan, actor=actor, clock=clock)
    return RotationReport(epoch.kid, change.added, tuple(others), tuple(drop), change.left)


def find_holders(repository: Repository, secrets: Sequence[RepositorySecret]) -> tuple[Holder, ...]:
    """Return what each secret opens; raise `WrongKey` for one that opens nothing."""
    found = []
    for secret in dict.fromkeys(secrets):
        opened = slots.opened_slots(repository.storage, secret, repository.keys.repo_id)
        if not opened:
            raise WrongKey(
                f"A {slots.secret_word(secret.kind)} that was given opens no key slot of "
                f"{repository.label}. Nothing was changed."
            )
        found.append(Holder(secret, opened))
    return tuple(found)


def remaining_slots(
    repository: Repository, holders: Sequence[Holder], drop: Collection[str]
) -> tuple[str, ...]:
    """Return the slots in use that no given secret opens and that are not to be dropped."""
    opened = {slot for holder in holders for slot in holder.slots}
    return tuple(slot for slot in usable_slots(repository) if slot not in opened and slot not in drop)


def require_none(repository: Repository, others: Collection[str], fate: str) -> None:
    """Raise `KeyRefused` when there are slots that cannot be written anew."""
    files = usable_slots(repository)
    named = ", ".join(
        f"{slot} ({slots.secret_word(info.kind)}, {info.label})"
        for slot in others
        if (info := files[slot].info) is not None
    )
    if others:
        raise KeyRefused(
            f"The secret of each of these slots is needed, else it {fate}: {named}. Give its file with "
            "--with, or give up the slot with --drop. Nothing was changed."
        )


def rewrap_plan(
    repository: Repository, holders: Sequence[Holder], keyring: Keyring, drop: Collection[str]
) -> ChangePlan:
    """Say which slots to make for a keyring; one that an interrupted call made is taken over."""
    files = usable_slots(repository)
    new: list[NewSlot] = []
    adopted: list[str] = []
    removed = list(drop)
    for holder in holders:
        right = [slot for slot, found in holder.slots.items() if found == keyring][:1]
        adopted += right
        removed += [slot for slot in holder.slots if slot not in right]
        if not right:
            labels = [info.label for slot in holder.slots if slot in files and (info := files[slot].info)]
            new.append(NewSlot(holder.secret, labels[0] if labels else slots.secret_word(holder.secret.kind)))
    return ChangePlan(keyring, new, adopted, removed)


def _begin_epoch(repository: Repository, holders: Sequence[Holder], *, bridge: bool) -> Epoch:
    """Take the next number for good, or go on with what an interrupted rotation began."""
    under = repository.keys.keyring.write_kid
    for kid in range(under + 1, MAX_KID + 1):
        begun = _begun(repository, kid)
        if begun is None:
            return _claim(repository, kid, bridge=bridge)
        key = begun.key if bridge else _held(holders, kid) if not begun.key else b""
        if key and begun.under == under:
            return Epoch(kid, key, under)
    raise KeyRefused(f"{repository.label} has used up all key numbers. Nothing was changed.")


def _begun(repository: Repository, kid: int) -> Epoch | None:
    try:
        return read_epoch(repository.storage, repository.keys, kid)
    except ObjectMissing:
        return None
    except Damaged:
        return Epoch(kid, b"", 0)  # half a rotation that nobody can go on with; its number is taken


def _held(holders: Sequence[Holder], kid: int) -> bytes:
    """Return the key that an interrupted rotation put into slots of the given secrets."""
    keys = (found.epochs.get(kid, b"") for holder in holders for found in holder.slots.values())
    return next((key for key in keys if key), b"")


def _claim(repository: Repository, kid: int, *, bridge: bool) -> Epoch:
    key = os.urandom(KEY_BYTES)
    data = seal_epoch(repository.keys, kid, key if bridge else b"")
    name = epoch_name(kid)
    repository.storage.put(name, data)
    if repository.storage.get(name) != data:
        raise StorageError(
            f"{name} in {repository.label} is not what was written: another rotation runs, or the storage "
            "failed. Nothing was changed; try again."
        )
    return Epoch(kid, key, repository.keys.keyring.write_kid)
