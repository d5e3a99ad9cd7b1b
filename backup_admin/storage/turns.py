"""Writers of a storage that ignores conditions take turns: the one way to take a name once there.

Each puts an object of its own below `turns/`, then lists them: alone, it has the turn; else it takes
its object back and tries again after a while. Of two that come at the same time, at least one sees
the other, since each lists only after its own object is there. That needs no clock in common, only a
storage whose lists show what was put before. Who was killed in his turn leaves his object: another
that has watched it for longer than any put can take removes it.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import Busy, StorageError
from backup_admin.storage.base import Buffer, PutResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.storage.base import ObjectInfo, Storage

PREFIX = "turns/"
_CONTENDED = ("config", "chain/", "epochs/", "wal/")
"""The names that two writers may want; all others follow from what is in the object."""

ABANDONED_SECONDS = 1500.0
"""More than the tries of one put, the waits between them included, can take (`Retries`)."""

_HURRY_SECONDS = 60.0
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 2.0


class TakesTurns:
    """A storage whose contended names are taken in turns; it is the storage below in all else."""

    def __init__(
        self,
        storage: Storage,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.label = storage.label
        self.below = storage
        self._monotonic = monotonic
        self._sleep = sleep

    def __getattr__(self, name: str) -> Any:
        """Give what only some kinds of storage have."""
        return getattr(self.below, name)

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        """Store an object; one that another writer may want too, only in our turn.

        Raises `Busy` when no turn comes.
        """
        if not if_absent or not name.startswith(_CONTENDED):
            return self.below.put(name, data, if_absent=if_absent)
        if self.below.stat(name) is not None:
            return PutResult.EXISTS
        with self._turn() as since:
            if self.below.stat(name) is not None:
                return PutResult.EXISTS
            if self._monotonic() - since > _HURRY_SECONDS:
                raise StorageError(f"{self.label} is too slow to write {name} safely. Try again later.")
            return self.below.put(name, data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object or a part of it."""
        return self.below.get(name, offset, length)

    def stat(self, name: str) -> ObjectInfo | None:
        """Return name and size, or None."""
        return self.below.stat(name)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in order of name."""
        return self.below.list_objects(prefix)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self.below.delete(name)

    @contextmanager
    def _turn(self) -> Iterator[float]:
        """Wait until nobody else has a turn; give the time ours began."""
        mine = f"{PREFIX}{os.urandom(16).hex()}"
        first_seen: dict[str, float] = {}
        bound = _SHORTEST_WAIT
        began = self._monotonic()
        while True:
            since = self._monotonic()
            self.below.put(mine, b"", if_absent=False)
            try:
                others = self._others(mine, first_seen)
                if not others:
                    yield since
                    return
            finally:
                self.below.delete(mine)
            if self._monotonic() - began > 2 * ABANDONED_SECONDS:
                raise Busy(
                    f"Others write to {self.label} all the time. Nothing was changed; try again later."
                )
            self._sleep(bound * int.from_bytes(os.urandom(2), "big") / 0xFFFF)
            bound = min(_LONGEST_WAIT, 2 * bound)

    def _others(self, mine: str, first_seen: dict[str, float]) -> list[str]:
        """Return whose turn it may be, without those who have had one for longer than one can last."""
        now = self._monotonic()
        there = [info.name for info in self.below.list_objects(PREFIX) if info.name != mine]
        for name in there:
            if now - first_seen.setdefault(name, now) > ABANDONED_SECONDS:
                self.below.delete(name)
        return [name for name in there if now - first_seen[name] <= ABANDONED_SECONDS]
