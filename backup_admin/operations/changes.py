"""Whether a backup has to be made: skipped only when everything that was looked at is equal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from backup_admin.core.shown import show_moment
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from backup_admin.repository.types import Snapshot

MAX_SKIP_AGE = timedelta(hours=24)
_SLACK = 24  # a part of the age: a nightly schedule is never a few seconds short of a day
OWN_TABLES = frozenset(
    {
        "backup_change_tracking",
        "backup_heartbeats",
        "backup_manifests",
        "backup_recovery_codes",
        "backup_runs",
        "backup_schedules",
        "backup_second_factors",
        "backup_settings",
        "backup_step_ups",
        "backup_users",
        "restore_operations",
    }
)
"""The tables of the control database, where somebody keeps it in a database that is backed up."""
_ALWAYS_OURS = frozenset({"backup_manifests", "backup_runs", "backup_schedules"})
_OWN_PREFIX = "backup_admin_"
_MIGRATIONS = ("alembic_version", "django_migrations", "schema_migrations")


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """When to skip: never beyond an age, and tables that make no difference (`NAME.TABLE`, or patterns)."""

    max_age: timedelta = MAX_SKIP_AGE
    ignored: tuple[str, ...] = ()

    def ignores(self, database: str, table: str, *, has_ours: bool) -> bool:
        """Say whether a change of a table is none. It is backed up all the same."""
        if (has_ours and table in OWN_TABLES) or table.startswith(_OWN_PREFIX):
            return True
        return any(fnmatchcase(f"{database}.{table}", pattern) for pattern in self.ignored)


def holds_ours(tables: Iterable[str]) -> bool:
    """Say whether a database is the control database too; an app may have a table of one of these names."""
    return _ALWAYS_OURS.issubset(tables)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known before any source is looked at.

    `expected` names everything that has to be found equal. `problem` says why the newest
    snapshot cannot be relied on, if so. `restored_at` is when a restore last did something here.
    """

    newest: Snapshot | None
    now: datetime
    expected: tuple[str, ...]
    restored_at: datetime | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking at one source showed; without a change it is certainly as it was captured."""

    source: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """To run or to skip, and why, as a sentence; `unchanged` is the snapshot that still holds everything."""

    run: bool
    reason: str
    unchanged: str = ""


def decide(circumstances: Circumstances, findings: Iterable[Finding], options: ChangeOptions) -> Decision:
    """Decide whether a backup has to be made. What is in doubt is backed up.

    Findings are taken one by one, so those that cost most should come last: the first
    change settles it.
    """
    forced = why_forced(circumstances, options)
    if forced:
        return Decision(run=True, reason=forced)
    newest = circumstances.newest
    assert newest is not None  # noqa: S101 - without one it is forced
    equal = set()
    for finding in findings:
        if finding.change:
            return Decision(run=True, reason=f"{finding.source}: {finding.change}")
        equal.add(finding.source)
    unseen = [source for source in circumstances.expected if source not in equal]
    if unseen:
        return Decision(run=True, reason=f"{unseen[0]}: nothing proves that it did not change.")
    when = show_moment(newest.created_at)
    sentence = f"Nothing changed since snapshot {newest.id} of {when}; all of it was compared."
    return Decision(run=False, reason=sentence, unchanged=newest.id)


def why_forced(circumstances: Circumstances, options: ChangeOptions) -> str:
    """Return why a backup has to be made whatever the sources say; empty when none has to."""
    if circumstances.problem:
        return circumstances.problem
    if circumstances.newest is None:
        return "There is no snapshot yet."
    return next(_reasons(circumstances.newest, circumstances, options), "")


def _reasons(newest: Snapshot, circumstances: Circumstances, options: ChangeOptions) -> Iterator[str]:
    if newest.kind == SAFETY:
        yield "The newest snapshot is the safety backup of a restore."
    if newest.outcome != "completed":
        yield "Something is missing from the newest snapshot."
    if circumstances.restored_at is not None and circumstances.restored_at > newest.created_at:
        yield "A restore was begun, made or undone since the newest snapshot."
    age = circumstances.now - newest.created_at
    if age < timedelta(0):
        yield "The newest snapshot is of a time that has not come yet, so its age is not known."
    if age >= options.max_age - options.max_age / _SLACK:
        hours = options.max_age.total_seconds() / 3600
        yield f"The newest snapshot is as old as one may become while nothing changes ({hours:g} h)."


def changed_tables(names: Iterable[str]) -> str:
    """Say which tables changed."""
    found = sorted(names)
    migrated = [name for name in found if name.rpartition(".")[2] in _MIGRATIONS]
    if migrated:
        return f"the app was migrated: {migrated[0]} changed."
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{', '.join(found[:3])}{more} changed."
