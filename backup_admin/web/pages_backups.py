"""The list of backups, one backup, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, redirect, request, url_for

from backup_admin.access.permissions import Permission
from backup_admin.control import app_clusters, catalogue, onboarding, overview, runs
from backup_admin.control.destinations import states_of
from backup_admin.control.runs import NewRun
from backup_admin.records import BackupRun, RunKind, RunStatus
from backup_admin.web import current
from backup_admin.web.contents import manifest_json, read_content
from backup_admin.web.errors import NotFound
from backup_admin.web.flashes import say
from backup_admin.web.guards import requires
from backup_admin.web.job_view import of_run
from backup_admin.web.render import render_fragment, render_page
from backup_admin.web.words import word

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/backups", "backups", backups)
    add("/backups", "start_backup", start_backup, methods=["POST"])
    add("/backups/<run_id>", "backup", backup)
    add("/backups/<run_id>/progress", "backup_progress", backup_progress)
    add("/backups/<run_id>/manifest.json", "manifest", manifest)
    add("/backups/<run_id>/verify", "start_verify", start_verify, methods=["POST"])
    add("/backups/<run_id>/cancel", "cancel_run", cancel_run, methods=["POST"])


@requires(Permission.VIEW)
def backups() -> ResponseReturnValue:
    """List the backups, newest first."""
    status = request.args.get("status", "")
    status = status if status in set(RunStatus) else ""
    before = request.args.get("before", "")
    page = overview.backups(current.session(), status=status, before=before)
    set_up = onboarding.look(current.session(), current.installation())
    choices = [("", "All results")] + [(each.value, word(each.value).label) for each in RunStatus]
    return render_page(
        "backups", page=page, wanted=status, before=before, choices=choices, first_run=not set_up.complete
    )


@requires(Permission.VIEW)
def backup(run_id: str) -> ResponseReturnValue:
    """Show one backup or one verification."""
    run = _find(run_id)
    session = current.session()
    snapshot = overview.manifest_of(session, run.snapshot_id)
    verifying = run.kind == RunKind.VERIFY
    if run.kind == RunKind.CLUSTER:
        return render_page(
            "base_backup",
            run=run,
            line=overview.run_line(run),
            cluster=app_clusters.find_view(session, current.installation(), run.label),
            progress=of_run(run, current.now()),
        )
    return render_page(
        "verification" if verifying else "backup",
        run=run,
        line=overview.run_line(run),
        snapshot=snapshot,
        content=read_content(run.snapshot_id) if snapshot is not None and not verifying else None,
        read_whole=snapshot is not None and catalogue.was_read_whole(session, snapshot),
        restorable=snapshot is not None and snapshot.present and not snapshot.problem,
        verifications=() if verifying else overview.verifications(session, run.snapshot_id),
        made_by=overview.backup_of(session, run.snapshot_id) if verifying else None,
        unchanged=overview.backup_of(session, run.unchanged_id) if run.unchanged_id else None,
        progress=of_run(run, current.now()),
        storages=states_of(run),
    )


@requires(Permission.VIEW)
def backup_progress(run_id: str) -> ResponseReturnValue:
    """Return the progress component alone; the finished one brings the whole page."""
    run = _find(run_id)
    progress = of_run(run, current.now())
    response = render_fragment("progress", progress=progress)
    if progress.finished and "HX-Request" in request.headers:
        response.headers["HX-Refresh"] = "true"
    return response


@requires(Permission.RUN)
def start_backup() -> ResponseReturnValue:
    """Ask for a backup now, and show it."""
    return _request(NewRun())


@requires(Permission.VERIFY)
def start_verify(run_id: str) -> ResponseReturnValue:
    """Ask for every byte of a backup to be read again, and show it."""
    run = _find(run_id)
    if not run.snapshot_id or run.kind == RunKind.CLUSTER:
        raise NotFound("This run made no backup that could be verified here.")
    return _request(NewRun(kind=RunKind.VERIFY, snapshot_id=run.snapshot_id))


@requires(Permission.RUN)
def cancel_run(run_id: str) -> ResponseReturnValue:
    """Ask a run to stop at its next safe place."""
    run = _find(run_id)
    runs.cancel_run(current.session(), current.installation(), run.id, current.person())
    say("info", "The run stops at its next safe place.")
    return redirect(url_for("backup_admin.backup", run_id=run.id), code=303)


@requires(Permission.DOWNLOAD)
def manifest(run_id: str) -> ResponseReturnValue:
    """Return the manifest of a backup as a file; it holds names and digests, no secret."""
    run = _find(run_id)
    if not run.snapshot_id or run.kind == RunKind.CLUSTER:
        raise NotFound("This run made no backup of the app.")
    response = Response(manifest_json(run.snapshot_id), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="manifest-{run.snapshot_id}.json"'
    return response


def _request(new: NewRun) -> ResponseReturnValue:
    """Ask for a run and show it, or show the one that is under way already."""
    try:
        run_id = runs.request_run(current.session(), current.installation(), new, current.person()).id
    except runs.RunActive as error:
        say("info", str(error))
        run_id = error.run_id
    return redirect(url_for("backup_admin.backup", run_id=run_id), code=303)


def _find(run_id: str) -> BackupRun:
    run = current.session().get(BackupRun, run_id)
    if run is None:
        raise NotFound("There is no such backup.")
    return run
