"""What the journals of restores say, which counts before what the rows say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.operations.journal import Step, list_journals, open_journal
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from datetime import datetime

    from backup_admin.control.installation import Installation
    from backup_admin.operations.journal import JournalSummary

_ENDED = {
    Step.COMMITTED: RestoreStatus.RESTORED,
    Step.CLEANED: RestoreStatus.RESTORED,
    Step.ROLLED_BACK: RestoreStatus.ROLLED_BACK,
    Step.UNDONE: RestoreStatus.UNDONE,
    Step.ATTENTION: RestoreStatus.NEEDS_ATTENTION,
}
_NO_END = (RestoreStatus.RUNNING, RestoreStatus.INTERRUPTED, RestoreStatus.QUEUED)


def journal_of(installation: Installation, restore_id: str) -> JournalSummary | None:
    """Return what the journal of a restore says; None when it has not begun."""
    try:
        journal = open_journal(installation.state, restore_id, installation.clock)
    except UsageError:
        return None
    return journal.summary() if journal.lines else None


def status_of(operation: RestoreOperation, journal: JournalSummary | None) -> RestoreStatus:
    """Return the status of a restore: the journal's, where it knows how it ended."""
    if journal is None or operation.status not in _NO_END:
        return operation.status
    if operation.action == "undo" and journal.step in (Step.COMMITTED, Step.CLEANED):
        return operation.status  # the undo waits or has only begun
    if operation.status is RestoreStatus.QUEUED:
        return operation.status
    return _ENDED.get(journal.step, operation.status)


def restored_at(operation: RestoreOperation, ended: datetime) -> datetime:
    """Return when a restore ended, told that something of it ended: not when its undo did, or failed."""
    return operation.completed_at if operation.action == "undo" and operation.completed_at else ended


def unfinished(installation: Installation) -> tuple[JournalSummary, ...]:
    """Return the restores that have not ended; reads a folder, writes nothing."""
    if not (installation.settings.state_dir / "restores").is_dir():
        return ()
    journals = list_journals(installation.state, installation.clock)
    return tuple(one for one in journals if not one.finished)


def is_closed(installation: Installation) -> bool:
    """Say whether writers are kept out; the flag outlives a process."""
    # Not by StateFolder: it would create the folder of an app without set-up.
    return (installation.settings.state_dir / "maintenance").exists()
