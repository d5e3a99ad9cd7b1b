"""Restores: confirm, start, follow, cancel and undo. Nothing here touches live data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from backup_admin.access import allowlist, step_up
from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Permission, require
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control.installation import RESTORE_JOB, UNDO_JOB, Installation, QueueUnavailable
from backup_admin.control.journals import journal_of, status_of
from backup_admin.control.rows_choice import RowsChoice
from backup_admin.control.rows_ended import WRITES, is_rows
from backup_admin.control.runs import SILENT_AFTER
from backup_admin.control.wizard import find_operation, stored_review
from backup_admin.core.errors import BackupAdminError, Busy, NotPermitted, RestoreRefused, UsageError
from backup_admin.operations.issues import Level
from backup_admin.operations.journal import Step
from backup_admin.records import ACTIVE_RESTORES, RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.access.allowlist import AllowDecision
    from backup_admin.access.permissions import Actor
    from backup_admin.operations.journal import JournalSummary

PLAN_LIFETIME = timedelta(minutes=30)
_STILL_UNTOUCHED = (
    Step.PLANNED,
    Step.STAGING,
    Step.STAGED,
    Step.VERIFIED,
    Step.QUIESCING,
    Step.SAFETY_BACKUP,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, as the server saw it."""

    peer: str
    forwarded_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a person gave to confirm a restore; the step-up lies in the database."""

    actor: Actor
    origin: Origin
    typed_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """What a person is shown of a restore; the journal counts before the row."""

    id: str
    status: RestoreStatus
    stage: str
    stage_index: int
    bytes_done: int
    bytes_total: int
    current: str
    message: str
    updated_at: datetime | None
    silent: bool
    can_cancel: bool
    can_undo: bool
    undo_until: datetime | None
    checks: tuple[Any, ...]
    journal_step: str
    waits_for_server: bool


def allow_decision(installation: Installation, origin: Origin) -> AllowDecision:
    """Say whether a restore may be started from where the request came from."""
    return allowlist.decide(
        installation.settings.restore_ip_allowlist,
        installation.settings.trusted_proxies,
        peer=origin.peer,
        forwarded_for=origin.forwarded_for,
    )


def start(
    session: Session, installation: Installation, operation_id: str, confirmation: Confirmation
) -> RestoreOperation:
    """Start a planned restore.

    Needs the permission `restore.execute`, an address on the allow-list, an
    unused step-up for the digest of exactly this plan, the typed name of the
    app, a reason, and a plan that nothing forbids. Raises `NotPermitted`,
    `UsageError`, `RestoreRefused`, `Busy` or `AuditFailed`; each refusal is audited.
    """
    operation = find_operation(session, operation_id)

    def check() -> None:
        _check_right(installation, confirmation)
        _check_plan(installation, operation)
        _check_typed(installation, confirmation)
        act = Act(Purpose.RESTORE, operation.plan_digest)
        step_up.consume(session, installation.clock, actor=confirmation.actor, act=act)

    _audited(installation, confirmation, operation, "restore.start", check)
    operation.reason = confirmation.reason.strip()
    operation.restored_by, operation.restored_by_name = confirmation.actor.id, confirmation.actor.name
    _queue(session, installation, operation, action="restore")
    return operation


def progress(session: Session, installation: Installation, operation_id: str) -> RestoreProgress:
    """Return where a restore stands: from its journal first, from its row second."""
    operation = find_operation(session, operation_id)
    journal = journal_of(installation, operation.id)
    now = installation.clock.now()
    heartbeat = operation.heartbeat_at
    silent = heartbeat is not None and now - heartbeat > SILENT_AFTER
    status = status_of(operation, journal)
    if operation.status is RestoreStatus.RUNNING and heartbeat is not None and not silent:
        status = RestoreStatus.RUNNING  # whoever carries it out has yet to say how it ended
    running = status is RestoreStatus.RUNNING
    return RestoreProgress(
        id=operation.id,
        status=status,
        stage=operation.stage,
        stage_index=operation.stage_index,
        bytes_done=operation.bytes_done,
        bytes_total=operation.bytes_total,
        current=operation.current,
        message=operation.error_message or operation.message,
        updated_at=operation.updated_at,
        silent=running and silent,
        can_cancel=status in ACTIVE_RESTORES and _is_untouched(operation, journal),
        can_undo=status is RestoreStatus.RESTORED and _may_undo(operation, now),
        undo_until=operation.undo_until,
        checks=tuple(operation.checks),
        journal_step=journal.step.value if journal else "",
        waits_for_server=status is RestoreStatus.NEEDS_ATTENTION and journal is not None and journal.away,
    )


def cancel(session: Session, installation: Installation, operation_id: str, actor: Actor) -> None:
    """Ask a restore to stop; it does so only while nothing live was changed."""
    operation = find_operation(session, operation_id)
    require(actor, Permission.RESTORE)
    installation.audit().append(actor, "restore.cancel", target=operation.id)
    if not _is_untouched(operation, journal_of(installation, operation.id)):
        raise UsageError("It is past the point where it can stop; if a check fails it goes back by itself.")
    values = {
        "status": RestoreStatus.CANCELLED,
        "completed_at": installation.clock.now(),
        "message": "Cancelled before it began; nothing was touched.",
    }
    if operation.action == "restore" and _change(session, operation, RestoreStatus.QUEUED, values):
        return
    if not _change(session, operation, RestoreStatus.RUNNING, {"cancel_requested": True}):
        raise UsageError("This restore is not under way.")


def undo(
    session: Session, installation: Installation, operation_id: str, confirmation: Confirmation
) -> RestoreOperation:
    """Put the state before a restore back; needs a step-up of its own (`Purpose.UNDO`, the id)."""
    operation = find_operation(session, operation_id)

    def check() -> None:
        _check_right(installation, confirmation)
        if operation.status is not RestoreStatus.RESTORED:
            raise UsageError(f"This restore is {operation.status.value}; there is nothing to undo.")
        if not _may_undo(operation, installation.clock.now()):
            raise RestoreRefused(
                "The state before this restore is no longer kept; restore its safety backup."
            )
        act = Act(Purpose.UNDO, operation.id)
        step_up.consume(session, installation.clock, actor=confirmation.actor, act=act)

    _audited(installation, confirmation, operation, "restore.undo", check)
    _queue(session, installation, operation, action="undo")
    return operation


def undo_here(session: Session, installation: Installation, operation_id: str, actor: Actor) -> None:
    """Mark a restore to be undone by this very process: the command line asked for it.

    Who may run commands on the server has the files themselves; no step-up.
    """
    operation = find_operation(session, operation_id)
    if operation.status is not RestoreStatus.RESTORED:
        raise UsageError(f"This restore is {operation.status.value}; there is nothing to undo.")
    installation.audit().append(actor, "restore.undo", target=operation.id)
    _mark_queued(session, installation, operation, action="undo")


def _check_right(installation: Installation, confirmation: Confirmation) -> None:
    installation.require_writable()
    installation.require_queue()
    require(confirmation.actor, Permission.RESTORE)
    decision = allow_decision(installation, confirmation.origin)
    if not decision.allowed:
        raise NotPermitted(f"A restore cannot be started from here: {decision.reason}.")


def _check_plan(installation: Installation, operation: RestoreOperation) -> None:
    if operation.status is not RestoreStatus.DRAFT:
        raise UsageError(f"This restore is {operation.status.value} already.")
    review = stored_review(operation)
    if review is None or operation.planned_at is None:
        raise UsageError("There is no plan to confirm; go to the review first.")
    if installation.clock.now() - operation.planned_at > PLAN_LIFETIME:
        raise UsageError("The plan is older than 30 minutes; look at a fresh one before you confirm.")
    if review.blocked:
        reasons = " ".join(issue.message for issue in review.issues if issue.level is Level.BLOCK)
        raise RestoreRefused(f"{reasons} Nothing was touched.")


def _check_typed(installation: Installation, confirmation: Confirmation) -> None:
    if confirmation.typed_name.strip() != installation.settings.app_name:
        raise UsageError("The typed name is not the name of this app.")
    if not confirmation.reason.strip():
        raise UsageError("Say why: the reason stands in the audit log.")


def _audited(
    installation: Installation,
    confirmation: Confirmation,
    operation: RestoreOperation,
    action: str,
    check: Callable[[], None],
) -> None:
    """Check, and write down how that ended before anything begins."""
    audit = installation.audit()
    details = {
        "plan": operation.plan_digest,
        "snapshot": operation.snapshot_id,
        "second_factor": "yes",
        "type": operation.restore_type,
    }
    if is_rows(operation):
        details["asked"] = RowsChoice.from_plain(operation.selection).words
    try:
        check()
    except BackupAdminError as error:
        details["second_factor"] = "not reached"
        audit.append(
            confirmation.actor,
            action,
            target=operation.id,
            outcome=AuditOutcome.DENIED,
            reason=str(error),
            details=details,
        )
        raise
    audit.append(
        confirmation.actor, action, target=operation.id, reason=confirmation.reason.strip(), details=details
    )


def _queue(session: Session, installation: Installation, operation: RestoreOperation, *, action: str) -> None:
    """Hand a restore to the worker; when that fails it is as before, never "some time later"."""
    before, before_action = operation.status, operation.action
    _mark_queued(session, installation, operation, action=action)
    try:
        installation.require_queue().enqueue(RESTORE_JOB if action == "restore" else UNDO_JOB, operation.id)
    except QueueUnavailable:
        operation.status, operation.action = before, before_action
        session.commit()
        raise


def _mark_queued(
    session: Session, installation: Installation, operation: RestoreOperation, *, action: str
) -> None:
    operation.status, operation.action = RestoreStatus.QUEUED, action
    operation.cancel_requested = False
    operation.heartbeat_at = None  # that of the restore says nothing of who is to undo it
    operation.updated_at = installation.clock.now()
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise Busy("Another restore is under way; wait for it to end.") from error


def _is_untouched(operation: RestoreOperation, journal: JournalSummary | None) -> bool:
    if operation.action == "undo":
        return False
    if is_rows(operation):
        return operation.stage != WRITES and (journal is None or journal.step in _STILL_UNTOUCHED)
    return journal is None or journal.step in _STILL_UNTOUCHED


def _may_undo(operation: RestoreOperation, now: datetime) -> bool:
    return operation.undone_at is None and operation.undo_until is not None and now < operation.undo_until


def _change(
    session: Session, operation: RestoreOperation, from_status: RestoreStatus, values: dict[str, Any]
) -> bool:
    row = RestoreOperation
    change = update(row).where(row.id == operation.id, row.status == from_status).values(values)
    won = session.execute(change.returning(row.id), execution_options={"synchronize_session": False}).all()
    session.commit()
    session.refresh(operation)
    return bool(won)
