"""Clear away what interrupted writes left in a storage, which no repository needs and no prune sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.durable import TEMPORARY_PREFIX
from backup_admin.core.ids import ulid_time
from backup_admin.operations.rebuild import QUARANTINE
from backup_admin.repository import chain, config, epochs, index, manifests, packs, slots, wal
from backup_admin.storage import probe
from backup_admin.storage.base import HasLeftovers, Leftover
from backup_admin.storage.examine import SPEED_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from backup_admin.core.progress import Reporter
    from backup_admin.storage.base import Storage

# A bucket may be shared: what others began to upload there is none of our business.
_WRITERS = (chain, epochs, index, manifests, packs, slots, wal, probe)
_PLACES = (*(module.PREFIX for module in _WRITERS), QUARANTINE)


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """What may go; what is too young, since its write may be under way; what is not ours."""

    remove: tuple[Leftover, ...]
    young: tuple[Leftover, ...]
    strange: tuple[Leftover, ...]

    @property
    def size(self) -> int:
        """Return how many bytes may go."""
        return sum(leftover.size for leftover in self.remove)


def plan_cleaning(storage: Storage, *, now: datetime, older_than: timedelta) -> CleaningPlan:
    """Say what a cleaning removes; reads only. Objects of a repository are never among it."""
    remove: list[Leftover] = []
    young: list[Leftover] = []
    strange: list[Leftover] = []
    for leftover in _leftovers(storage):
        if not _is_ours(leftover.name):
            strange.append(leftover)
        else:
            (remove if now - leftover.since >= older_than else young).append(leftover)
    return CleaningPlan(tuple(remove), tuple(young), tuple(strange))


def clean(storage: Storage, plan: CleaningPlan, *, reporter: Reporter) -> tuple[Leftover, ...]:
    """Carry a plan out, and return what is still there after it."""
    reporter.stage("clean", total_items=len(plan.remove))
    for leftover in plan.remove:
        reporter.check_cancelled()
        if _is_probe(leftover.name):
            storage.delete(leftover.name)
        elif isinstance(storage, HasLeftovers):
            storage.remove_leftover(leftover)
        reporter.advance(items=1, size=leftover.size)
    still = {(leftover.name, leftover.id) for leftover in _leftovers(storage)}
    return tuple(leftover for leftover in plan.remove if (leftover.name, leftover.id) in still)


def _leftovers(storage: Storage) -> Iterator[Leftover]:
    yield from _probes(storage)
    if isinstance(storage, HasLeftovers):
        yield from storage.leftovers()


def _probes(storage: Storage) -> Iterable[Leftover]:
    """List what tests of the storage left that were killed: their names tell when they began."""
    for info in storage.list_objects(probe.PREFIX):
        if info.size <= SPEED_BYTES and _is_probe(info.name):
            yield Leftover(info.name, info.size, ulid_time(info.name.removeprefix(probe.PREFIX)))


def _is_probe(name: str) -> bool:
    try:
        ulid_time(name.removeprefix(probe.PREFIX))
    except ValueError:
        return False
    return name.startswith(probe.PREFIX)


def _is_ours(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    is_in_root = not folder and (name == config.NAME or last.startswith(TEMPORARY_PREFIX))
    return is_in_root or name.startswith(_PLACES)
