"""A restore in place that the command line asked for, carried out by the same process.

Who may run commands on the server has the files themselves: no second factor and no
allow-list. The row and the audit log are kept as for a restore from the pages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IntegrityError

from backup_admin.access.audit import AuditOutcome
from backup_admin.control import catalogue, perform_restore, restores
from backup_admin.control.wizard import RestoreType, find_operation, keep_review, make_review
from backup_admin.core.errors import Busy, RestoreRefused
from backup_admin.core.ids import new_ulid
from backup_admin.operations.plans import Selection
from backup_admin.operations.restore_answers import blocks
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.control.wizard import Review
    from backup_admin.core.ids import SnapshotId
    from backup_admin.operations.restore_report import RestoreReport
    from backup_admin.repository.repository import Repository

_REASON = "asked for on the command line"


def plan_here(
    session: Session,
    installation: Installation,
    repository: Repository,
    snapshot_id: SnapshotId,
    selection: Selection,
) -> Review:
    """Plan and validate a restore; an empty selection means all there is. Writes nothing."""
    if not selection.files and not selection.databases:
        selection = Selection()
    return make_review(session, installation, repository, snapshot_id, selection)


def carry_out_here(
    session: Session, installation: Installation, repository: Repository, review: Review, actor: Actor
) -> RestoreReport:
    """Carry out a plan that a person has agreed to; return how it ended.

    What is refused is audited. Raises `RestoreRefused` for a plan that something
    forbids, `Busy` while another restore is under way, `AuditFailed`, and what
    stopped the restore before anything was touched.
    """
    installation.require_writable()
    row = _new_row(session, installation, repository, review, actor)
    reasons = " ".join(blocks(review.issues))
    details: dict[str, Any] = {"plan": review.digest, "snapshot": row.snapshot_id, "second_factor": "no"}
    outcome = AuditOutcome.DENIED if reasons else AuditOutcome.DONE
    installation.audit().append(
        actor, "restore.start", target=row.id, outcome=outcome, reason=reasons or _REASON, details=details
    )
    if reasons:
        raise RestoreRefused(f"{reasons} Nothing was touched.")
    session.add(row)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise Busy("Another restore is under way; wait for it to end. Nothing was touched.") from error
    return _at_once(session, installation, row)


def undo_at_once(
    session: Session, installation: Installation, operation_id: str, actor: Actor
) -> RestoreReport:
    """Put the state before a restore back; return how that ended."""
    restores.undo_here(session, installation, operation_id, actor)
    return _at_once(session, installation, find_operation(session, operation_id))


def _new_row(
    session: Session, installation: Installation, repository: Repository, review: Review, actor: Actor
) -> RestoreOperation:
    now = installation.clock.now()
    snapshot = repository.snapshot(review.plan.snapshot_id)
    known = catalogue.remember_snapshot(session, snapshot)
    session.commit()
    row = RestoreOperation(
        id=new_ulid(now),
        created_at=now,
        updated_at=now,
        restored_by=actor.id,
        restored_by_name=actor.name,
        snapshot_id=snapshot.id,
        source_backup_id=known.backup_run_id,
        restore_type=(RestoreType.PARTIAL if review.plan.left_out else RestoreType.FULL).value,
        selection={
            "files": [part.name for part in review.plan.files],
            "databases": [part.name for part in review.plan.databases],
        },
        status=RestoreStatus.QUEUED,
        action="restore",
        reason=_REASON,
        step=4,
    )
    keep_review(row, review, now)
    return row


def _at_once(session: Session, installation: Installation, row: RestoreOperation) -> RestoreReport:
    try:
        report = perform_restore.perform_here(installation, row)
    finally:
        session.refresh(row)
    return replace(report, notices=tuple(row.warnings))
