"""The decision to skip: only when everything was found equal, and never for too long."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.ids import SnapshotId
from backup_admin.operations.changes import (
    OWN_TABLES,
    ChangeOptions,
    Circumstances,
    Decision,
    Finding,
    changed_tables,
    decide,
    holds_ours,
)
from backup_admin.repository.types import SAFETY, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
NEWEST = Snapshot(SnapshotId("01abc"), NOON, "scheduled", "", "completed", "", 1, 1, 1, 1, 1, 0)
STANDING = Circumstances(NEWEST, NOON + timedelta(hours=2), ("Database app", "Folder files"))
EQUAL = (Finding("Database app"), Finding("Folder files"))


def test_all_that_is_expected_and_equal_is_skipped() -> None:
    reason = "Nothing changed since snapshot 01abc of 2026-03-10 12:00 UTC; all of it was compared."
    assert decide(STANDING, EQUAL, ChangeOptions()) == Decision(run=False, reason=reason, unchanged="01abc")


def test_what_nobody_looked_at_is_not_equal() -> None:
    decision = decide(STANDING, EQUAL[:1], ChangeOptions())
    assert (decision.run, decision.reason) == (True, "Folder files: nothing proves that it did not change.")


def test_the_first_change_ends_it() -> None:
    def findings() -> Iterator[Finding]:
        yield Finding("Database app", "photos changed.")
        raise AssertionError("nobody has to look further")

    assert decide(STANDING, findings(), ChangeOptions()) == Decision(
        run=True, reason="Database app: photos changed."
    )


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (replace(STANDING, newest=None), "no snapshot yet"),
        (replace(STANDING, newest=replace(NEWEST, outcome="degraded")), "Something is missing"),
        (replace(STANDING, newest=replace(NEWEST, kind=SAFETY)), "safety backup"),
        (replace(STANDING, restored_at=NOON + timedelta(seconds=1)), "restore was begun"),
        (replace(STANDING, problem="The newest snapshot is damaged."), "is damaged"),
        (replace(STANDING, now=NOON - timedelta(minutes=1)), "not come yet"),
        (replace(STANDING, now=NOON + timedelta(hours=24)), r"as old as one may become .* \(24 h\)"),
        (replace(STANDING, now=NOON + timedelta(hours=23, minutes=59)), "as old as one may become"),
    ],
)
def test_whatever_the_sources_say_a_backup_is_made(standing: Circumstances, reason: str) -> None:
    decision = decide(standing, EQUAL, ChangeOptions())
    assert decision.run
    assert re.search(reason, decision.reason)


def test_a_restore_before_the_snapshot_and_an_age_below_the_limit_do_not_matter() -> None:
    standing = replace(STANDING, restored_at=NOON, now=NOON + timedelta(hours=22, minutes=59))
    assert not decide(standing, EQUAL, ChangeOptions()).run


def test_the_age_is_what_was_chosen() -> None:
    options = ChangeOptions(max_age=timedelta(hours=2))
    assert decide(STANDING, EQUAL, options).run
    assert not decide(replace(STANDING, now=NOON + timedelta(hours=1)), EQUAL, options).run


def test_tables_are_ignored_by_name_or_pattern_and_ours_always() -> None:
    options = ChangeOptions(ignored=("app.sessions", "app.cache_*", "*.queue"))
    ignored = ("sessions", "cache_1", "queue", "backup_runs", "backup_admin_changes")
    assert all(options.ignores("app", table, has_ours=True) for table in ignored)
    assert not any(options.ignores("app", table, has_ours=True) for table in ("session", "photos", "backups"))
    assert not options.ignores("other", "sessions", has_ours=True)


def test_a_table_of_the_app_that_is_called_like_one_of_ours_counts() -> None:
    assert not holds_ours({"photos", "backup_settings", "backup_runs"})
    assert holds_ours(OWN_TABLES)
    assert not ChangeOptions().ignores("app", "backup_settings", has_ours=False)


def test_changed_tables_are_named_and_a_migration_is_called_one() -> None:
    assert changed_tables(["b", "a"]) == "a, b changed."
    assert changed_tables(list("edcba")) == "a, b, c and 2 more changed."
    assert changed_tables(["a", "alembic_version"]) == "the app was migrated: alembic_version changed."
