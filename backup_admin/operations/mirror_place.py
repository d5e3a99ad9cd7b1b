"""Where a mirror may be made or brought up to date: in an empty place, or in a mirror of the same history."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import (
    HistoryChanged,
    ObjectMissing,
    RepositoryExists,
    StorageDenied,
    StorageNotEmpty,
    UsageError,
)
from backup_admin.core.ids import new_ulid
from backup_admin.operations.object_kinds import SLOTS, kind_of
from backup_admin.repository import config
from backup_admin.repository.chain import entry_name, find_last
from backup_admin.storage.open import local_folder
from backup_admin.storage.probe import PREFIX, is_left_probe

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage


def need_apart(source: Storage, mirror: Storage) -> None:
    """Raise `UsageError` when two storages are one, or one lies in the other."""
    ours, theirs = local_folder(source), local_folder(mirror)
    if ours is None or theirs is None:
        is_same = source.label == mirror.label
    else:
        one, other = ours.resolve(), theirs.resolve()
        is_same = one.is_relative_to(other) or other.is_relative_to(one)
    if is_same:
        raise _no_second_copy(source, mirror)


def prove_apart(source: Storage, mirror: Storage) -> None:
    """Raise `UsageError` when what is written to one storage is in the other: an address does not tell.

    A name of this machine leads here as well, and a bucket answers at several endpoints. What is
    written is deleted again, unless our key may not: then it stays until a prune.
    """
    name = PREFIX + new_ulid(SystemClock().now())
    mirror.put(name, b"")
    try:
        is_same = source.stat(name) is not None
    finally:
        with suppress(StorageDenied):
            mirror.delete(name)
    if is_same:
        raise _no_second_copy(source, mirror)


def _no_second_copy(source: Storage, mirror: Storage) -> UsageError:
    return UsageError(
        f"{source.label} and {mirror.label} are one place, or one lies in the other: that would be no "
        "second copy. Nothing was copied; give a place on another disk or another machine."
    )


def is_first_mirror(source: Storage, mirror: Storage, raw: bytes, repo_id: bytes) -> bool:
    """Say whether the mirror is still to be made; raise when its place is taken."""
    try:
        theirs = mirror.get(config.NAME)
    except ObjectMissing:
        theirs = b""
    if theirs == raw:
        return False
    if raw.startswith(theirs):  # not there, or cut short when an earlier call was interrupted
        _need_free(source, mirror)
        return True
    if repo_id.hex().encode() in theirs:
        raise RepositoryExists(
            f"{mirror.label} holds the same repository, but its object 'config' has other bytes: one of the "
            "two is damaged or was made anew by a repair. Nothing was copied. Look with `check`, or "
            "give an empty place."
        )
    raise RepositoryExists(
        f"{mirror.label} holds another repository; it was not touched. Give an empty place, or the mirror of "
        f"{source.label}."
    )


def _need_free(source: Storage, mirror: Storage) -> None:
    """Raise `StorageNotEmpty` unless all that is there was left by an earlier call for the same source."""
    shared, example = False, ""
    for info in mirror.list_objects(""):
        kind = kind_of(info.name)
        if kind is SLOTS:
            shared = shared or _is_same_slot(source, mirror, info.name)
        if kind is not None:
            example = example or info.name
        elif info.name != config.NAME and not is_left_probe(mirror, info.name):
            raise StorageNotEmpty(
                f"{mirror.label} holds other things (for example {info.name!r}); give an empty or new place. "
                "Nothing was touched."
            )
    if example and not shared:
        raise StorageNotEmpty(
            f"{mirror.label} holds parts of another repository (for example {example!r}) without its object "
            "'config'; give an empty or new place. Nothing was touched."
        )


def _is_same_slot(source: Storage, mirror: Storage, name: str) -> bool:
    try:
        return source.get(name).startswith(mirror.get(name))
    except ObjectMissing:
        return False


def common_head(source: Storage, mirror: Storage, head: int) -> int:
    """Return how many entries the mirror has; raise `HistoryChanged` unless the source has them too.

    An entry that was cut short when an earlier call was interrupted does not count.
    """
    mirror_head = find_last(mirror)
    common = min(head, mirror_head)
    ours, theirs = (storage.get(entry_name(common)) if common else b"" for storage in (source, mirror))
    if not ours.startswith(theirs):
        raise HistoryChanged(
            f"{source.label} ({head:,} entries) and {mirror.label} ({mirror_head:,} entries) have different "
            f"histories: entry {common:,} is not the same. Somebody backed up into the mirror, or a repair "
            "wrote a history anew. Nothing was copied. Give an empty place for a mirror of the one, and "
            "another for a mirror of the other."
        )
    if mirror_head > head:
        raise HistoryChanged(
            f"{mirror.label} is ahead: its history has {mirror_head:,} entries, that of {source.label} has "
            f"{head:,}. The source lost some, or somebody backed up into the mirror. Nothing was copied. To "
            "bring the source up to date, mirror the other way round: exchange the two."
        )
    return mirror_head if theirs == ours else mirror_head - 1
