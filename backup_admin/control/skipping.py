"""Whether a run that may be skipped has to make a backup, and what a skipped one proves."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from backup_admin.operations.changes import ChangeOptions, Decision
from backup_admin.operations.look_for_changes import look_for_changes
from backup_admin.records import BackupManifest, BackupRun, RunKind, RunStatus
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.core.progress import Reporter
    from backup_admin.operations.results import SourceSet
    from backup_admin.repository.repository import Repository

_GOOD = (RunStatus.COMPLETED, RunStatus.SKIPPED)
_ENDED = (*_GOOD, RunStatus.FAILED, RunStatus.DEGRADED, RunStatus.INTERRUPTED)


def decide_run(
    session: Session,
    installation: Installation,
    run: BackupRun,
    repository: Repository,
    sources: SourceSet,
    reporter: Reporter,
) -> Decision:
    """Decide whether a run has to make a backup; one that a person asked for always has to.

    Only a snapshot that was read back and found good is relied on, and only while the last
    run ended well: else a skipped one would hide that something is wrong.
    """
    hours = installation.settings.max_skip_hours
    if not run.if_changed or not hours:
        return Decision(run=True, reason="")
    if not _ended_well(session):
        return Decision(run=True, reason="The run before did not end well.")
    good = {*session.scalars(select(BackupManifest.snapshot_id).where(*is_good()))}
    session.commit()  # hold no transaction during the work
    decision = look_for_changes(
        repository,
        sources,
        options=ChangeOptions(timedelta(hours=hours), installation.settings.change_ignore_tables),
        state=installation.state,
        reporter=reporter,
        clock=installation.clock,
    )
    if not decision.run and decision.unchanged not in good:
        return Decision(run=True, reason="The newest snapshot was not read back and found good.")
    return decision


def unchanged_at(session: Session, snapshot_id: str) -> datetime | None:
    """Return when everything was last found to be as in a snapshot; it was so when that look began."""
    row = BackupRun
    skipped = (row.status == RunStatus.SKIPPED, row.unchanged_id == snapshot_id)
    return session.scalar(select(func.max(row.started_at)).where(*skipped)) if snapshot_id else None


def is_good() -> tuple[ColumnElement[bool], ...]:
    """Return what makes a snapshot one that counts: complete, there, read back, and found to be right.

    What a restore replaced does not count: it holds only the parts that were restored, and what was wrong.
    """
    row = BackupManifest
    return (
        row.present.is_(True),
        row.problem == "",
        row.outcome == "completed",
        row.verified_at.is_not(None),
        row.kind != SAFETY,
    )


def _ended_well(session: Session) -> bool:
    last = session.scalar(
        select(BackupRun.status)
        .where(BackupRun.kind == RunKind.BACKUP, BackupRun.status.in_(_ENDED))
        .order_by(BackupRun.created_at.desc(), BackupRun.id.desc())
        .limit(1)
    )
    return last is None or last in _GOOD
