"""Carry out what a row asks for, from its start to its end, whatever happens."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Actor
from backup_admin.control import app_clusters, catalogue, engine, onboarding, runs, skipping
from backup_admin.control.app_streams import stream_sources
from backup_admin.control.destinations import Destinations, remember
from backup_admin.control.reporting import RowReporter
from backup_admin.core.durable import explain
from backup_admin.core.errors import BackupAdminError, Cancelled, ConfigurationError, UsageError
from backup_admin.core.ids import SnapshotId, new_ulid
from backup_admin.core.shown import agree, count_of
from backup_admin.core.version import VERSION
from backup_admin.operations.backup import back_up
from backup_admin.operations.results import BackupOptions, BackupResult, Outcome
from backup_admin.operations.verify import verify_snapshot
from backup_admin.records import BackupRun, RunKind, RunStatus, Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.control.destinations import PlaceState
    from backup_admin.control.installation import Installation
    from backup_admin.operations.changes import Decision

logger = logging.getLogger(__name__)

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """What a job found out, and what is to be noted besides its own row."""

    values: Values
    note: Callable[[Session], object] = lambda _session: None
    error: BaseException | None = None


Work = Callable[["Session", "Installation", BackupRun, RowReporter], Done]


def process_name() -> str:
    """Return the name under which this process works."""
    return f"{socket.gethostname()}:{os.getpid()}"


def perform_backup(installation: Installation, run_id: str) -> None:
    """Make the snapshot a row asks for; how it ended stands in the row."""
    _perform(installation, run_id, _back_up)


def perform_verify(installation: Installation, run_id: str) -> None:
    """Read back the snapshot a row asks for; how it ended stands in the row."""
    _perform(installation, run_id, _verify)


def perform_cluster(installation: Installation, run_id: str) -> None:
    """Take the base backup a row asks for; how it ended stands in the row."""
    _perform(installation, run_id, _take_base)


def perform_here(installation: Installation, run: BackupRun) -> BackupAdminError | None:
    """Do at once what a row asks for; return the error of ours that ended it, if one did."""
    error = _perform(installation, run.id, _WORK[run.kind])
    return error if isinstance(error, BackupAdminError) else None


def perform_waiting(session: Session, installation: Installation) -> None:
    """Do here what waits: for a deployment without a queue."""
    for run in runs.waiting_runs(session):
        _perform(installation, run.id, _WORK[run.kind])


def failure(installation: Installation, error: Exception, subject: str) -> Values:
    """Turn an error into what a row says: our own words, or an id of the log's entry."""
    if isinstance(error, OSError):
        error = explain(error) or error
    if isinstance(error, BackupAdminError):
        logger.warning("job failed", extra={"subject": subject, "code": error.code})
        return {"error_message": str(error)}
    error_id = new_ulid(installation.clock.now())
    logger.error("internal error", extra={"subject": subject, "error_id": error_id}, exc_info=error)
    return {
        "error_id": error_id,
        "error_message": f"Internal error {error_id}; the log of the worker says more.",
    }


def _perform(installation: Installation, run_id: str, work: Work) -> Exception | None:
    with installation.database.new_session() as session:
        run = runs.start_run(session, installation, run_id, process_name())
        if run is None:
            return None
        reporter = RowReporter(
            installation.database,
            installation.clock,
            BackupRun,
            run_id,
            heartbeat_seconds=installation.settings.heartbeat_seconds,
        )
        with reporter:
            done = _attempt(session, installation, run, reporter, work)
        # Only now: the thread of the reporter could not write beside us before.
        done.note(session)
        values = {**done.values, "log": reporter.log}
        runs.end_run(session, installation, run_id, values)
        _audit(installation, run, values)
    if done.error is None or isinstance(done.error, Exception):
        return done.error
    raise done.error


def _attempt(
    session: Session, installation: Installation, run: BackupRun, reporter: RowReporter, work: Work
) -> Done:
    try:
        return work(session, installation, run, reporter)
    except Cancelled as error:
        session.rollback()
        status = RunStatus.INTERRUPTED if reporter.given_up else RunStatus.CANCELLED
        values = {"status": status, "error_message": str(error), "warnings": reporter.warnings}
        return Done(values, error=error)
    except KeyboardInterrupt as error:
        session.rollback()
        values = {"status": RunStatus.INTERRUPTED, "error_message": "It was ended at once, by a signal."}
        return Done(values, error=error)
    except Exception as error:  # noqa: BLE001 - a job ends here
        session.rollback()
        said = failure(installation, error, f"{run.kind.value} {run.id}")
        return Done({"status": RunStatus.FAILED, "warnings": reporter.warnings, **said}, error=error)


