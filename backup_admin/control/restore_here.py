"""A restore in place that the command line asked for, carried out by the same process.

Who may run commands on the server has the files themselves: no second factor and no
allow-list. The row and the audit log are kept as for a restore from the pages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import IntegrityError

from backup_admin.access.audit import AuditOutcome
from backup_admin.control import catalogue, engine, perform_restore, restores
from backup_admin.control.rows_choice import RowsChoice
from backup_admin.control.rows_ended import remarks_of
from backup_admin.control.wizard import (
    AnyPlan,
    RestoreType,
    Review,
    find_operation,
    keep_review,
    make_review,
    make_rows_review,
)
from backup_admin.core.errors import Busy, RestoreRefused
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.attempts import note_attempt
from backup_admin.operations.journal import refuse_earlier
from backup_admin.operations.plans import RestorePlan, Selection
from backup_admin.operations.restore_answers import blocks, refusal
from backup_admin.operations.restore_report import RestoreReport
from backup_admin.operations.restore_rows import end_at_once
from backup_admin.operations.rows_asked import AskedRows, select_rows
from backup_admin.operations.rows_plan import RowsPlan, RowsReport
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository

ReportT = TypeVar("ReportT", RestoreReport, RowsReport)
_REASON = "asked for on the command line"


def plan_here(
    session: Session,
    installation: Installation,
    repository: Repository,
    snapshot_id: SnapshotId,
    selection: Selection,
) -> Review[RestorePlan]:
    """Plan and validate a restore; an empty selection means all there is. Writes nothing."""
    if not selection.files and not selection.databases:
        selection = Selection()
    return make_review(session, installation, repository, snapshot_id, selection, QuietReporter())


def plan_rows_here(
    session: Session,
    installation: Installation,
    repository: Repository,
    snapshot_id: SnapshotId,
    asked: AskedRows,
) -> Review[RowsPlan]:
    """Try a restore of tables or rows out and take it back; raises `UsageError` for what cannot be meant."""
    names = engine.source_set(session, installation).database_names()
    selection = select_rows(asked, names)
    return make_rows_review(session, installation, repository, snapshot_id, selection, QuietReporter())


def carry_out_here(
    session: Session,
    installation: Installation,
    repository: Repository,
    review: Review[RestorePlan],
    actor: Actor,
) -> RestoreReport:
    """Carry out a plan that a person has agreed to; return how it ended.

    What is refused is audited. Raises `RestoreRefused` for a plan that something
    forbids, `Busy` while another restore is under way, `AuditFailed`, and what
    stopped the restore before anything was touched.
    """
    row = _begin(session, installation, repository, review, actor)
    return _at_once(session, installation, row, RestoreReport)


def carry_out_rows_here(
    session: Session,
    installation: Installation,
    repository: Repository,
    review: Review[RowsPlan],
    actor: Actor,
) -> RowsReport:
    """Restore tables or rows as a person has agreed to; return how it ended. Raises as `carry_out_here`.

    What is there already, or cannot be done, begins nothing.
    """
    ended = end_at_once(review.plan, RestoreId(new_ulid(installation.clock.now())))
    if ended is not None:
        note_attempt(installation.state, installation.clock)
        if review.plan.report.is_refused:
            _note_start(installation, review, actor, ended.restore_id)
        return ended
    row = _begin(session, installation, repository, review, actor)
    report = _at_once(session, installation, row, RowsReport)
    remarks = remarks_of(report)  # which the report has itself
    return replace(report, notices=tuple(one for one in report.notices if one not in remarks))


def undo_at_once(
    session: Session, installation: Installation, operation_id: str, actor: Actor
) -> RestoreReport:
    """Put the state before a restore back; return how that ended."""
    restores.undo_here(session, installation, operation_id, actor)
    return _at_once(session, installation, find_operation(session, operation_id), RestoreReport)


def _begin(
    session: Session,
    installation: Installation,
    repository: Repository,
    review: Review[AnyPlan],
    actor: Actor,
) -> RestoreOperation:
    """Write a row that is to be carried out at once; audit that, or why it is refused."""
    installation.require_writable()
    row = _new_row(session, installation, repository, review, actor)
    _note_start(installation, review, actor, row.id)
    if review.blocked:
        refuse_earlier(installation.state, installation.clock)
        raise RestoreRefused(refusal(review.issues))
    session.add(row)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise Busy("Another restore is under way; wait for it to end. Nothing was touched.") from error
    return row


def _note_start(installation: Installation, review: Review[AnyPlan], actor: Actor, restore_id: str) -> None:
    plan = review.plan
    details: dict[str, Any] = {"plan": review.digest, "snapshot": plan.snapshot_id, "second_factor": "no"}
    if isinstance(plan, RowsPlan):
        details["asked"] = RowsChoice.of(plan.selection).words
    reasons = " ".join(blocks(review.issues))
    outcome = AuditOutcome.DENIED if reasons else AuditOutcome.DONE
    installation.audit().append(
        actor, "restore.start", target=restore_id, outcome=outcome, reason=reasons or _REASON, details=details
    )


def _new_row(
    session: Session,
    installation: Installation,
    repository: Repository,
    review: Review[AnyPlan],
    actor: Actor,
) -> RestoreOperation:
    now = installation.clock.now()
    snapshot = repository.snapshot(review.plan.snapshot_id)
    known = catalogue.remember_snapshot(session, snapshot)
    session.commit()
    kind, selection = _kind_of(review.plan)
    row = RestoreOperation(
        id=new_ulid(now),
        created_at=now,
        updated_at=now,
        restored_by=actor.id,
        restored_by_name=actor.name,
        snapshot_id=snapshot.id,
        source_backup_id=known.backup_run_id,
        restore_type=kind.value,
        selection=selection,
        status=RestoreStatus.QUEUED,
        action="restore",
        reason=_REASON,
        step=4,
    )
    keep_review(row, review, now)
    return row


def _kind_of(plan: AnyPlan) -> tuple[RestoreType, dict[str, Any]]:
    if isinstance(plan, RowsPlan):
        return RestoreType.ROWS, RowsChoice.of(plan.selection).to_plain()
    parts = {
        "files": [part.name for part in plan.files],
        "databases": [part.name for part in plan.databases],
    }
    return RestoreType.PARTIAL if plan.left_out else RestoreType.FULL, parts


def _at_once(
    session: Session, installation: Installation, row: RestoreOperation, kind: type[ReportT]
) -> ReportT:
    try:
        report = perform_restore.perform_here(installation, row)
    finally:
        session.refresh(row)
    if not isinstance(report, kind):
        raise TypeError(f"restore {row.id} is of another kind")
    return replace(report, notices=tuple(row.warnings))
