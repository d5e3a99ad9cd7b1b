"""Pins: entries that keep a snapshot from being forgotten, and packs for a running restore."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.clock import format_time
from backup_admin.core.errors import BackupAdminError, SnapshotMissing
from backup_admin.operations.collecting import RESTORE_REASON
from backup_admin.repository.seen import is_of_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.repository import Repository

_RESTORE = timedelta(hours=24)


def pin_snapshot(
    repository: Repository, snapshot: SnapshotId, *, until: datetime | None, reason: str, actor: str
) -> str:
    """Keep a snapshot up to a time, or for ever; return the name of the pin.

    Raises `SnapshotMissing` when it was forgotten meanwhile.
    """

    def look_again(_entries: Sequence[ChainEntry]) -> None:
        if snapshot not in repository.history.manifests:
            raise SnapshotMissing(f"{repository.label} has no snapshot {snapshot}. Nothing was pinned.")

    look_again(())
    name = secrets.token_hex(8)
    payload = {
        "pin": name,
        "snapshot": snapshot,
        "until": "" if until is None else format_time(until),
        "reason": reason,
    }
    repository.record("pin", payload, actor=actor, look_again=look_again)
    return name


def unpin_snapshot(repository: Repository, snapshot: SnapshotId, *, actor: str) -> int:
    """Take all pins of a snapshot away; return how many there were."""
    names = [name for name, pin in repository.history.pins.items() if pin.snapshot == snapshot]
    for name in names:
        repository.record("unpin", {"pin": name}, actor=actor)
    return len(names)


@contextmanager
def pinned(
    repository: Repository, snapshot: SnapshotId, *, actor: str, clock: Clock, reporter: Reporter
) -> Iterator[None]:
    """Keep what a restore reads while it reads it.

    Best effort: who may not write restores without a pin. A process that dies leaves
    a pin that runs out. In a mirror nothing is pinned: a commit of its own would part it from
    its source.
    """
    if is_of_mirror(repository.state_name):
        yield
        return
    name = ""
    try:
        until = clock.now() + _RESTORE
        name = pin_snapshot(repository, snapshot, until=until, reason=RESTORE_REASON, actor=actor)
    except BackupAdminError as error:
        reporter.warn(f"The snapshot could not be pinned while it is read: {error}")
    try:
        yield
    finally:
        if name:
            _take_away(repository, name, actor, reporter)


def _take_away(repository: Repository, name: str, actor: str, reporter: Reporter) -> None:
    try:
        repository.record("unpin", {"pin": name}, actor=actor)
    except BackupAdminError as error:
        reporter.warn(f"The pin of this restore could not be taken away; it runs out by itself: {error}")
