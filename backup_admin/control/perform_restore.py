"""Carry out a restore, or its undo, that a person has confirmed; the row tells how it ended."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Actor
from backup_admin.control import catalogue, engine
from backup_admin.control.journals import journal_of, restored_at, status_of
from backup_admin.control.perform import failure, process_name
from backup_admin.control.reporting import RowReporter
from backup_admin.control.restore_from import open_for_restore
from backup_admin.control.rows_ended import failed_rows, is_rows, rows_values
from backup_admin.control.wizard import find_operation, stored_plan
from backup_admin.core.errors import BackupAdminError, Busy, RepositoryError
from backup_admin.core.ids import RestoreId, SnapshotId
from backup_admin.operations.attempts import attempting
from backup_admin.operations.restore import carry_out
from backup_admin.operations.restore_report import RestoreHooks, RestoreReport, RestoreTools
from backup_admin.operations.restore_rows import carry_out_rows
from backup_admin.operations.rows_plan import RowsPlan, RowsReport
from backup_admin.operations.undo import undo_restore
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Hooks, Installation
    from backup_admin.repository.repository import Repository

Values = dict[str, Any]
Report = RestoreReport | RowsReport
_OUTCOMES = {
    "restored": RestoreStatus.RESTORED,
    "rolled_back": RestoreStatus.ROLLED_BACK,
    "undone": RestoreStatus.UNDONE,
    "needs_attention": RestoreStatus.NEEDS_ATTENTION,
}


def perform_restore(installation: Installation, operation_id: str) -> None:
    """Carry out the plan of a confirmed restore."""
    _perform(installation, operation_id, "restore", _restore)


def perform_undo(installation: Installation, operation_id: str) -> None:
    """Put back the state before a restore."""
    _perform(installation, operation_id, "undo", _undo)


def perform_here(installation: Installation, operation: RestoreOperation) -> Report:
    """Do a restore or its undo at once; raise what ended it before there was a report."""
    work = _undo if operation.action == "undo" else _restore
    ended = _perform(installation, operation.id, operation.action, work)
    if ended is None:
        raise Busy(f"Restore {operation.id} no longer waits: another process has taken it.")
    if isinstance(ended, Exception):
        raise ended
    return ended


def restore_hooks(installation: Installation) -> RestoreHooks:
    """Return the host's hooks in the form the engine calls them, and the passwords it may need."""
    hooks = installation.hooks
    checks = tuple((name, _checked(check)) for name, check in hooks.restore_checks)
    servers = engine.postgres_sources(installation.settings)
    return RestoreHooks(maintenance=hooks.set_maintenance, checks=checks, servers=servers)


def tell_host(hooks: Hooks, outcome: str) -> list[str]:
    """Call what the host wants called after a restore; return what went wrong there."""
    said = []
    for hook in hooks.after_restore:
        try:
            hook(outcome)
        except Exception as error:  # noqa: BLE001 - the host's code, and the restore is over
            said.append(f"The app's after_restore hook failed: {error}")
    return said


def _checked(check: Callable[[], str]) -> Callable[[], str]:
    """Call a host's check: nothing or "ok" is good, an error is an answer too."""

    def call() -> str:
        try:
            return check() or "ok"
        except Exception as error:  # noqa: BLE001 - the host's code; what it raises is what it found
            return f"{type(error).__name__}: {error}"

    return call


def _perform(
    installation: Installation,
    operation_id: str,
    action: str,
    work: Callable[[Session, Installation, RestoreOperation, RowReporter], Report],
) -> Report | Exception | None:
    ended: Report | Exception | KeyboardInterrupt
    with installation.database.new_session() as session:
        operation = _start(session, installation, operation_id, action)
        if operation is None:
            return None
        reporter = RowReporter(
            installation.database,
            installation.clock,
            RestoreOperation,
            operation_id,
            heartbeat_seconds=installation.settings.heartbeat_seconds,
        )
        with reporter:
            try:
                report = work(session, installation, operation, reporter)
                values, ended = _values(installation, operation, report), report
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a job ends here
                session.rollback()
                ended = error
                values = _failed(installation, operation, error)
        hooked = tell_host(installation.hooks, values["status"].value)
        values["warnings"] = [*values.get("warnings", []), *reporter.warnings, *hooked]
        _end(session, installation, operation, {**values, "restore_log": reporter.log})
        _audit(installation, operation, values)
    if isinstance(ended, KeyboardInterrupt):
        raise ended
    return ended


def _start(
    session: Session, installation: Installation, operation_id: str, action: str
) -> RestoreOperation | None:
    now = installation.clock.now()
    row = RestoreOperation
    values = {
        "status": RestoreStatus.RUNNING,
        "heartbeat_at": now,
        "updated_at": now,
        "worker": process_name()[:120],
        "error_message": "",
        "journal_id": operation_id,
    }
    if action == "restore":
        values["started_at"] = now
    waits = (row.id == operation_id, row.status == RestoreStatus.QUEUED, row.action == action)
    change = update(row).where(*waits).values(values).returning(row.id)
    won = session.execute(change, execution_options={"synchronize_session": False}).all()
    session.commit()
    return find_operation(session, operation_id) if won else None


