"""Streams of SQLite databases: brought back to a time out of a repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders, rename_new
from backup_admin.core.errors import RestoreRefused
from backup_admin.core.shown import show_time
from backup_admin.operations.extract import extract
from backup_admin.repository.lookup import find_entry
from backup_admin.sources.litestream import (
    LTX,
    StreamPoint,
    find_litestream,
    newest_by,
    restore_stream,
    stream_points,
)
from backup_admin.sources.sqlite import inspect_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import FilesRoot

# The program looks each second, and its files carry the time at which it looked.
SETTLED = timedelta(seconds=2)
_UNTOUCHED = "Nothing was written."


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The backup that holds a stream, and when it was read there."""

    snapshot: SnapshotId
    root: FilesRoot
    name: str
    sealed_at: datetime
    moment: datetime | None


@dataclass(frozen=True, slots=True)
class StreamReport:
    """A database that came back: where in the stream, and what comes next in it."""

    plan: StreamPlan
    landed: StreamPoint
    following: StreamPoint | None


def plan_stream(repository: Repository, name: str, moment: datetime | None) -> StreamPlan:
    """Find the first backup that read a stream after a moment, or the newest; raise `RestoreRefused`."""
    found: StreamPlan | None = None
    newest: StreamPlan | None = None
    for snapshot_id in reversed(repository.snapshot_ids()):
        plan = _look_into(repository, snapshot_id, name, moment)
        if plan is None:
            continue
        newest = newest or plan
        if moment is not None and plan.sealed_at < moment + SETTLED:
            break
        found = plan
        if moment is None:
            break
    if found is not None:
        return found
    if newest is None:
        raise RestoreRefused(
            f"No backup holds a stream {name!r}: `run` must protect the folder it goes to. {_UNTOUCHED}"
        )
    raise RestoreRefused(
        f"{show_time(moment or newest.sealed_at)} is not in any backup yet: the newest one with the stream "
        f"{name} read it at {show_time(newest.sealed_at)}. {_UNTOUCHED} Back up once more, or name a time up "
        f"to {show_time(newest.sealed_at - SETTLED)}."
    )


def _look_into(
    repository: Repository, snapshot_id: SnapshotId, name: str, moment: datetime | None
) -> StreamPlan | None:
    for root in repository.manifest(snapshot_id).files:
        if find_entry(repository.reader(), root, f"{name}/{LTX}".encode()) is not None:
            sealed = datetime.fromtimestamp(root.scan_started_ns / 1e9, UTC)
            return StreamPlan(snapshot_id, root, name, sealed, moment)
    return None


def restore_from_stream(
    repository: Repository, plan: StreamPlan, target: Path, *, state: StateFolder, reporter: Reporter
) -> StreamReport:
    """Write a database as it was at the moment to a new file, checked whole.

    Raises `RestoreRefused` for a time before the stream began, or when something is in the way.
    """
    if os.path.lexists(target):
        raise RestoreRefused(f"{target} is there already. {_UNTOUCHED} Name a new file.")
    program = find_litestream()
    with TemporaryDirectory(prefix="stream-", dir=state.scratch) as scratch:
        out = Path(scratch) / "out"
        only = (f"files/{plan.root.name}/{plan.name}",)
        report = extract(repository, plan.snapshot, out, only=only, reporter=reporter)
        if report.problems:
            raise RestoreRefused(f"The stream in the backup is damaged: {report.problems[0]} {_UNTOUCHED}")
        spool = out / "files" / plan.root.name / plan.name
        points = stream_points(spool)
        landed = _land(points, plan)
        make_folders(target.parent)
        written = target.with_name(f".{target.name}.restore-{os.getpid()}")
        try:
            restore_stream(program, spool, landed.txid, written)
            inspect_copy(written, thorough=True)
            rename_new(written, target)
        finally:
            written.unlink(missing_ok=True)
    following = next((point for point in points if point.txid > landed.txid), None)
    return StreamReport(plan, landed, following)


def _land(points: Sequence[StreamPoint], plan: StreamPlan) -> StreamPoint:
    if not points:
        raise RestoreRefused(f"The stream {plan.name} in the backup is empty. {_UNTOUCHED}")
    if plan.moment is None:
        return points[-1]
    landed = newest_by(points, plan.moment)
    if landed is None:
        raise RestoreRefused(
            f"{show_time(plan.moment)} is before the stream begins, at {show_time(points[0].time)}, in "
            f"snapshot {plan.snapshot}. {_UNTOUCHED} `restore latest --at` finds the backups before."
        )
    return landed
