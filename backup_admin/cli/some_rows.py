"""Restoring chosen tables and rows into a live database: `restore --table`, `restore --rows`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.cli.in_place import ask
from backup_admin.cli.named_sources import make_sources
from backup_admin.cli.opening import actor, choose, open_given
from backup_admin.cli.printing import say
from backup_admin.core.errors import UsageError
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.operations.attempts import attempting, note_attempt
from backup_admin.operations.layout import check_layout
from backup_admin.operations.restore_report import RestoreTools
from backup_admin.operations.restore_rows import carry_out_rows, end_at_once, plan_rows
from backup_admin.operations.rows_answers import answer_rows, answer_rows_plan, rows_plan_lines
from backup_admin.operations.rows_asked import AskedRows, select_rows

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.cli.opening import Surroundings
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.answers import Answer
    from backup_admin.operations.results import SourceSet
    from backup_admin.operations.rows_plan import RowsSelection
    from backup_admin.repository.repository import Repository

_STOPPED_LIVE = "Nothing live was changed."


@dataclass(frozen=True, slots=True)
class Access:
    """The snapshot, where it is and how it is opened."""

    snapshot: str
    at: str
    storage: str
    key_file: Path | None
    state_dir: Path | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Tables and rows as they were asked for, and the live places."""

    tables: tuple[str, ...]
    rows: tuple[str, ...]
    on_conflict: str
    linked: tuple[str, ...]
    files: tuple[str, ...]
    sqlite: tuple[str, ...]
    postgres: tuple[str, ...]


def restore_some(
    surroundings: Surroundings, access: Access, chosen: Chosen, *, yes: bool, dry_run: bool
) -> Answer:
    """Restore tables or rows into a live database, after what would happen was shown and agreed to."""
    targets = make_sources(chosen.files, chosen.sqlite, chosen.postgres)
    selection = select_from(chosen, targets)
    if not (yes or dry_run or surroundings.is_terminal):
        raise UsageError("There is no terminal to ask for consent: give --yes. Nothing was touched.")
    repository, state = open_given(surroundings, access.storage, access.key_file, access.state_dir)
    with nullcontext() if dry_run else attempting(state, surroundings.clock):
        return _restore_some(
            surroundings, access, (targets, selection), (repository, state), yes=yes, dry_run=dry_run
        )


def _restore_some(
    surroundings: Surroundings,
    access: Access,
    asked: tuple[SourceSet, RowsSelection],
    opened: tuple[Repository, StateFolder],
    *,
    yes: bool,
    dry_run: bool,
) -> Answer:
    (targets, selection), (repository, state) = asked, opened
    check_layout(repository.storage, targets)
    snapshot = repository.snapshot(choose(surroundings, repository, access.snapshot, access.at))
    with surroundings.reporting(_STOPPED_LIVE) as reporter:
        plan = plan_rows(repository, snapshot.id, targets, selection, state=state, reporter=reporter)
    if dry_run:
        return answer_rows_plan(plan, snapshot)
    for line in rows_plan_lines(plan, snapshot):
        say(line)
    if not (yes or plan.report.is_refused or plan.is_empty):
        ask("Restore this now?")
    with surroundings.reporting(_STOPPED_LIVE, patient=True) as reporter:
        tools = RestoreTools(state, reporter, surroundings.clock)
        restore_id = RestoreId(new_ulid(surroundings.clock.now()))
        report = carry_out_rows(plan, repository, targets, restore_id=restore_id, actor=actor(), tools=tools)
    if end_at_once(plan, restore_id) is not None:
        note_attempt(state, surroundings.clock)
    return answer_rows(report, plan, "backup-admin")


def select_from(chosen: Chosen, targets: SourceSet) -> RowsSelection:
    """Read what was asked for of the databases that were named; raise `UsageError`."""
    names = [source.name for source in targets.databases]
    names += [source.name for source in targets.postgres]
    if not names:
        raise UsageError("Say where the live database is: --sqlite NAME=FILE or --postgres NAME=ADDRESS.")
    return select_rows(AskedRows(chosen.tables, chosen.rows, chosen.on_conflict, chosen.linked), names)
