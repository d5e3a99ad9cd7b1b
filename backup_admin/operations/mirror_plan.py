"""What a mirror lacks: which objects must be copied or deleted, decided before anything is.

Neither a key nor the sources are needed: objects are told by their names, and no name is
ever used twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, StorageError, StorageUnavailable
from backup_admin.operations.mirror_place import common_head, is_first_mirror, need_apart
from backup_admin.operations.object_kinds import BEFORE_CHAIN, CHAIN, PACKS, SLOTS, Kind
from backup_admin.repository import config
from backup_admin.repository.chain import entry_name, find_last
from backup_admin.storage.base import CanBeMade, ObjectInfo, Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUOTES = len('"",')


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """What a mirror lacks, up to the entry `head` of the source.

    `objects` are to be copied in this order, then `entries`, then `config` when the mirror is
    made (`is_first`); only then `gone` may be deleted: what the mirror has and the source has not.
    `emptied` are prefixes that only the mirror has objects below, and `hole` is an entry that the
    source lost.
    """

    repo_id: str
    config: bytes
    is_first: bool
    head: int
    mirror_head: int
    objects: tuple[ObjectInfo, ...] = ()
    entries: tuple[ObjectInfo, ...] = ()
    gone: tuple[ObjectInfo, ...] = ()
    emptied: tuple[str, ...] = ()
    hole: str = ""

    @property
    def bytes(self) -> int:
        """Bytes to copy."""
        return sum(info.size for info in (*self.objects, *self.entries))

    @property
    def behind(self) -> int:
        """How many entries of the chain the mirror has not."""
        return max(0, self.head - self.mirror_head)

    @property
    def in_sync(self) -> bool:
        """Whether there is nothing to copy."""
        return not (self.objects or self.entries or self.is_first)

    @property
    def accounts_for_gone(self) -> bool:
        """Whether the entries to be copied are large enough to name all that is gone.

        Whatever is deleted is named in an entry before, and in one behind. Who cannot read
        them still sees their size: a snapshot's entry has no room for a hundred packs.
        """
        named = sum(len(info.name.rpartition("/")[2]) + _QUOTES for info in self.gone)
        return named <= sum(info.size for info in self.entries)


class Side(StrEnum):
    """Where an object is missing, or is another."""

    MIRROR = "mirror"
    SOURCE = "source"
    NOWHERE = "nowhere"


@dataclass(slots=True)
class _Found:
    """What listing found so far."""

    objects: list[ObjectInfo] = field(default_factory=list)
    gone: list[ObjectInfo] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)


def plan_mirror(source: Storage, mirror: Storage) -> MirrorPlan:
    """Compare two storages and say what a mirror of the first lacks; writes nothing.

    Raises `UsageError` when they are one, `NotARepository` when the source is none,
    `RepositoryExists` or `StorageNotEmpty` when other things are where the mirror belongs, and
    `HistoryChanged` when the mirror has commits that the source has not, and `Damaged`.
    """
    need_apart(source, mirror)
    parsed, raw = config.read_config(source)
    # First of all: what is committed by now has all its objects, and they are listed later.
    head = find_last(source)
    is_made = not isinstance(mirror, CanBeMade) or mirror.is_made()
    is_first = not is_made or is_first_mirror(source, mirror, raw, parsed.repo_id)
    mirror_head = common_head(source, mirror, head) if is_made else 0
    found = _Found()
    for kind in BEFORE_CHAIN:
        _compare(source, mirror if is_made else None, kind, found)
    entries, hole = _compare_chains(source, mirror if is_made else None, head, mirror_head)
    return MirrorPlan(
        parsed.repo_id.hex(),
        raw,
        is_first,
        head,
        mirror_head,
        tuple(found.objects),
        entries,
        tuple(found.gone),
        tuple(found.emptied),
        hole,
    )


def differences(source: Storage, mirror: Storage | None, kind: Kind) -> Iterator[tuple[Side, ObjectInfo]]:
    """Go through both lists side by side and say where each object is missing; holds neither list.

    An object of another size counts as missing in the mirror.
    """
    ours = ((info.name, True, info) for info in _listed(source, kind))
    theirs = ((info.name, False, info) for info in _listed(mirror, kind))
    for _, group in groupby(merge(ours, theirs, key=itemgetter(0)), key=itemgetter(0)):
        found = {is_ours: info for _, is_ours, info in group}
        if True not in found:
            yield Side.SOURCE, found[False]
        elif False in found and found[False].size == found[True].size:
            yield Side.NOWHERE, found[True]
        else:
            yield Side.MIRROR, found[True]


def is_moved(source: Storage, plan: MirrorPlan) -> bool:
    """Say whether something was committed since: the plan may then name what was deleted meanwhile."""
    return source.stat(entry_name(plan.head + 1)) is not None


def _listed(storage: Storage | None, kind: Kind) -> Iterator[ObjectInfo]:
    last = ""
    for info in storage.list_objects(kind.prefix) if storage is not None else ():
        if info.name <= last:
            raise StorageError(f"{info.name} is listed behind {last}: nothing follows from such a list.")
        last = info.name
        if kind.has(info.name):
            yield info


def _compare(source: Storage, mirror: Storage | None, kind: Kind, found: _Found) -> None:
    """Add what one kind of objects differs by. What a list lacks is looked up before it counts as gone."""
    has_any = False
    gone = []
    for side, info in differences(source, mirror, kind):
        has_any = has_any or side is not Side.SOURCE
        if side is Side.MIRROR:
            found.objects.append(info)
        elif side is Side.SOURCE and kind.vanishes and source.stat(info.name) is None:
            gone.append(info)
    if gone and not has_any and kind in (SLOTS, PACKS):
        found.emptied.append(kind.prefix)
    found.gone += gone


def _compare_chains(
    source: Storage, mirror: Storage | None, head: int, mirror_head: int
) -> tuple[tuple[ObjectInfo, ...], str]:
    """Return the entries the mirror lacks, and one that the source lost; raise `Damaged` for a newer one."""
    entries, hole = [], ""
    expected = 1
    for side, info in differences(source, mirror, CHAIN):
        if side is Side.SOURCE:
            continue
        seq = int(info.name.removeprefix(CHAIN.prefix))
        if seq != expected:
            hole = _need_no_hole(source, expected, mirror_head)
        if side is Side.MIRROR and seq <= head:
            entries.append(info)
        expected = seq + 1
    if expected <= head:
        hole = _need_no_hole(source, expected, mirror_head)
    return tuple(entries), hole


def _need_no_hole(source: Storage, seq: int, mirror_head: int) -> str:
    """Return the name of an entry that is not there; raise `Damaged` when the mirror lacks it too."""
    name = entry_name(seq)
    if source.stat(name) is not None:
        raise StorageUnavailable(f"{source.label} does not list {name}, which is there; try again later.")
    if seq > mirror_head:
        raise Damaged(
            f"{name} is missing from {source.label}, and later entries are there. Nothing was copied. "
            "`repair --history` writes the history anew."
        )
    return name
