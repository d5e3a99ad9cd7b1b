"""The plan of a restore is made by the worker: a dry run may take longer than a request may.

The draft says so itself: its action is `plan` from when it was asked for until the plan, or why there is
none, stands in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from backup_admin.control import wizard
from backup_admin.control.installation import PLAN_JOB, QueueUnavailable
from backup_admin.control.perform import failure, process_name
from backup_admin.control.reporting import RowReporter
from backup_admin.core.errors import BackupAdminError
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation

PLANNING = "plan"
_ENDED = "The plan was not made: the worker was stopped meanwhile. Nothing was touched. Make it again."


def is_planning(operation: RestoreOperation) -> bool:
    """Say whether the plan of a draft waits for the worker, or is being made."""
    return operation.status is RestoreStatus.DRAFT and operation.action == PLANNING


def ask_for_plan(session: Session, installation: Installation, operation_id: str) -> None:
    """Step 4: let the worker make the plan anew. Where there is no queue it is made here and now.

    Raises `UsageError` and `QueueUnavailable`; and without a queue what the plan raises.
    """
    operation = wizard.draft_to_plan(session, operation_id)
    if installation.queue is None:
        wizard.review(session, installation, operation_id)
        return
    wizard.void_plan(operation)
    operation.action, operation.heartbeat_at = PLANNING, None
    operation.stage, operation.bytes_done, operation.bytes_total = "", 0, 0
    operation.step, operation.updated_at = 4, installation.clock.now()
    session.commit()
    try:
        installation.queue.enqueue(PLAN_JOB, operation.id)
    except QueueUnavailable:
        wizard.void_plan(operation)
        session.commit()
        raise


def perform_plan(installation: Installation, operation_id: str) -> None:
    """Make the plan that a draft asks for; anew when something else was chosen meanwhile."""
    with installation.database.new_session() as session:
        while _begin(session, installation, operation_id):
            asked = _asked(wizard.find_operation(session, operation_id))
            values = _make(session, installation, operation_id)
            if _end(session, installation, operation_id, asked, values):
                return


def _begin(session: Session, installation: Installation, operation_id: str) -> bool:
    now = installation.clock.now()
    return _change(
        session, operation_id, {"heartbeat_at": now, "updated_at": now, "worker": process_name()[:120]}
    )


def _make(session: Session, installation: Installation, operation_id: str) -> dict[str, Any]:
    reporter = RowReporter(
        installation.database,
        installation.clock,
        RestoreOperation,
        operation_id,
        heartbeat_seconds=installation.settings.heartbeat_seconds,
        status=RestoreStatus.DRAFT,
    )
    try:
        with reporter:
            operation = wizard.draft_to_plan(session, operation_id)
            found = wizard.find_review(session, installation, operation, reporter)
    except BackupAdminError as error:  # a person asked for something that cannot be
        session.rollback()
        return {"error_message": str(error)}
    except Exception as error:  # noqa: BLE001 - a job ends here
        session.rollback()
        return failure(installation, error, f"plan of restore {operation_id}")
    return wizard.review_values(found, installation.clock.now())


def _end(
    session: Session,
    installation: Installation,
    operation_id: str,
    asked: tuple[Any, ...],
    values: dict[str, Any],
) -> bool:
    """Keep a plan, or why there is none; False when meanwhile something else was asked for."""
    session.expire_all()
    operation = session.get(RestoreOperation, operation_id)
    if operation is None or not is_planning(operation):
        return True  # it goes another way by now
    if _asked(operation) != asked:
        return False
    now = installation.clock.now()
    _change(session, operation_id, {**values, "action": "restore", "stage": "", "updated_at": now})
    return True


def give_up_plans(session: Session, installation: Installation, silent: timedelta) -> list[str]:
    """End what a dead worker left, and hand on again what the queue has lost; return what was done."""
    now, row = installation.clock.now(), RestoreOperation
    planning = select(row).where(row.status == RestoreStatus.DRAFT, row.action == PLANNING)
    said = []
    for operation in session.scalars(planning).all():
        if operation.heartbeat_at is not None:
            if operation.heartbeat_at < now - silent and give_up_plan(session, operation.id, now):
                said.append(f"The plan of restore {operation.id} was given up.")
        elif _is_lost(installation, operation, now - silent):
            said.append(f"The plan of restore {operation.id} was not in the queue and was handed on again.")
    return said


def give_up_plan(session: Session, operation_id: str, now: datetime) -> bool:
    """Note that the process that made a plan is gone; False when there is no such plan."""
    values = {"action": "restore", "error_message": _ENDED, "updated_at": now}
    return _change(session, operation_id, values)


def _is_lost(installation: Installation, operation: RestoreOperation, since: datetime) -> bool:
    queue = installation.queue
    if queue is None or operation.updated_at is None or operation.updated_at > since:
        return False
    try:
        if queue.knows(operation.id):
            return False
        queue.enqueue(PLAN_JOB, operation.id)
    except QueueUnavailable:  # it waits; the verdict tells that the queue is silent
        return False
    return True


def _asked(operation: RestoreOperation) -> tuple[Any, ...]:
    return operation.snapshot_id, operation.restore_type, dict(operation.selection)


def _change(session: Session, operation_id: str, values: dict[str, Any]) -> bool:
    row = RestoreOperation
    is_it = (row.id == operation_id, row.status == RestoreStatus.DRAFT, row.action == PLANNING)
    change = update(row).where(*is_it).values(values).returning(row.id)
    won = session.execute(change, execution_options={"synchronize_session": False}).all()
    session.commit()
    session.expire_all()
    return bool(won)
