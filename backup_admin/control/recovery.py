"""After a crash: let the engine finish or undo restores, and make the rows say so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import select

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Actor
from backup_admin.control.journals import journal_of, status_of, unfinished
from backup_admin.control.perform_restore import restore_hooks, tell_host
from backup_admin.core.clock import parse_time
from backup_admin.core.errors import BackupAdminError, Busy
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.journal import Step, open_journal
from backup_admin.operations.recover import Recovered, recover
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from backup_admin.control.installation import Installation

logger = logging.getLogger(__name__)

_NOBODY = Actor("", "recovery")


def has_unfinished(installation: Installation) -> bool:
    """Say whether a restore neither ended nor waits for a person; reads a folder."""
    return bool(unfinished(installation))


def recover_restores(installation: Installation) -> tuple[Recovered, ...]:
    """Finish or undo what a dead process left; nothing when its process lives.

    Safe at any time and in any number of processes: the engine's lock is held
    by whoever carries out a restore, and ends with that process.
    """
    recovered: tuple[Recovered, ...] = ()
    if has_unfinished(installation):
        try:
            recovered = recover(
                installation.state,
                hooks=restore_hooks(installation.hooks),
                reporter=QuietReporter(),
                clock=installation.clock,
            )
        except Busy:
            return ()
        for one in recovered:
            _note(installation, one)
            tell_host(installation.hooks, one.outcome)
    settle_rows(installation, recovered)
    return recovered


def settle_rows(installation: Installation, recovered: tuple[Recovered, ...] = ()) -> None:
    """Write into the rows how restores ended, where their journals know it.

    Only of rows whose process was given up: a living one writes its own end.
    """
    messages = {str(one.restore_id): one.message for one in recovered}
    with installation.database.new_session() as session:
        row = RestoreOperation
        lost = select(row).where(row.status == RestoreStatus.INTERRUPTED)
        for operation in session.scalars(lost).all():
            journal = journal_of(installation, operation.id)
            status = status_of(operation, journal)
            if journal is None or status is RestoreStatus.INTERRUPTED:
                continue
            operation.status = status
            operation.completed_at = journal.updated_at
            operation.message = messages.get(operation.id, operation.message)
            if status is RestoreStatus.RESTORED:
                _fill(installation, operation)
        session.commit()


def _note(installation: Installation, one: Recovered) -> None:
    """Audit a recovery; it must not fail for want of a log, so that is only told."""
    try:
        installation.audit().append(
            _NOBODY,
            "restore.recover",
            target=one.restore_id,
            outcome=AuditOutcome.DONE,
            reason=one.message,
            details={"outcome": one.outcome},
        )
    except BackupAdminError as error:
        logger.error("recovery is not in the audit log", extra={"why": str(error)})  # noqa: TRY400


def _fill(installation: Installation, operation: RestoreOperation) -> None:
    """Take from the journal what the dead process could not write."""
    journal = open_journal(installation.state, operation.id, installation.clock)
    end = journal.find(Step.COMMITTED) or {}
    operation.error_message = ""
    operation.checks = list((journal.find(Step.CHECKED) or {}).get("checks", ()))
    operation.safety_snapshot_id = str(end.get("safety", ""))
    if "undo_until" in end:
        operation.undo_until = parse_time(str(end["undo_until"]))
