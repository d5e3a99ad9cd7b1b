"""Runs: rows first, then the queue; started, followed, ended and, when lost, named so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from backup_admin.access.permissions import Actor
from backup_admin.control.installation import (
    BACKUP_JOB,
    CLUSTER_JOB,
    VERIFY_JOB,
    Installation,
    QueueUnavailable,
)
from backup_admin.control.rows_ended import ALL_OR_NOTHING
from backup_admin.core.errors import Busy, UsageError
from backup_admin.core.ids import new_ulid
from backup_admin.operations.rows_plan import KIND
from backup_admin.records import (
    BackupRun,
    RestoreOperation,
    RestoreStatus,
    RunKind,
    RunStatus,
    Trigger,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

SILENT_AFTER = timedelta(seconds=60)
_SETTLE = timedelta(seconds=15)
_JOBS = {RunKind.BACKUP: BACKUP_JOB, RunKind.VERIFY: VERIFY_JOB, RunKind.CLUSTER: CLUSTER_JOB}
NOBODY = Actor(id="", name="")


class RunActive(Busy):
    """Another run of the kind waits or runs; `run_id` names it."""

    code = "run_active"

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run shall do, and what asked for it."""

    kind: RunKind = RunKind.BACKUP
    trigger: Trigger = Trigger.MANUAL
    label: str = ""
    snapshot_id: str = ""
    """For a verify run: the snapshot to read; empty means the newest."""
    schedule_id: int | None = None
    slot: str | None = None
    if_changed: bool = False
    """Whether it may be skipped when nothing changed."""


def request_run(session: Session, installation: Installation, new: NewRun, actor: Actor) -> BackupRun:
    """Create a run and hand it to the queue; a person asked for it.

    Raises `RunActive` with the id of the run that is under way. When the queue
    does not answer the run waits in its row and says so in `error_message`.
    """
    installation.require_writable()
    installation.require_queue()
    run = create_run(session, installation, new, actor)
    installation.audit().append(actor, f"{new.kind.value}.request", target=run.id)
    hand_on(session, installation, run)
    return run


def create_run(session: Session, installation: Installation, new: NewRun, actor: Actor) -> BackupRun:
    """Write the row of a run; it waits until it is handed on or started here."""
    now = installation.clock.now()
    run = BackupRun(
        id=new_ulid(now),
        target=new.kind.value,
        kind=new.kind,
        trigger=new.trigger,
        label=new.label[:200],
        actor_id=actor.id,
        actor_name=actor.name,
        schedule_id=new.schedule_id,
        slot=new.slot,
        snapshot_id=new.snapshot_id,
        if_changed=new.if_changed,
        created_at=now,
    )
    session.add(run)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise _refused(session, new) from error
    return run


def hand_on(session: Session, installation: Installation, run: BackupRun) -> None:
    """Give a waiting run to the queue; `reconcile` does it again when that fails.

    Without a queue it waits for the process that ticks.
    """
    if installation.queue is None:
        return
    try:
        installation.queue.enqueue(_JOBS[run.kind], run.id)
        note = ""
    except QueueUnavailable as error:
        note = f"Waiting: {error}"
    if run.error_message != note:
        run.error_message = note
        session.commit()


def waiting_runs(session: Session) -> tuple[BackupRun, ...]:
    """Return the runs that nothing has started yet, oldest first."""
    waiting = select(BackupRun).where(BackupRun.status == RunStatus.QUEUED)
    return tuple(session.scalars(waiting.order_by(BackupRun.created_at)))


def find_run(session: Session, run_id: str) -> BackupRun:
    """Return a run by its id; raise `UsageError` when there is none."""
    run = session.get(BackupRun, run_id)
    if run is None:
        raise UsageError(f"There is no run {run_id[:40]!r}.")
    return run


def start_run(session: Session, installation: Installation, run_id: str, worker: str) -> BackupRun | None:
    """Take a waiting run; None when another took it or it no longer waits."""
    now = installation.clock.now()
    values = {
        "status": RunStatus.RUNNING,
        "started_at": now,
        "heartbeat_at": now,
        "updated_at": now,
        "worker": worker[:120],
        "error_message": "",
    }
    won = _change(session, run_id, (RunStatus.QUEUED,), values)
    return find_run(session, run_id) if won else None


def cancel_run(session: Session, installation: Installation, run_id: str, actor: Actor) -> BackupRun:
    """Stop a run: at once when it waits, at its next safe place when it runs."""
    run = find_run(session, run_id)
    installation.audit().append(actor, "run.cancel", target=run.id)
    now = installation.clock.now()
    ended = {"status": RunStatus.CANCELLED, "finished_at": now, "error_message": "Cancelled before it began."}
    if not _change(session, run_id, (RunStatus.QUEUED,), ended):
        _change(session, run_id, (RunStatus.RUNNING,), {"cancel_requested": True})
    session.refresh(run)
    return run


def end_run(session: Session, installation: Installation, run_id: str, values: dict[str, Any]) -> bool:
    """Write how a run ended; False when its row was already ended otherwise.

    A run that was given up as silent and then ended after all tells the truth
    it knows: what it did is done.
    """
    values = {**values, "finished_at": installation.clock.now(), "current": ""}
    return _change(session, run_id, (RunStatus.RUNNING, RunStatus.INTERRUPTED), values)


