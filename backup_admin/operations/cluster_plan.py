"""How a PostgreSQL cluster gets back to a time: which base backup, which timeline, which WAL. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.core.shown import show_time
from backup_admin.operations.base_backups import Base, WalPath, all_bases, walk
from backup_admin.operations.wal_archive import archived_cluster
from backup_admin.operations.wal_check import HISTORY, read_timelines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from backup_admin.repository.repository import Repository

_UNTOUCHED = "Nothing was written."


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Where to begin and what leads on; without a `moment` to the end of the archive.

    `histories` are all history files there are: the new timeline must be none of them. `others` are
    timelines that could be taken instead, `unreadable` snapshots which may hold a nearer base backup.
    """

    base: Base
    moment: datetime | None
    way: WalPath
    histories: tuple[str, ...]
    others: tuple[int, ...]
    unreadable: tuple[str, ...] = ()


def plan_cluster(
    repository: Repository, name: str, *, moment: datetime | None, timeline: int = 0
) -> ClusterPlan:
    """Choose base backup, timeline and segments; 0 is the newest timeline there is.

    Raises `RestoreRefused` when the time lies before the first base backup, or the WAL has a gap.
    """
    unreadable: list[str] = []
    base = choose_base(all_bases(repository, unreadable), name, moment)
    cluster = archived_cluster(repository, base.system)
    timelines = read_timelines(repository, cluster)
    reachable = timelines.after(base)
    target = timeline or reachable[-1]
    if target not in reachable:
        there = ", ".join(map(str, reachable))
        raise RestoreRefused(
            f"Timeline {target} cannot be reached from the base backup in snapshot {base.snapshot}; "
            f"there are: {there}. {_UNTOUCHED}"
        )
    way = walk(base, timelines, target, cluster.files)
    if way.missing and moment is None:
        raise RestoreRefused(
            f"WAL segment {way.missing} is missing, and later ones are there: the latest state cannot be "
            f"reached. {_UNTOUCHED} A time before the gap can: name one with --at."
        )
    histories = tuple(file for file in cluster.files if file.endswith(HISTORY))
    others = tuple(one for one in reachable if one != target)
    return ClusterPlan(base, moment, way, histories, others, tuple(unreadable))


def choose_base(bases: Sequence[Base], name: str, moment: datetime | None) -> Base:
    """Return the newest base backup of a cluster that had ended by a moment; raise `RestoreRefused`."""
    of_name = sorted((base for base in bases if base.name == name), key=lambda base: base.finished_at)
    if not of_name:
        there = ", ".join(sorted({base.name for base in bases})) or "none"
        raise RestoreRefused(
            f"There is no base backup of a cluster {name!r}; there are: {there}. {_UNTOUCHED}"
        )
    usable = [base for base in of_name if moment is None or base.finished_at <= moment]
    if not usable:
        first = of_name[0]
        raise RestoreRefused(
            f"{show_time(moment or first.finished_at)} is too early: the first base backup of {name} ended "
            f"at {show_time(first.finished_at)} (snapshot {first.snapshot}), and nothing before its end can "
            f"be reached. {_UNTOUCHED}"
        )
    return usable[-1]
