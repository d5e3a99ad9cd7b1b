"""`flask backup ...`: what the pages do, with the app's configuration, on the server."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from flask import current_app

from backup_admin import jobs
from backup_admin.control import (
    catalogue,
    engine,
    examination,
    offered,
    onboarding,
    perform,
    recovery,
    runs,
    schedules,
    verdict,
)
from backup_admin.core.clock import format_time
from backup_admin.core.errors import BackupAdminError, NotARepository, UsageError, VerificationFailed
from backup_admin.core.secret import Secret
from backup_admin.operations.answers import INCOMPLETE, SKIPPED, Answer
from backup_admin.records import BackupRun, RunKind, RunStatus, Trigger
from backup_admin.records.upgrade import upgrade
from backup_admin.repository.secrets import generate_application_key, write_key_file
from backup_admin.verbs.base import AT
from backup_admin.verbs.forgetting import forget_verb
from backup_admin.verbs.retaining import pin_verb, prune_verb, unpin_verb
from backup_admin.verbs.searching import find_verb, ls_verb
from backup_admin.web.command_line import actor, here, is_json, ready, say, verb
from backup_admin.web.commands_key import new_key_command
from backup_admin.web.commands_look import check_command, choose, diff_command, show_command
from backup_admin.web.commands_restore import restore_command, undo_command
from backup_admin.web.commands_shared import command_of

if TYPE_CHECKING:
    from backup_admin.control.installation import Installation

_DAMAGED = VerificationFailed.exit_code
_STATUSES = {RunStatus.COMPLETED: 0, RunStatus.DEGRADED: INCOMPLETE}


@click.group("backup")
def backup() -> None:
    """Back up and restore this app.

    Exit codes and the form of --json are those of the command `backup-admin`.
    """


for command in (show_command, diff_command, check_command, restore_command, undo_command, new_key_command):
    backup.add_command(command)
for shared in (find_verb, ls_verb, forget_verb, prune_verb, pin_verb, unpin_verb):
    backup.add_command(command_of(shared))


@backup.command("upgrade")
@verb
def upgrade_command() -> Answer:
    """Create or migrate the control database."""
    installation = here()
    installation.require_private_state()
    revision = upgrade(installation.database)
    return Answer({"revision": revision}, [f"The control database is at {revision}."])


@backup.command("init")
@click.option("--storage", default="", help="Where backups go, if the configuration does not say.")
@verb
def init_command(*, storage: str) -> Answer:
    """Make key file, control database and repository; what exists stays."""
    installation = here()
    installation.require_private_state()
    upgrade(installation.database)
    key_file = installation.settings.key_file
    if key_file is not None and not key_file.exists():
        write_key_file(key_file, generate_application_key())
        say(f"Wrote a new application key to {key_file}. Keep a copy elsewhere.")
    installation.key()
    with installation.database.new_session() as session:
        if storage:
            onboarding.choose_storage(session, installation, storage, actor())
        new = None
        if not _adopt(installation):
            new = onboarding.make_repository(session, installation, actor())
        confirmed = onboarding.is_recovery_confirmed(session)
    return Answer(
        {"made": new is not None, "recovery_key": _revealed(new), "recovery_key_confirmed": confirmed},
        _init_lines(new, confirmed=confirmed),
    )


@backup.command("confirm-recovery-key")
@verb
def confirm_command() -> Answer:
    """Type the recovery key back, to prove that it is kept."""
    installation = ready()
    typed = click.prompt("Recovery key", hide_input=sys.stdin.isatty(), err=is_json())
    with installation.database.new_session() as session:
        onboarding.confirm_whole_recovery_key(session, installation, Secret(typed), actor())
    return Answer({"recovery_key_confirmed": True}, ["It opens the repository. Backups can run."])


@backup.command("run")
@click.option("--label", default="", help="A few words to find it by.")
@click.option("--queue", "queued", is_flag=True, help="Let the worker do it.")
@click.option("--if-changed", is_flag=True, help="Skip when all is as in the newest snapshot.")
@click.option("--exit-skipped", is_flag=True, help="End with 10 when it was skipped.")
@verb
def run_command(*, label: str, queued: bool, if_changed: bool, exit_skipped: bool) -> Answer:
    """Back up now, in this process, and read it back."""
    if exit_skipped and not if_changed:
        raise UsageError("--exit-skipped has no meaning without --if-changed. Nothing was backed up.")
    new = runs.NewRun(RunKind.BACKUP, Trigger.COMMAND, label, if_changed=if_changed)
    return _queue(new) if queued else _run(new, skipped=SKIPPED if exit_skipped else 0)


@backup.command("verify")
@click.argument("snapshot", default="")
@AT
@verb
def verify_command(*, snapshot: str, at: str) -> Answer:
    """Read every byte of a snapshot (the newest by default) and compare it.

    Ends with 4 when something differs or is missing, and names it.
    """
    installation = ready()
    with installation.database.new_session() as session:
        found = choose(engine.open_repository(session, installation), snapshot or "latest", at)
    return _run(runs.NewRun(RunKind.VERIFY, Trigger.COMMAND, snapshot_id=found))


@backup.command("list")
@verb
def list_command() -> Answer:
    """List the newest backups."""
    installation = ready()
    with installation.database.new_session() as session:
        rows = offered.newest(session, installation.settings)
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
    return Answer({"snapshots": data}, lines or ["There are no backups yet."])


@backup.command("status")
@verb
def status_command() -> Answer:
    """Say whether this app is protected; status 1 when it is not."""
    installation = ready()
    with installation.database.new_session() as session:
        found = verdict.judge(session, installation)
    return Answer(
        {"state": found.state.value, "sentence": found.sentence, "details": list(found.details)},
        [found.sentence, *(f"  {line}" for line in found.details)],
        0 if found.state is verdict.Protection.PROTECTED else 1,
    )


@backup.command("worker")
@click.option("--burst", is_flag=True, help="Stop when nothing waits.")
@click.option("--no-scheduler", is_flag=True, help="Run only the worker, not the loop beside it.")
@verb
def worker_command(*, burst: bool, no_scheduler: bool) -> Answer:
    """Carry out what the queue holds, and start what is due."""
    ready()
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    jobs.work(app, burst=burst, with_scheduler_loop=not no_scheduler)
    return Answer({"ended": True})


@backup.command("scheduler")
@verb
def scheduler_command() -> Answer:
    """Start what is due, each second, without a worker in this process."""
    ready()
    with suppress(KeyboardInterrupt):  # the usual way to end it
        jobs.schedule(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001
    return Answer({"ended": True})


@backup.command("tick")
@verb
def tick_command() -> Answer:
    """Start what is due, once; made to be called each minute."""
    started = jobs.tick_once(ready())
    return Answer({"started": list(started)}, [f"{len(started)} runs started."])


@backup.command("schedules")
@verb
def schedules_command() -> Answer:
    """List the schedules and when each comes next."""
    with ready().database.new_session() as session:
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
    return Answer({"schedules": data}, lines or ["There are no schedules."])


@backup.command("doctor")
@verb
def doctor_command() -> Answer:
    """Examine everything that backups and restores need."""
    installation = here()
    with installation.database.new_session() as session:
        findings = examination.examine(session, installation)
    return Answer(
        {"findings": [{"level": f.health.value, "topic": f.topic, "message": f.message} for f in findings]},
        [f"{f.health.value:<4} {f.topic}: {f.message}" for f in findings],
        1 if any(f.health is examination.Health.FAIL for f in findings) else 0,
    )


@backup.command("recover")
@verb
def recover_command() -> Answer:
    """Finish or undo restores whose process is gone."""
    found = recovery.recover_restores(ready())
    data = [{"restore": one.restore_id, "outcome": one.outcome, "message": one.message} for one in found]
    return Answer(
        {"restores": data},
        [f"{one['restore']}  {one['outcome']}  {one['message']}" for one in data]
        or ["Nothing was interrupted; nothing was touched."],
        1 if any(one["outcome"] == "needs_attention" for one in data) else 0,
    )


@backup.command("reindex")
@verb
def reindex_command() -> Answer:
    """Learn the list of backups anew from the repository."""
    installation = ready()
    with installation.database.new_session() as session:
        problems = catalogue.reindex(session, engine.open_repository(session, installation))
    lines = problems or ("The list is as the repository says.",)
    return Answer({"problems": list(problems)}, lines, _DAMAGED if problems else 0)


@backup.command("audit-verify")
@verb
def audit_command() -> Answer:
    """Say whether the audit log is as it was written."""
    check = here().audit().verify()
    data = {"ok": check.ok, "entries": check.entries, "first_bad": check.first_bad, "message": check.message}
    return Answer(data, [check.message], 0 if check.ok else _DAMAGED)


def _adopt(installation: Installation) -> bool:
    """Use the repository that is in the storage; False when there is none."""
    with installation.database.new_session() as session:
        try:
            problems = onboarding.adopt_repository(session, installation, actor())
        except NotARepository:
            return False
        except BackupAdminError as error:
            if error.code != "storage_unavailable":
                raise
            return False
    for problem in problems:
        say(problem)
    return True


def _revealed(new: onboarding.NewRecoveryKey | None) -> str | None:
    return None if new is None else new.key.reveal()


def _init_lines(new: onboarding.NewRecoveryKey | None, *, confirmed: bool) -> list[str]:
    lines = ["The repository in the storage is in use."]
    if new is not None:
        lines = [
            "The repository is made. Its recovery key, shown this once:\n",
            f"    {new.key.reveal()}\n",
            "Keep it away from this server: it alone opens the backups when the server is gone.",
        ]
    if not confirmed:
        lines.append("Confirm that you kept the recovery key: flask backup confirm-recovery-key")
    return lines


def _queue(new: runs.NewRun) -> Answer:
    installation = ready()
    with installation.database.new_session() as session:
        run = runs.request_run(session, installation, new, actor())
    return Answer({"run": run.id, "status": run.status.value}, [f"Run {run.id} is queued."])


def _run(new: runs.NewRun, *, skipped: int = 0) -> Answer:
    installation = ready()
    with installation.database.new_session() as session:
        run = runs.create_run(session, installation, new, actor())
    error = perform.perform_here(installation, run)
    with installation.database.new_session() as session:
        run = runs.find_run(session, run.id)
    statuses = {**_STATUSES, RunStatus.SKIPPED: skipped}
    status = _DAMAGED if new.kind is RunKind.VERIFY and run.warnings else 1
    return Answer(
        {
            "run": run.id,
            "status": run.status.value,
            "snapshot": run.snapshot_id,
            "new_bytes": run.new_bytes,
            "bytes_read": run.bytes_read,
            "message": run.error_message,
            "reason": run.reason,
            "unchanged": run.unchanged_id,
            "warnings": run.warnings,
        },
        [_run_line(run)],
        error.exit_code if error is not None else statuses.get(run.status, status),
        notes=run.warnings,
    )


def _run_line(run: BackupRun) -> str:
    if run.status is RunStatus.SKIPPED:
        return f"skipped: {run.reason}"
    return f"{run.status.value}: snapshot {run.snapshot_id or 'none'}. {run.error_message}".strip()