def give_up(session: Session, installation: Installation, row_id: str, cause: str) -> None:
    """Note at once that the process of a run or restore is gone, when that is known."""
    now = installation.clock.now()
    message = f"Interrupted: {cause}. Earlier backups are untouched."
    ended = {"status": RunStatus.INTERRUPTED, "finished_at": now, "error_message": message}
    if _change(session, row_id, (RunStatus.RUNNING,), ended):
        return
    row = RestoreOperation
    change = update(row).where(row.id == row_id, row.status == RestoreStatus.RUNNING)
    kind = session.scalar(select(row.restore_type).where(row.id == row_id))
    message = _with_what_is_left(message, kind or "")
    values = {"status": RestoreStatus.INTERRUPTED, "error_message": message, "updated_at": now}
    _won(session, change.values(values).returning(row.id))


def reconcile(session: Session, installation: Installation) -> tuple[str, ...]:
    """Find runs and restores whose process is gone, and rows the queue has lost.

    Returns a sentence for each row it changed. Any number of processes may do
    this at once.
    """
    now = installation.clock.now()
    said = [*_give_up_silent_runs(session, now), *_give_up_silent_restores(session, now)]
    if installation.queue is not None:
        said += _find_lost(session, installation, now)
    return tuple(said)


def _give_up_silent_runs(session: Session, now: datetime) -> list[str]:
    row = BackupRun
    # Part of each change too: a process may say "alive" between look and change.
    is_silent = row.heartbeat_at < now - SILENT_AFTER
    silent = select(row.id, row.heartbeat_at, row.worker).where(row.status == RunStatus.RUNNING, is_silent)
    said = []
    for run_id, heartbeat, worker in session.execute(silent).all():
        message = _gone(heartbeat, worker)
        values = {"status": RunStatus.INTERRUPTED, "finished_at": now, "error_message": message}
        if _change(session, run_id, (RunStatus.RUNNING,), values, is_silent):
            said.append(f"Run {run_id} was interrupted: {message}")
    return said


def _give_up_silent_restores(session: Session, now: datetime) -> list[str]:
    row = RestoreOperation
    is_silent = (row.status == RestoreStatus.RUNNING, row.heartbeat_at < now - SILENT_AFTER)
    silent = select(row.id, row.heartbeat_at, row.worker, row.restore_type).where(*is_silent)
    said = []
    for restore_id, heartbeat, worker, kind in session.execute(silent).all():
        message = _with_what_is_left(_gone(heartbeat, worker), kind)
        values = {"status": RestoreStatus.INTERRUPTED, "error_message": message, "updated_at": now}
        change = update(row).where(row.id == restore_id, *is_silent).values(values)
        if _won(session, change.returning(row.id)):
            said.append(f"Restore {restore_id} was interrupted: {message}")
    return said


def _find_lost(session: Session, installation: Installation, now: datetime) -> list[str]:
    queue = installation.require_queue()
    said = []
    try:
        for run in session.scalars(_waiting(BackupRun, BackupRun.created_at, now)).all():
            if not queue.knows(run.id):
                queue.enqueue(_JOBS[run.kind], run.id)
                said.append(f"Run {run.id} was not in the queue and was handed on again.")
        for operation in session.scalars(_waiting(RestoreOperation, RestoreOperation.updated_at, now)).all():
            if not queue.knows(operation.id):
                said += _drop_lost_restore(session, operation, now)
    except QueueUnavailable:
        # The rows wait; the verdict tells that the queue is silent.
        return said
    return said


def _drop_lost_restore(session: Session, operation: RestoreOperation, now: datetime) -> list[str]:
    """A restore must not begin at a time nobody expects: it ends here."""
    row = RestoreOperation
    change = update(row).where(row.id == operation.id, row.status == RestoreStatus.QUEUED)
    if operation.action == "undo":
        message = "The queue lost this undo before it began; the app runs on the restored state."
        values: dict[str, Any] = {"status": RestoreStatus.RESTORED, "error_message": message}
    else:
        message = "The queue lost this restore before it began; nothing was touched. Start it again."
        values = {"status": RestoreStatus.FAILED, "completed_at": now, "error_message": message}
    won = _won(session, change.values(values).returning(row.id))
    return [f"Restore {operation.id}: {message}"] if won else []


def _waiting(table: Any, since: Any, now: datetime) -> Any:
    """Select rows that have waited long enough to be in the queue by now."""
    return select(table).where(table.status == "queued", since < now - _SETTLE)


def _gone(heartbeat: datetime | None, worker: str) -> str:
    when = f"{heartbeat:%Y-%m-%d %H:%M:%S} UTC" if heartbeat else "its start"
    return (
        f"Its process ({worker or 'unknown'}) has been silent since {when}: it was killed, "
        "or the machine stopped. Earlier backups are untouched."
    )


def _with_what_is_left(message: str, kind: str) -> str:
    """Add what is certain of a restore of rows, until its journal says how it ended."""
    return f"{message} {ALL_OR_NOTHING}" if kind == KIND else message


def _refused(session: Session, new: NewRun) -> Busy:
    active = (RunStatus.QUEUED, RunStatus.RUNNING)
    running = session.scalar(
        select(BackupRun).where(BackupRun.target == new.kind.value, BackupRun.status.in_(active))
    )
    if running is not None:
        return RunActive(f"A {new.kind.value} is under way already ({running.status.value}).", running.id)
    return Busy("This slot of the schedule has its run already.")


def _change(
    session: Session, run_id: str, from_status: tuple[RunStatus, ...], values: dict[str, Any], *more: Any
) -> bool:
    """Change a run if it is still in one of these states; say whether it was."""
    change = update(BackupRun).where(BackupRun.id == run_id, BackupRun.status.in_(from_status), *more)
    return _won(session, change.values(values).returning(BackupRun.id))


def _won(session: Session, change: Any) -> bool:
    won = bool(session.execute(change, execution_options={"synchronize_session": False}).all())
    session.commit()
    session.expire_all()
    return won
