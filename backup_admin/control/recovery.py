"""After a crash: let the engine finish or undo restores, and make the rows say so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import select

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Actor
from backup_admin.control import engine
from backup_admin.control.journals import is_closed, journal_of, restored_at, status_of, unfinished
from backup_admin.control.perform_restore import restore_hooks, tell_host
from backup_admin.core.clock import parse_time
from backup_admin.core.errors import BackupAdminError, Busy
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.journal import Step, open_journal
from backup_admin.operations.put_back import is_away
from backup_admin.operations.recover import Recovered, recover
from backup_admin.operations.undo import remove_expired
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.operations.journal import JournalSummary

logger = logging.getLogger(__name__)

_NOBODY = Actor("", "recovery")


def needs_recovery(session: Session, installation: Installation) -> bool:
    """Say whether there is something to finish that waits neither for a person nor for a server."""
    row = RestoreOperation
    waiting = select(row.id).where(row.status == RestoreStatus.NEEDS_ATTENTION)
    ids = set(session.scalars(waiting))
    found = unfinished(installation)
    waits = [_waits(installation, one, one.restore_id in ids) for one in found]
    return not all(waits) or (is_closed(installation) and not ids and not found)


def _waits(installation: Installation, one: JournalSummary, by_row: bool) -> bool:
    """Say whether a restore waits: for a server that was away until that answers, else for a person."""
    if not one.away:
        return by_row
    journal = open_journal(installation.state, one.restore_id, installation.clock)
    return is_away(journal, engine.postgres_sources(installation.settings))


def recover_restores(installation: Installation) -> tuple[Recovered, ...]:
    """Finish or undo what a dead process left; nothing while one is at work.

    Safe at any time and in any number of processes: the engine's lock is held
    by whoever carries out a restore, and ends with that process.
    """
    recovered = recover(
        installation.state,
        hooks=restore_hooks(installation),
        reporter=QuietReporter(),
        clock=installation.clock,
    )
    with installation.database.new_session() as session:
        for one in recovered:
            _settle(session, installation, one)
        _settle_silent(session, installation)
        session.commit()
    for one in recovered:
        _note(installation, one)
        tell_host(installation.hooks, one.outcome)
    return recovered


def remove_old_states(installation: Installation) -> tuple[str, ...]:
    """Remove what was kept for an undo whose time is over; nothing while a restore is at work."""
    if not (installation.settings.state_dir / "restores").is_dir():
        return ()
    try:
        servers = engine.postgres_sources(installation.settings)
        return tuple(remove_expired(installation.state, installation.clock, servers))
    except Busy:
        return ()


def _settle(session: Session, installation: Installation, one: Recovered) -> None:
    """Write into its row how a restore ended; its process is dead, for we had its lock."""
    operation = session.get(RestoreOperation, one.restore_id)
    if operation is None:
        return
    operation.status = RestoreStatus(one.outcome)
    operation.message = operation.error_message = one.message
    operation.updated_at = now = installation.clock.now()
    _fill(installation, operation, now)


def _settle_silent(session: Session, installation: Installation) -> None:
    """The same for rows whose process died after the journal's end, before the row's."""
    lost = select(RestoreOperation).where(RestoreOperation.status == RestoreStatus.INTERRUPTED)
    for operation in session.scalars(lost).all():
        journal = journal_of(installation, operation.id)
        status = status_of(operation, journal)
        if journal is None or status is RestoreStatus.INTERRUPTED:
            continue
        operation.status = status
        _fill(installation, operation, journal.updated_at)


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


def _fill(installation: Installation, operation: RestoreOperation, ended: datetime) -> None:
    """Take from the journal what the dead process could not write."""
    operation.completed_at = restored_at(operation, ended)
    journal = open_journal(installation.state, operation.id, installation.clock)
    end = journal.find(Step.COMMITTED) or {}
    if operation.status is RestoreStatus.UNDONE:
        operation.undone_at = ended
    if operation.status in (RestoreStatus.RESTORED, RestoreStatus.UNDONE):
        operation.error_message = ""
    checked = Step.UNDONE if operation.status is RestoreStatus.UNDONE else Step.CHECKED
    operation.checks = list((journal.find(checked) or {}).get("checks", ()))
    operation.safety_snapshot_id = str(end.get("safety", ""))
    if "undo_until" in end:
        operation.undo_until = parse_time(str(end["undo_until"]))