def _back_up(session: Session, installation: Installation, run: BackupRun, reporter: RowReporter) -> Done:
    onboarding.require_recovery_key(session, installation)
    places = Destinations.open(session, installation, reporter=reporter)
    repository = places.repository
    sources = engine.source_set(session, installation)
    sources = replace(sources, files=(*sources.files, *stream_sources(installation)))
    session.commit()  # hold no transaction during the work
    options = BackupOptions(
        label=run.label,
        kind="scheduled" if run.trigger is Trigger.SCHEDULED else "manual",
        actor=run.actor_name or run.trigger.value,
        app_version=VERSION,
    )
    decision = skipping.decide_run(session, installation, run, repository, sources, reporter)
    if not decision.run:
        return _skip(installation, places, decision, reporter)
    result = back_up(
        repository,
        sources,
        options=options,
        state=installation.state,
        reporter=reporter,
        clock=installation.clock,
    )
    manifest = repository.manifest(result.snapshot.id)
    verified_at = installation.clock.now() if result.evidence.objects_read else None
    row = catalogue.remember_manifest(session, manifest, run_id=run.id)
    row.verified_at, row.verified_bytes = verified_at, result.evidence.bytes_read
    session.commit()  # it is a backup from now on, also when this process dies while it mirrors
    states = places.mirror(reporter)
    values = _backup_values(result, verified_at, states) | {"reason": decision.reason}
    return Done(values, lambda session: remember(session, installation, states))


def _skip(
    installation: Installation, places: Destinations, decision: Decision, reporter: RowReporter
) -> Done:
    """End a run that need not make a backup; the other storages are brought up to date all the same."""
    states = places.mirror(reporter)
    lacking = [state for state in states if state.problem]
    named = " ".join(f"{state.label}: {state.problem}" for state in lacking)
    count = (
        f"{len(lacking)} of {len(states)} storages {agree(len(lacking), 'lacks', 'lack')} the newest backup."
    )
    values = {
        "status": RunStatus.DEGRADED if lacking else RunStatus.SKIPPED,
        "reason": decision.reason,
        "unchanged_id": decision.unchanged,
        "error_message": f"Nothing changed, but {count} {named}" if lacking else "",
        "storages": [state.as_plain() for state in states],
    }
    return Done(values, lambda session: remember(session, installation, states))


def _backup_values(
    result: BackupResult, verified_at: datetime | None, states: Sequence[PlaceState]
) -> Values:
    lacking = [state for state in states if state.problem]
    completed = result.outcome is Outcome.COMPLETED and verified_at is not None and not lacking
    return {
        "status": RunStatus.COMPLETED if completed else RunStatus.DEGRADED,
        "snapshot_id": result.snapshot.id,
        "total_bytes": result.snapshot.file_bytes + result.snapshot.database_bytes,
        "new_bytes": result.new_bytes,
        "warnings": [*result.warnings, *result.lock_problems, *result.notices],
        "objects_read": result.evidence.objects_read,
        "bytes_read": result.evidence.bytes_read,
        "verified_at": verified_at,
        "error_message": "" if completed else _what_lacks(result, lacking, len(states)),
        "storages": [state.as_plain() for state in states],
    }


def _what_lacks(result: BackupResult, lacking: Sequence[PlaceState], count: int) -> str:
    if lacking and result.outcome is Outcome.COMPLETED and not result.lock_problems:
        named = " ".join(f"{state.label}: {state.problem}" for state in lacking)
        lack = agree(len(lacking), "lacks", "lack")
        return f"This backup is good, but {len(lacking)} of {count} storages {lack} it. {named}"
    if result.lock_problems and not result.warnings:
        return "Everything is in this snapshot, but not all of it is locked for long enough."
    return "Not everything that was asked for is in this snapshot."


def _verify(session: Session, installation: Installation, run: BackupRun, reporter: RowReporter) -> Done:
    snapshot_id = run.snapshot_id or catalogue.newest_snapshot_id(session)
    if not snapshot_id:
        raise UsageError("There is no snapshot to verify yet.")
    repository = engine.open_repository(session, installation)
    session.commit()  # hold no transaction during the work
    report = verify_snapshot(repository, SnapshotId(snapshot_id), state=installation.state, reporter=reporter)
    now = installation.clock.now()
    values = {
        "status": RunStatus.COMPLETED if report.ok else RunStatus.FAILED,
        "snapshot_id": snapshot_id,
        "bytes_read": report.bytes_read,
        "objects_read": report.files + report.databases,
        "verified_at": now if report.ok else None,
        "warnings": list(report.problems),
        "error_message": "" if report.ok else _what_differs(len(report.problems)),
    }
    return Done(values, lambda session: catalogue.remember_verification(session, report, now))


def _what_differs(number: int) -> str:
    return f"{count_of(number, 'thing')} {agree(number, 'is', 'are')} not as saved."


def _take_base(session: Session, installation: Installation, run: BackupRun, reporter: RowReporter) -> Done:
    result = app_clusters.take_base(session, installation, run, reporter)
    verified_at = installation.clock.now() if result.evidence.objects_read else None
    return Done(_backup_values(result, verified_at, ()))


_WORK: dict[RunKind, Work] = {
    RunKind.BACKUP: _back_up,
    RunKind.VERIFY: _verify,
    RunKind.CLUSTER: _take_base,
}


def _audit(installation: Installation, run: BackupRun, values: Values) -> None:
    actor = Actor(run.actor_id, run.actor_name or run.trigger.value)
    good = values["status"] in (RunStatus.COMPLETED, RunStatus.DEGRADED, RunStatus.SKIPPED)
    try:
        installation.audit().append(
            actor,
            f"{run.kind.value}.finish",
            target=run.id,
            outcome=AuditOutcome.DONE if good else AuditOutcome.FAILED,
            reason=values["error_message"] or values.get("reason", ""),
            details={"status": values["status"].value, "snapshot": values.get("snapshot_id", "")},
        )
    except ConfigurationError:
        # Without a key there is no audit log; the row says that the key is missing.
        return
