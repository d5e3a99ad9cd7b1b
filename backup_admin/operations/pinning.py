"""Pins: entries that keep a snapshot from being forgotten, and packs for a running restore."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.clock import format_time
from backup_admin.core.errors import BackupAdminError, SnapshotMissing
from backup_admin.operations.collecting import RESTORE_REASON
from backup_admin.repository.seen import is_of_mirror
from backup_admin.storage.base import parallel_calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.repository import Repository

_RESTORE = timedelta(hours=24)

Warn = Callable[[str], object]
"""Tells a person what stands in the way of a pin."""


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
    repository: Repository, snapshot: SnapshotId, *, actor: str, clock: Clock, warn: Warn
) -> Iterator[None]:
    """Keep what a restore reads while it reads it.

    Best effort: who may not write restores without a pin. A process that dies leaves
    a pin that runs out. In a mirror nothing is pinned: a commit of its own would part it from
    its source.
    """
    if is_of_mirror(repository.state_name):
        yield
        return
    pin = _Pin(repository, snapshot, actor, clock, warn)
    pin.put()
    try:
        yield
    finally:
        pin.take_away()


@contextmanager
def pinned_meanwhile(
    repository: Repository, snapshot: SnapshotId, *, actor: str, clock: Clock, warn: Warn
) -> Iterator[Callable[[], None]]:
    """Do the same for a restore that replaces nothing; the block calls what it gets when all is read.

    From far away a pin takes many round trips: a thread with a view of its own puts it while the
    block begins to read, and takes it away while the block ends.
    """
    if parallel_calls(repository.storage) <= 1 or is_of_mirror(repository.state_name):
        with pinned(repository, snapshot, actor=actor, clock=clock, warn=warn):
            yield _nothing_to_do
        return
    all_read = threading.Event()

    def keep_pinned() -> None:
        try:
            pin = _Pin(repository.again(), snapshot, actor, clock, warn)
        except (BackupAdminError, OSError) as error:
            _warn_unpinned(warn, error)
            return
        pin.put()
        all_read.wait()
        pin.take_away()

    # Who insists on stopping does not wait until a storage that hangs is given up.
    thread = threading.Thread(target=keep_pinned, name="pin", daemon=True)
    thread.start()
    try:
        yield all_read.set
    finally:
        all_read.set()
        thread.join()


class _Pin:
    """The pin of a running restore."""

    def __init__(
        self, repository: Repository, snapshot: SnapshotId, actor: str, clock: Clock, warn: Warn
    ) -> None:
        self._repository = repository
        self._snapshot = snapshot
        self._actor = actor
        self._clock = clock
        self._warn = warn
        self._name = ""

    def put(self) -> None:
        until = self._clock.now() + _RESTORE
        try:
            self._name = pin_snapshot(
                self._repository, self._snapshot, until=until, reason=RESTORE_REASON, actor=self._actor
            )
        except (BackupAdminError, OSError) as error:  # the state folder may be full or read-only
            _warn_unpinned(self._warn, error)

    def take_away(self) -> None:
        if not self._name:
            return
        try:
            self._repository.record("unpin", {"pin": self._name}, actor=self._actor)
        except (BackupAdminError, OSError) as error:
            self._warn(f"The pin of this restore could not be taken away; it runs out by itself: {error}")


def _warn_unpinned(warn: Warn, error: BackupAdminError | OSError) -> None:
    warn(f"The snapshot could not be pinned while it is read: {error}")


def _nothing_to_do() -> None:
    """Where the pin is taken away at the end of the block."""
