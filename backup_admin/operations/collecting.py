"""Deleting what an entry took off the books, and writing down that it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import parse_time
from backup_admin.core.errors import ObjectMissing, StorageDenied
from backup_admin.core.shown import count_of
from backup_admin.operations.locking import Locked
from backup_admin.repository.packs import pack_name
from backup_admin.storage.base import locking

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.history import ChainState
    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import Storage

RESTORE_REASON = "restore"
_BATCH = 20_000
_REFUSALS = 10


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many objects are gone, how many are still to be deleted, and why.

    `refused` says that the storage did not let some be deleted; `locked` are of the deleted ones.
    """

    deleted: int
    left: int
    refused: bool
    notices: tuple[str, ...]
    locked: Locked


def delete_collected(
    repository: Repository, safe: Collection[str], *, actor: str, reporter: Reporter, now: datetime
) -> Deleted:
    """Delete what is off the books, whoever took it; what cannot be deleted is left to the next.

    While a restore holds a pin only the packs in `safe` go: it may still read the others.
    """
    history = repository.history
    held = is_restoring(history, now)
    packs = [name for name in sorted(history.collected) if not held or name in safe]
    objects = sorted(history.doomed)
    named = {pack_name(bytes.fromhex(name)): name for name in packs}
    waiting = len(history.collected) - len(packs)
    reporter.stage("delete", total_items=len(packs) + len(objects))
    gone, refusal, locked = _delete_each(repository, (*named, *objects), reporter, now)
    _confirm(repository, [named[name] for name in gone if name in named], set(gone) & set(objects), actor)
    notices = []
    if refusal:
        notices.append(
            f"{count_of(len(packs) + len(objects) - len(gone), 'object')} could not be deleted: {refusal} "
            "They are off the books; a prune that may delete finishes."
        )
    if waiting:
        notices.append(
            f"A restore is under way, so {count_of(waiting, 'pack')} stay for it; "
            "the next prune deletes them."
        )
    left = len(packs) + len(objects) - len(gone) + waiting
    return Deleted(len(gone), left, refusal is not None, tuple(notices), locked)


def is_restoring(history: ChainState, now: datetime) -> bool:
    """Say whether a restore holds a pin that has not run out."""
    return any(
        pin.reason == RESTORE_REASON and (not pin.until or parse_time(pin.until) > now)
        for pin in history.pins.values()
    )


def _delete_each(
    repository: Repository, names: Iterable[str], reporter: Reporter, now: datetime
) -> tuple[list[str], StorageDenied | None, Locked]:
    """Delete objects; give up when the storage refuses again and again and never agrees."""
    gone: list[str] = []
    refused = 0
    refusal: StorageDenied | None = None
    locked = Locked()
    for name in names:
        reporter.check_cancelled()
        try:
            after = count_locked(repository.storage, name, locked, now)
            repository.storage.delete(name)
            gone.append(name)
            locked = after
        except StorageDenied as error:
            refused, refusal = refused + 1, error
        if refused >= _REFUSALS and not gone:
            break
        reporter.advance(items=1)
    return gone, refusal, locked


def count_locked(storage: Storage, name: str, locked: Locked, now: datetime) -> Locked:
    """Count an object in that outlives being deleted; what is deleted already counts no more."""
    keeper = locking(storage)
    if keeper is None:
        return locked
    try:
        until = keeper.locked_until(name)
    except ObjectMissing:
        return locked  # gone already
    info = None if until is None or until <= now else storage.stat(name)
    return locked if info is None or until is None else locked.plus(info.size, until)


def _confirm(repository: Repository, packs: Sequence[str], objects: Collection[str], actor: str) -> None:
    """Write down what is gone, so that nobody looks for it again."""
    rest = sorted(objects)
    for at in range(0, max(len(packs), len(rest)), _BATCH):
        repository.record(
            "gc-end",
            {"packs": list(packs[at : at + _BATCH]), "objects": rest[at : at + _BATCH]},
            actor=actor,
        )
