"""After a crash: finish or undo every restore whose journal is open."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.clock import Clock, format_time
from backup_admin.core.errors import BackupAdminError, Busy, JournalFailed, SourceError
from backup_admin.operations import restore_parts as parts
from backup_admin.operations.journal import Journal, Step, open_journals
from backup_admin.operations.maintenance import reopen
from backup_admin.operations.postgres_part import PostgresPart
from backup_admin.operations.put_back import journal_parts, put_back, swap_again, what_next
from backup_admin.operations.rows_undo import is_rows_journal, recover_rows
from backup_admin.operations.undo import finish_undo

if TYPE_CHECKING:
    from backup_admin.core.ids import RestoreId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.databases import CheckLine
    from backup_admin.operations.restore_report import RestoreHooks


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one interrupted restore."""

    restore_id: RestoreId
    outcome: str
    message: str


def recover(
    state: StateFolder, *, hooks: RestoreHooks, reporter: Reporter, clock: Clock
) -> tuple[Recovered, ...]:
    """Bring every interrupted restore to an end; there is no third outcome.

    Before the last swap everything is put back, after it the restore is
    finished. Does nothing while a restore is at work in this state folder. Needs
    neither the storage nor a key.
    """
    try:
        with state.lock("restore"):
            results = [
                _recover(journal, state, hooks=hooks, reporter=reporter, clock=clock)
                for journal in open_journals(state, clock)
                if not journal.finished
            ]
            if state.maintenance_flag.exists() and all(one.outcome != "needs_attention" for one in results):
                reopen(state, hooks.maintenance)  # died between the last line and letting writers in
    except Busy:
        return ()
    return tuple(results)


def _recover(
    journal: Journal, state: StateFolder, *, hooks: RestoreHooks, reporter: Reporter, clock: Clock
) -> Recovered:
    if is_rows_journal(journal):
        outcome, message = recover_rows(journal, state, hooks.servers, clock)
        return Recovered(journal.restore_id, outcome, message)
    if journal.has(Step.UNDOING):
        report = finish_undo(journal, state, hooks=hooks, reporter=reporter, clock=clock)
        return Recovered(journal.restore_id, report.outcome, report.message)
    if journal.has(Step.ALL_SWAPPED) and not journal.has(Step.ROLLING_BACK):
        away = _away(journal, hooks)
        if away:
            return _wait(journal, state, away)
        return _finish(journal, state, hooks=hooks, clock=clock)
    outcome, message = put_back(journal, state, hooks, reason="interrupted")
    return Recovered(journal.restore_id, outcome, f"The restore was interrupted and undone. {message}")


def _away(journal: Journal, hooks: RestoreHooks) -> str:
    """Say which server cannot be reached: what was swapped there is to be finished when it is back."""
    try:
        for part in journal_parts(journal, hooks.servers):
            if isinstance(part, PostgresPart):
                part.check()
    except SourceError as error:
        return str(error)
    return ""


def _wait(journal: Journal, state: StateFolder, reason: str) -> Recovered:
    with suppress(JournalFailed):  # it said before that it is not finished
        journal.write(Step.ATTENTION, reason=reason, away=True)
    text = (
        f"{reason} The restored state is in place and was not checked; nothing was changed now. "
        f"{what_next(state, away=True)}"
    )
    return Recovered(journal.restore_id, "needs_attention", text)


def _finish(journal: Journal, state: StateFolder, *, hooks: RestoreHooks, clock: Clock) -> Recovered:
    try:
        swap_again(journal, hooks.servers)
        checks = _check_databases(journal, hooks)
        reason = next((f"{line.topic}: {line.found}" for line in checks if not line.ok), "")
    except (BackupAdminError, OSError) as error:
        checks, reason = (), str(error)
    if reason:
        outcome, message = put_back(journal, state, hooks, reason=reason)
        return Recovered(
            journal.restore_id, outcome, f"The restore could not be finished: {reason}. {message}"
        )
    planned = journal.find(Step.PLANNED) or {}
    until = clock.now() + timedelta(hours=float(planned["undo_hours"]))
    journal.write(Step.CHECKED, checks=[asdict(line) for line in checks])
    safety = str((journal.find(Step.SAFETY_BACKUP) or {}).get("snapshot", ""))
    journal.write(Step.COMMITTED, undo_until=format_time(until), safety=safety, notices=[])
    reopen(state, hooks.maintenance)
    return Recovered(
        journal.restore_id, "restored", "The restore was interrupted after the swap; it is finished."
    )


def _check_databases(journal: Journal, hooks: RestoreHooks) -> tuple[CheckLine, ...]:
    return tuple(
        line
        for part in journal_parts(journal, hooks.servers)
        if not isinstance(part, parts.TreePart)
        for line in part.compare_with_staged()
    )
