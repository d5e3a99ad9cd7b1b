"""`flask backup ...`: what the pages do, with the app's configuration, on the server."""

from __future__ import annotations

import getpass
import json
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
from flask import current_app
from flask.cli import with_appcontext

from backup_admin import jobs
from backup_admin.access.permissions import Actor, Permission
from backup_admin.control import (
    catalogue,
    engine,
    examination,
    onboarding,
    overview,
    perform,
    perform_restore,
    recovery,
    restores,
    runs,
    schedules,
    verdict,
)
from backup_admin.core.clock import format_time
from backup_admin.core.errors import BackupAdminError, NotARepository
from backup_admin.core.secret import Secret
from backup_admin.records import RestoreStatus, RunKind, RunStatus, Trigger
from backup_admin.records.upgrade import require_current, upgrade
from backup_admin.repository.secrets import generate_application_key, write_key_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.control.installation import Installation

P = ParamSpec("P")
R = TypeVar("R")

EXIT_CODES = {RunStatus.COMPLETED: 0, RunStatus.DEGRADED: 3, RunStatus.SKIPPED: 0}
as_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")


@click.group("backup")
def backup() -> None:
    """Back up and restore this app."""


def _command(function: Callable[P, R]) -> Callable[P, R]:
    """Run in the app's context; end with the message and status of an error of ours."""

    @with_appcontext
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BackupAdminError as error:
            if kwargs.get("as_json"):
                click.echo(json.dumps({"error": {"code": error.code, "message": str(error)}}))
            else:
                click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)

    return call


