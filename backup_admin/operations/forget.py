"""Forget snapshots: by name or by policy, with a reason for each; deletes no data.

What only forgotten snapshots held stays in the storage until it is pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import parse_time
from backup_admin.core.errors import Damaged, ForgetRefused, SnapshotMissing
from backup_admin.core.shown import show_moment, show_text
from backup_admin.operations.retention import Policy, RetentionPlan, plan_retention
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Snapshot

_ATTEMPTS = 5
_COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What is to be forgotten; `unreadable` snapshots stay, since nothing is known about them."""

    retention: RetentionPlan
    unreadable: tuple[SnapshotId, ...]

    @property
    def removed(self) -> tuple[SnapshotId, ...]:
        """The snapshots to forget, in the order of their commits."""
        return self.retention.removed


class _Stale(Exception):
    """Something changed since the plan was made."""


def pinned_snapshots(repository: Repository, now: datetime) -> dict[str, str]:
    """Return the snapshots that a pin holds now, each with the reason."""
    pinned: dict[str, str] = {}
    for pin in repository.history.pins.values():
        if pin.until and parse_time(pin.until) <= now:
            continue
        until = f" until {show_moment(parse_time(pin.until))}" if pin.until else ""
        pinned[pin.snapshot] = f"pinned{until}: {show_text(pin.reason) or 'no reason given'}"
    return pinned


def plan_forget(
    repository: Repository, policy: Policy, *, verified: Collection[str], now: datetime
) -> ForgetPlan:
    """Say what a policy would forget; reads only the headers. Raises `UsageError`."""
    found, unreadable = _headers(repository)
    pinned = pinned_snapshots(repository, now)
    return ForgetPlan(plan_retention(found, policy, now=now, pinned=pinned, verified=verified), unreadable)


def forget_by_policy(
    repository: Repository, policy: Policy, *, verified: Collection[str], actor: str, clock: Clock
) -> ForgetPlan:
    """Forget what a policy does not keep, and return the plan that was carried out.

    When another process commits meanwhile, the plan is made anew. Raises
    `UsageError`, `HistoryChanged` or `ChainConflict`.
    """
    for _ in range(_ATTEMPTS):
        plan = plan_forget(repository, policy, verified=verified, now=clock.now())
        if not plan.removed:
            return plan
        reasons = {one.snapshot.id: list(one.reasons) for one in plan.retention.decisions if not one.keep}
        if _record(repository, plan.removed, reasons, actor):
            return plan
    raise ForgetRefused("Other processes kept changing what is to be forgotten. Nothing was; try again.")


def forget_named(
    repository: Repository,
    snapshots: Sequence[SnapshotId],
    *,
    force: bool,
    actor: str,
    clock: Clock,
    dry_run: bool = False,
) -> None:
    """Forget exactly these snapshots.

    Raises `ForgetRefused` for one that is pinned and, unless `force`, for the
    newest complete one; then nothing is forgotten.
    """
    for _ in range(_ATTEMPTS):
        _need_known(repository, snapshots)
        _refuse_pinned(repository, snapshots, clock.now())
        if not force:
            _refuse_newest(repository, snapshots)
        reasons = {snapshot: ["named"] for snapshot in snapshots}
        if dry_run or _record(repository, tuple(snapshots), reasons, actor):
            return
    raise ForgetRefused("Other processes kept changing what is to be forgotten. Nothing was; try again.")


def _record(
    repository: Repository, removed: Sequence[SnapshotId], reasons: dict[SnapshotId, list[str]], actor: str
) -> bool:
    """Append the entry; False when others were first, so that the plan may not stand any more."""

    def look_again(_entries: Sequence[ChainEntry]) -> None:
        raise _Stale

    try:
        repository.record(
            "forget", {"ids": list(removed), "reasons": reasons}, actor=actor, look_again=look_again
        )
    except _Stale:
        return False
    return True


def _need_known(repository: Repository, snapshots: Sequence[SnapshotId]) -> None:
    known = set(repository.snapshot_ids())
    gone = [snapshot for snapshot in snapshots if snapshot not in known]
    if gone:
        raise SnapshotMissing(f"{repository.label} has no snapshot {gone[0]}. Nothing was forgotten.")


def _refuse_pinned(repository: Repository, snapshots: Sequence[SnapshotId], now: datetime) -> None:
    pinned = pinned_snapshots(repository, now)
    for snapshot in snapshots:
        if snapshot in pinned:
            raise ForgetRefused(
                f"Snapshot {snapshot} is {pinned[snapshot]}. Nothing was forgotten; unpin it first."
            )


def _refuse_newest(repository: Repository, snapshots: Sequence[SnapshotId]) -> None:
    """Refuse to forget the newest complete snapshot, or all there are."""
    found, unreadable = _headers(repository)
    complete = [one for one in found if one.outcome == _COMPLETED and one.kind != SAFETY]
    if complete and complete[-1].id in snapshots:
        raise ForgetRefused(
            f"Snapshot {complete[-1].id} is the newest complete one. Nothing was forgotten; "
            "--force forgets it all the same."
        )
    if len(set(snapshots)) == len(found) + len(unreadable):
        raise ForgetRefused("These are all snapshots. Nothing was forgotten; --force does it all the same.")


def _headers(repository: Repository) -> tuple[list[Snapshot], tuple[SnapshotId, ...]]:
    found: list[Snapshot] = []
    unreadable: list[SnapshotId] = []
    for snapshot_id in repository.snapshot_ids():
        try:
            found.append(repository.snapshot(snapshot_id))
        except Damaged:
            unreadable.append(snapshot_id)
    return found, tuple(unreadable)
