"""Everything the demo asks of backup_admin, in one place.

The demo never touches the engine: it does what an administrator does, with a queue
and a worker in between, and a second factor where one is asked for.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
from flask import Flask
from sqlalchemy import select

from backup_admin.access import second_factor, step_up
from backup_admin.access.permissions import Actor, Permission
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import liveness, onboarding, restores, runs, schedules, wizard
from backup_admin.control.installation import Installation
from backup_admin.control.restores import Confirmation, Origin
from backup_admin.control.runs import NewRun
from backup_admin.control.schedules import ScheduleForm
from backup_admin.core.errors import BackupAdminError
from backup_admin.jobs import installation_of
from backup_admin.records import BackupManifest, RestoreStatus, RunKind, RunStatus
from backup_admin.records.upgrade import upgrade
from backup_admin.repository.secrets import generate_application_key, write_key_file

_POLL_SECONDS = 0.2
_GOOD_RUNS = frozenset({RunStatus.COMPLETED})
_OPEN_RUNS = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})
_OPEN_RESTORES = frozenset({RestoreStatus.DRAFT, RestoreStatus.QUEUED, RestoreStatus.RUNNING})
_ROBOT = Actor(
    id="demo",
    name="demo rehearsal",
    address="127.0.0.1",
    login_id=step_up.login_id("demo"),
    granted=frozenset(Permission),
)


class ProductError(Exception):
    """A backup or restore did not end well; the message says how."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run or a restore ended."""

    id: str
    succeeded: bool
    summary: str


def worker_command() -> list[str]:
    """Return the command that starts a worker for the gallery."""
    return [
        *(sys.executable, "-m", "backup_admin", "worker"),
        *("--app", "examples.gallery.app:create_app"),
    ]


def recovery_key_file(app: Flask) -> Path:
    """Return where the demo keeps the recovery key, beside the data it protects.

    A real one is kept somewhere else: on paper, in a safe.
    """
    return Path(app.config["GALLERY_DATA"]) / "recovery.key"


def init_repository(app: Flask) -> None:
    """Make key file, storage and repository, and bring the control database up to date.

    What exists already is left as it is. The demo confirms the recovery key itself.
    """
    key_file = Path(app.config["BACKUP_ADMIN_KEY_FILE"])
    if not key_file.exists():
        write_key_file(key_file, generate_application_key())
    Path(app.config["BACKUP_ADMIN_STORAGE"]).mkdir(mode=0o700, exist_ok=True)
    with _installed(app) as (installation, session):
        upgrade(installation.database)
        if onboarding.holds_repository(session, installation):
            return
        made = onboarding.make_repository(session, installation, _ROBOT)
        write_key_file(recovery_key_file(app), made.key)
        onboarding.confirm_whole_recovery_key(session, installation, made.key, _ROBOT)
        nightly = ScheduleForm("Every night", "30 2 * * *", installation.settings.timezone)
        schedules.create_schedule(session, installation, nightly, _ROBOT)


def trigger_backup(app: Flask) -> str:
    """Queue a backup of everything, as the button does; return the run's id."""
    with _installed(app) as (installation, session):
        return runs.request_run(session, installation, NewRun(label="first"), _ROBOT).id


def wait_for_run(app: Flask, run_id: str, *, timeout_seconds: float = 300) -> RunOutcome:
    """Wait until a run has ended and was read back, then read the whole snapshot once."""
    outcome = _wait_for_one(app, run_id, timeout_seconds)
    if not outcome.succeeded:
        return outcome
    with _installed(app) as (installation, session):
        snapshot_id = runs.find_run(session, run_id).snapshot_id
        new = NewRun(kind=RunKind.VERIFY, snapshot_id=snapshot_id)
        verify_id = runs.request_run(session, installation, new, _ROBOT).id
    verified = _wait_for_one(app, verify_id, timeout_seconds)
    return RunOutcome(run_id, verified.succeeded, f"{outcome.summary}; {verified.summary}")


def restore_latest(app: Flask, *, timeout_seconds: float = 300) -> RunOutcome:
    """Restore the newest snapshot in place, through plan, confirmation and worker."""
    with _installed(app) as (installation, session):
        draft = wizard.create_draft(session, installation, _ROBOT)
        wizard.choose_snapshot(session, installation, draft.id, _newest_snapshot(session))
        wizard.choose_type(session, installation, draft.id, wizard.RestoreType.FULL)
        review = wizard.review(session, installation, draft.id)
        _prove(installation, session, review.digest)
        confirmation = Confirmation(
            actor=_ROBOT,
            origin=Origin(peer="127.0.0.1"),
            typed_name=installation.settings.app_name,
            reason="rehearsal",
        )
        operation_id = restores.start(session, installation, draft.id, confirmation).id
    return _wait_for_restore(app, operation_id, timeout_seconds)


def worker_is_ready(app: Flask) -> bool:
    """Say whether a worker has shown signs of life."""
    with _installed(app) as (installation, session):
        return liveness.last_seen(session, installation.clock, liveness.ProcessRole.WORKER).alive


def _newest_snapshot(session: Any) -> str:
    newest = select(BackupManifest.snapshot_id).order_by(BackupManifest.created_at.desc())
    return str(session.scalars(newest).first())


def _prove(installation: Installation, session: Any, digest: str) -> None:
    tools = installation.authenticators()
    enrolment = second_factor.begin_enrolment(
        session, tools, user_id=_ROBOT.id, account=_ROBOT.name, issuer="Gallery"
    )
    totp = pyotp.TOTP(enrolment.secret.reveal())
    now = int(time.time())
    second_factor.confirm_enrolment(session, tools, user_id=_ROBOT.id, address="127.0.0.1", code=totp.at(now))
    act = Act(Purpose.RESTORE, digest)
    code = totp.at(now + second_factor.STEP_SECONDS)  # a code works once
    step_up.prove(session, tools, installation.audit(), actor=_ROBOT, act=act, code=code)


def _wait_for_one(app: Flask, run_id: str, timeout_seconds: float) -> RunOutcome:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        with _installed(app) as (_, session):
            run = runs.find_run(session, run_id)
            if run.status not in _OPEN_RUNS:
                good = run.status in _GOOD_RUNS
                read = f"{run.bytes_read / 1e6:.1f} MB read back"
                text = f"{run.kind} {run.status}, {read}" if good else f"{run.kind} {run.status}"
                return RunOutcome(run_id, good, f"{text}. {run.error_message}".rstrip(" ."))
        time.sleep(_POLL_SECONDS)
    return RunOutcome(run_id, succeeded=False, summary=f"did not end within {timeout_seconds:.0f} s")


def _wait_for_restore(app: Flask, operation_id: str, timeout_seconds: float) -> RunOutcome:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        with _installed(app) as (installation, session):
            now = restores.progress(session, installation, operation_id)
        if now.status not in _OPEN_RESTORES:
            good = now.status is RestoreStatus.RESTORED
            return RunOutcome(operation_id, good, f"restore {now.status}: {now.message}")
        time.sleep(_POLL_SECONDS)
    return RunOutcome(operation_id, succeeded=False, summary="the restore did not end in time")


@contextmanager
def _installed(app: Flask) -> Iterator[tuple[Installation, Any]]:
    installation = installation_of(app)
    try:
        with app.app_context(), installation.database.new_session() as session:
            yield installation, session
    except BackupAdminError as error:
        raise ProductError(str(error)) from error