def _restore(
    session: Session, installation: Installation, operation: RestoreOperation, reporter: RowReporter
) -> Report:
    plan = stored_plan(operation)
    repository, why_mirror = open_for_restore(session, installation)
    if why_mirror:
        reporter.warn(why_mirror)
    targets = engine.source_set(session, installation)
    session.commit()  # hold no transaction during the work
    tools = RestoreTools(
        state=installation.state,
        reporter=reporter,
        clock=installation.clock,
        hooks=restore_hooks(installation),
        undo_hours=installation.settings.undo_hours,
    )
    who = operation.restored_by_name or operation.restored_by
    restore_id = RestoreId(operation.id)
    report: Report
    with attempting(installation.state, installation.clock):
        if isinstance(plan, RowsPlan):
            report = carry_out_rows(plan, repository, targets, restore_id=restore_id, actor=who, tools=tools)
        else:
            report = carry_out(plan, repository, targets, restore_id=restore_id, actor=who, tools=tools)
    said = _remember_safety(installation, repository, report.safety_snapshot)
    return replace(report, notices=(*report.notices, *said))


def _undo(
    session: Session, installation: Installation, operation: RestoreOperation, reporter: RowReporter
) -> RestoreReport:
    session.commit()  # hold no transaction during the work
    return undo_restore(
        installation.state,
        RestoreId(operation.id),
        hooks=restore_hooks(installation),
        reporter=reporter,
        clock=installation.clock,
    )


def _values(installation: Installation, operation: RestoreOperation, report: Report) -> Values:
    if isinstance(report, RowsReport):
        plan = stored_plan(operation)
        return rows_values(plan, report) if isinstance(plan, RowsPlan) else {}
    status = _OUTCOMES[report.outcome]
    if status is RestoreStatus.ROLLED_BACK and report.error_code == "cancelled":
        status = RestoreStatus.CANCELLED
    good = status in (RestoreStatus.RESTORED, RestoreStatus.UNDONE)
    said: Values = {
        "status": status,
        "message": report.message,
        "error_message": "" if good else report.message,
    }
    if operation.action == "undo":
        return {**said, **_undone(installation, operation, report)} if good else said
    return {
        **said,
        "warnings": list(report.notices),
        "checks": [asdict(line) for line in report.checks],
        "safety_snapshot_id": report.safety_snapshot,
        "undo_until": report.undo_until,
    }


def _undone(installation: Installation, operation: RestoreOperation, report: RestoreReport) -> Values:
    """Say when it was undone; of rows, what the restore did stays as it was noted."""
    values: Values = {
        "undone_at": installation.clock.now(),
        "warnings": list(report.notices),
    }
    if not is_rows(operation):  # those of the restore are no longer true of what is live
        values["checks"] = [asdict(line) for line in report.checks]
    return values


def _failed(installation: Installation, operation: RestoreOperation, error: BaseException) -> Values:
    """Say how a restore ended that raised: as its journal knows, else as failed untouched."""
    said: Values = {"error_message": "It was ended at once, by a signal."}
    if isinstance(error, Exception):
        said = failure(installation, error, f"restore {operation.id}")
    journal = journal_of(installation, operation.id)
    if is_rows(operation) and operation.action != "undo":
        return failed_rows(error, said, journal)
    status = status_of(operation, journal)
    if operation.action == "undo" and (journal is None or journal.finished):
        status = RestoreStatus.RESTORED if status is RestoreStatus.RUNNING else status
    elif status is RestoreStatus.RUNNING:
        status = RestoreStatus.FAILED if journal is None else RestoreStatus.INTERRUPTED
    return {"status": status, **said}


def _remember_safety(installation: Installation, repository: Repository, snapshot: str) -> list[str]:
    """Note the safety backup in the catalogue, so that it can be restored from."""
    if not snapshot:
        return []
    try:
        with installation.database.new_session() as session:
            row = catalogue.remember_manifest(session, repository.manifest(SnapshotId(snapshot)))
            row.verified_at = installation.clock.now()
            session.commit()
    except RepositoryError as error:
        return [f"The safety backup cannot be listed: {error}"]
    return []


def _end(session: Session, installation: Installation, operation: RestoreOperation, values: Values) -> None:
    row = RestoreOperation
    now = installation.clock.now()
    values = {"completed_at": restored_at(operation, now), **values, "updated_at": now, "current": ""}
    open_ends = (RestoreStatus.RUNNING, RestoreStatus.INTERRUPTED)
    change = update(row).where(row.id == operation.id, row.status.in_(open_ends)).values(values)
    session.execute(change, execution_options={"synchronize_session": False})
    session.commit()
    session.refresh(operation)


def _audit(installation: Installation, operation: RestoreOperation, values: Values) -> None:
    wanted = RestoreStatus.UNDONE if operation.action == "undo" else RestoreStatus.RESTORED
    good = values["status"] is wanted
    try:
        installation.audit().append(
            Actor(operation.restored_by, operation.restored_by_name),
            f"{operation.action if operation.action == 'undo' else 'restore'}.finish",
            target=operation.id,
            outcome=AuditOutcome.DONE if good else AuditOutcome.FAILED,
            reason=values.get("error_message", ""),
            details={
                "status": values["status"].value,
                "snapshot": operation.snapshot_id,
                "safety_snapshot": operation.safety_snapshot_id,
                "plan": operation.plan_digest,
            },
        )
    except BackupAdminError as error:
        # The restore has ended; that its end is not in the audit log must be seen.
        with installation.database.new_session() as session:
            row = find_operation(session, operation.id)
            row.warnings = [*row.warnings, f"Not in the audit log: {error}"]
            session.commit()