def _installation() -> Installation:
    return jobs.installation_of(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001


def _ready() -> Installation:
    installation = _installation()
    require_current(installation.database)
    return installation


def _actor() -> Actor:
    name = getpass.getuser()
    return Actor(f"system:{name}", f"{name} (command line)", granted=frozenset(Permission))


def _say(as_json: bool, data: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(data) if as_json else text)


@backup.command("upgrade")
@as_json
@_command
def upgrade_command(*, as_json: bool) -> None:
    """Create or migrate the control database."""
    installation = _installation()
    installation.require_private_state()
    revision = upgrade(installation.database)
    _say(as_json, {"revision": revision}, f"The control database is at {revision}.")


@backup.command("init")
@click.option("--storage", default="", help="Where backups go, if the configuration does not say.")
@_command
def init_command(*, storage: str) -> None:
    """Make key file, control database and repository; what exists stays."""
    installation = _installation()
    installation.require_private_state()
    upgrade(installation.database)
    key_file = installation.settings.key_file
    if key_file is not None and not key_file.exists():
        write_key_file(key_file, generate_application_key())
        click.echo(f"Wrote a new application key to {key_file}. Keep a copy elsewhere.")
    installation.key()
    with installation.database.new_session() as session:
        if storage:
            onboarding.choose_storage(session, installation, storage, _actor())
        if _adopt(installation):
            click.echo("The repository in the storage is in use.")
        else:
            _show_recovery_key(onboarding.make_repository(session, installation, _actor()))
        if not onboarding.is_recovery_confirmed(session):
            click.echo("Confirm that you kept the recovery key: flask backup confirm-recovery-key")


@backup.command("confirm-recovery-key")
@_command
def confirm_command() -> None:
    """Type the recovery key back, to prove that it is kept."""
    installation = _ready()
    typed = click.prompt("Recovery key", hide_input=sys.stdin.isatty())
    with installation.database.new_session() as session:
        onboarding.confirm_whole_recovery_key(session, installation, Secret(typed), _actor())
    click.echo("It opens the repository. Backups can run.")


@backup.command("run")
@click.option("--label", default="", help="A few words to find it by.")
@click.option("--queue", "queued", is_flag=True, help="Let the worker do it.")
@as_json
@_command
def run_command(*, label: str, queued: bool, as_json: bool) -> None:
    """Back up now, in this process, and read it back."""
    _run(runs.NewRun(RunKind.BACKUP, Trigger.COMMAND, label), queued, as_json)


@backup.command("verify")
@click.argument("snapshot", default="")
@as_json
@_command
def verify_command(*, snapshot: str, as_json: bool) -> None:
    """Read every byte of a snapshot (the newest by default) and compare it."""
    installation = _ready()
    with installation.database.new_session() as session:
        found = engine.open_repository(session, installation).find_snapshot(snapshot or "latest")
    _run(runs.NewRun(RunKind.VERIFY, Trigger.COMMAND, snapshot_id=found.id), False, as_json)


@backup.command("list")
@as_json
@_command
def list_command(*, as_json: bool) -> None:
    """List the newest backups."""
    with _ready().database.new_session() as session:
        rows, _ = overview.snapshots(session)
    data: list[dict[str, Any]] = [
        {
            "snapshot": row.snapshot_id,
            "created_at": format_time(row.created_at),
            "label": row.label,
            "states": list(row.states),
            "bytes": row.total_bytes,
        }
        for row in rows
    ]
    lines = [
        f"{one['snapshot']}  {one['created_at'][:16]}  {','.join(one['states'])}  {one['label']}"
        for one in data
    ]
    _say(as_json, {"snapshots": data}, "\n".join(lines) or "There are no backups yet.")


@backup.command("status")
@as_json
@_command
def status_command(*, as_json: bool) -> None:
    """Say whether this app is protected; status 1 when it is not."""
    installation = _ready()
    with installation.database.new_session() as session:
        found = verdict.judge(session, installation)
    data = {"state": found.state.value, "sentence": found.sentence, "details": list(found.details)}
    _say(as_json, data, "\n".join((found.sentence, *(f"  {line}" for line in found.details))))
    sys.exit(0 if found.state is verdict.Protection.PROTECTED else 1)


@backup.command("worker")
@click.option("--burst", is_flag=True, help="Stop when nothing waits.")
@click.option("--no-scheduler", is_flag=True, help="Run only the worker, not the loop beside it.")
@_command
def worker_command(*, burst: bool, no_scheduler: bool) -> None:
    """Carry out what the queue holds, and start what is due."""
    _ready()
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    jobs.work(app, burst=burst, with_scheduler_loop=not no_scheduler)


@backup.command("scheduler")
@_command
def scheduler_command() -> None:
    """Start what is due, each second, without a worker in this process."""
    _ready()
    jobs.scheduler_loop(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001


@backup.command("tick")
@as_json
@_command
def tick_command(*, as_json: bool) -> None:
    """Start what is due, once; made to be called each minute."""
    started = jobs.tick_once(_ready())
    _say(as_json, {"started": list(started)}, f"{len(started)} runs started.")


@backup.command("schedules")
@as_json
@_command
def schedules_command(*, as_json: bool) -> None:
    """List the schedules and when each comes next."""
    with _ready().database.new_session() as session:
        data: list[dict[str, Any]] = [
            {
                "name": one.name,
                "cron": one.cron,
                "timezone": one.timezone,
                "enabled": one.enabled,
                "next_run_at": format_time(one.next_run_at) if one.next_run_at else None,
            }
            for one in schedules.list_schedules(session)
        ]
    lines = [
        f"{one['name']}: {one['cron']} {one['timezone']}, next {one['next_run_at'] or 'never'}"
        for one in data
    ]
    _say(as_json, {"schedules": data}, "\n".join(lines) or "There are no schedules.")


@backup.command("doctor")
@as_json
@_command
def doctor_command(*, as_json: bool) -> None:
    """Examine everything that backups and restores need."""
    installation = _installation()
    with installation.database.new_session() as session:
        findings = examination.examine(session, installation)
    data = [{"topic": f.topic, "health": f.health.value, "message": f.message} for f in findings]
    text = "\n".join(f"{f.health.value:<4} {f.topic}: {f.message}" for f in findings)
    _say(as_json, {"findings": data}, text)
    sys.exit(1 if any(f.health is examination.Health.FAIL for f in findings) else 0)


@backup.command("recover")
@as_json
@_command
def recover_command(*, as_json: bool) -> None:
    """Finish or undo restores whose process is gone."""
    found = recovery.recover_restores(_ready())
    data = [{"restore": one.restore_id, "outcome": one.outcome, "message": one.message} for one in found]
    text = "\n".join(f"{one['restore']}: {one['outcome']}. {one['message']}" for one in data)
    _say(as_json, {"recovered": data}, text or "Nothing was left unfinished.")
    sys.exit(1 if any(one["outcome"] == "needs_attention" for one in data) else 0)


@backup.command("undo")
@click.argument("restore_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@_command
def undo_command(*, restore_id: str, yes: bool, as_json: bool) -> None:
    """Put back the state from before a restore."""
    installation = _ready()
    if not yes:
        click.confirm("Put the state from before this restore back?", abort=True)
    with installation.database.new_session() as session:
        restores.undo_here(session, installation, restore_id, _actor())
    perform_restore.perform_undo(installation, restore_id)
    with installation.database.new_session() as session:
        seen = restores.progress(session, installation, restore_id)
    _say(as_json, {"restore": restore_id, "status": seen.status.value}, seen.message or seen.status.value)
    sys.exit(0 if seen.status is RestoreStatus.UNDONE else 1)


@backup.command("reindex")
@as_json
@_command
def reindex_command(*, as_json: bool) -> None:
    """Learn the list of backups anew from the repository."""
    installation = _ready()
    with installation.database.new_session() as session:
        problems = catalogue.reindex(session, engine.open_repository(session, installation))
    _say(as_json, {"problems": list(problems)}, "\n".join(problems) or "The list is as the repository says.")
    sys.exit(4 if problems else 0)


@backup.command("audit-verify")
@as_json
@_command
def audit_command(*, as_json: bool) -> None:
    """Say whether the audit log is as it was written."""
    check = _installation().audit().verify()
    data = {"ok": check.ok, "entries": check.entries, "first_bad": check.first_bad, "message": check.message}
    _say(as_json, data, check.message)
    sys.exit(0 if check.ok else 4)


def _adopt(installation: Installation) -> bool:
    """Use the repository that is in the storage; False when there is none."""
    with installation.database.new_session() as session:
        try:
            problems = onboarding.adopt_repository(session, installation, _actor())
        except NotARepository:
            return False
        except BackupAdminError as error:
            if error.code != "storage_unavailable":
                raise
            return False
    for problem in problems:
        click.echo(problem, err=True)
    return True


def _show_recovery_key(new: onboarding.NewRecoveryKey) -> None:
    click.echo("The repository is made. Its recovery key, shown this once:\n")
    click.echo(f"    {new.key.reveal()}\n")
    click.echo("Keep it away from this server: it alone opens the backups when the server is gone.")


def _run(new: runs.NewRun, queued: bool, as_json: bool) -> None:
    installation = _ready()
    with installation.database.new_session() as session:
        if queued:
            run = runs.request_run(session, installation, new, _actor())
            _say(as_json, {"run": run.id, "status": run.status.value}, f"Run {run.id} is queued.")
            return
        run = runs.create_run(session, installation, new, _actor())
    work = perform.perform_backup if new.kind is RunKind.BACKUP else perform.perform_verify
    work(installation, run.id)
    with installation.database.new_session() as session:
        run = runs.find_run(session, run.id)
    data = {
        "run": run.id,
        "status": run.status.value,
        "snapshot": run.snapshot_id,
        "new_bytes": run.new_bytes,
        "bytes_read": run.bytes_read,
        "message": run.error_message,
        "warnings": run.warnings,
    }
    text = "\n".join(
        (
            f"{run.status.value}: snapshot {run.snapshot_id or 'none'}. {run.error_message}".strip(),
            *run.warnings,
        )
    )
    _say(as_json, data, text)
    sys.exit(EXIT_CODES.get(run.status, 1))
