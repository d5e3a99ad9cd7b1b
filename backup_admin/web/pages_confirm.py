"""The last three steps of a restore: review and confirm, watch, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from backup_admin.access import second_factor
from backup_admin.access.permissions import Permission
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import overview, planning, restores
from backup_admin.control.restores import Confirmation
from backup_admin.control.rows_choice import RowsChoice
from backup_admin.control.rows_ended import as_planned, is_rows
from backup_admin.core.errors import BackupAdminError, NotPermitted
from backup_admin.records import ACTIVE_RESTORES, RestoreOperation
from backup_admin.web import current
from backup_admin.web.flashes import say
from backup_admin.web.guards import requires
from backup_admin.web.job_view import of_plan, of_restore
from backup_admin.web.pages_restore import find, find_draft, steps, type_label
from backup_admin.web.plan_view import PlanView, view_plan
from backup_admin.web.proof import prove
from backup_admin.web.render import render_fragment, render_page

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

_OUTCOMES = {
    "restored": ("The restore is done and checked", "The app runs on the restored state."),
    "rolled_back": (
        "The restore was taken back",
        "Everything went back to how it was before.",
    ),
    "needs_attention": (
        "A person has to look",
        "The restore could neither be finished nor undone by itself.",
    ),
    "failed": ("The restore failed", "Nothing live was changed."),
    "cancelled": ("The restore was cancelled", "Nothing live was changed."),
    "interrupted": ("The restore was interrupted", "The next start of the app finishes it or takes it back."),
    "undone": ("The restore was undone", "The app runs on the state from before the restore."),
}
_WAITS = (
    "The restore waits for its database server",
    "The server did not answer. The worker asks it every ten seconds, and finishes the restore or takes it "
    "back by itself as soon as there is an answer.",
)
_ROWS_OUTCOMES = {
    **_OUTCOMES,
    "restored": ("The rows are restored", "They were written in one transaction, while the app went on."),
    "rolled_back": ("Nothing was restored", "It ended before its transaction did; nothing live was changed."),
    "interrupted": ("The restore was interrupted", "Whether the rows are there is found out by the worker."),
    "undone": ("The restore was undone", "Its rows are as they were before it; everything else stayed."),
}


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/restore/<operation_id>/review", "restore_review", review)
    add("/restore/<operation_id>/review", "restore_confirm", confirm, methods=["POST"])
    add("/restore/<operation_id>/plan", "restore_replan", replan, methods=["POST"])
    add("/restore/<operation_id>/planning", "restore_planning", plan_progress)
    add("/restore/<operation_id>/monitor", "restore_monitor", monitor)
    add("/restore/<operation_id>/progress", "restore_progress", progress)
    add("/restore/<operation_id>/cancel", "restore_cancel", cancel, methods=["POST"])
    add("/restore/<operation_id>/verify", "restore_verify", verify)
    add("/restore/<operation_id>/undo", "restore_undo", undo, methods=["POST"])


@requires(Permission.PLAN_RESTORE)
def review(operation_id: str) -> ResponseReturnValue:
    """Step 4: what would change, what speaks against it, and the confirmation."""
    operation = find_draft(operation_id)
    if planning.is_planning(operation):
        shown = of_plan(operation, current.now())
        return render_page("restore_planning", steps=steps(operation, 4), progress=shown, **_facts(operation))
    if operation.error_message and is_rows(operation):
        return redirect(url_for("backup_admin.restore_rows", operation_id=operation.id))
    return _show_review(operation, error=operation.error_message)


@requires(Permission.PLAN_RESTORE)
def plan_progress(operation_id: str) -> ResponseReturnValue:
    """Return the progress of the plan alone; the finished one leads to the review."""
    operation = find(operation_id)
    shown = of_plan(operation, current.now())
    response = render_fragment("progress", progress=shown)
    if shown.finished and "HX-Request" in request.headers:
        response.headers["HX-Redirect"] = url_for("backup_admin.restore_show", operation_id=operation.id)
    return response


@requires(Permission.PLAN_RESTORE)
def replan(operation_id: str) -> ResponseReturnValue:
    """Let the plan be made and checked anew."""
    operation = find_draft(operation_id)
    try:
        planning.ask_for_plan(current.session(), current.installation(), operation.id)
    except BackupAdminError as error:
        if not is_rows(operation):
            raise
        return _show_review(operation, error=str(error))
    return redirect(url_for("backup_admin.restore_review", operation_id=operation.id), code=303)


@requires(Permission.RESTORE)
def confirm(operation_id: str) -> ResponseReturnValue:
    """Start the restore that was reviewed, and no other."""
    operation = find_draft(operation_id)
    errors = _field_errors()
    if request.form.get("digest", "") != operation.plan_digest or not operation.plan:
        return _show_review(operation, error="The plan has changed since you looked at it; read it again.")
    if errors:
        return _show_review(operation, errors=errors)
    try:
        prove(Act(Purpose.RESTORE, operation.plan_digest))
    except NotPermitted as error:
        return _show_review(operation, errors={"code": str(error)})
    try:
        restores.start(current.session(), current.installation(), operation.id, _confirmation())
    except BackupAdminError as error:
        return _show_review(find(operation_id), error=f"{error} Nothing has been touched.")
    return redirect(url_for("backup_admin.restore_monitor", operation_id=operation_id), code=303)


@requires(Permission.PLAN_RESTORE)
def monitor(operation_id: str) -> ResponseReturnValue:
    """Step 5: watch it; the address stays good after a restart or a new login."""
    operation = find(operation_id)
    state = restores.progress(current.session(), current.installation(), operation.id)
    shown = of_restore(operation, current.now(), state)
    if shown.finished:
        return redirect(url_for("backup_admin.restore_verify", operation_id=operation.id))
    return render_page("restore_monitor", steps=steps(operation, 5), progress=shown, **_facts(operation))


@requires(Permission.PLAN_RESTORE)
def progress(operation_id: str) -> ResponseReturnValue:
    """Return the progress component alone; the finished one leads to the result."""
    operation = find(operation_id)
    state = restores.progress(current.session(), current.installation(), operation.id)
    shown = of_restore(operation, current.now(), state)
    response = render_fragment("progress", progress=shown)
    if shown.finished and "HX-Request" in request.headers:
        response.headers["HX-Redirect"] = url_for("backup_admin.restore_verify", operation_id=operation.id)
    return response


@requires(Permission.RESTORE)
def cancel(operation_id: str) -> ResponseReturnValue:
    """Ask the restore to stop; it does while nothing live has changed."""
    operation = find(operation_id)
    restores.cancel(current.session(), current.installation(), operation.id, current.person())
    say("info", "The restore stops at its next safe place. Nothing live has been changed so far.")
    return redirect(url_for("backup_admin.restore_monitor", operation_id=operation.id), code=303)


@requires(Permission.PLAN_RESTORE)
def verify(operation_id: str) -> ResponseReturnValue:
    """Step 6: what was checked afterwards, and the way back."""
    operation = find(operation_id)
    state = restores.progress(current.session(), current.installation(), operation.id)
    if state.status in ACTIVE_RESTORES:
        return redirect(url_for("backup_admin.restore_monitor", operation_id=operation.id))
    return _show_result(operation)


@requires(Permission.RESTORE)
def undo(operation_id: str) -> ResponseReturnValue:
    """Put the state from before the restore back."""
    operation = find(operation_id)
    try:
        prove(Act(Purpose.UNDO, operation.id))
    except NotPermitted as error:
        return _show_result(operation, code_error=str(error))
    restores.undo(current.session(), current.installation(), operation.id, _confirmation())
    return redirect(url_for("backup_admin.restore_monitor", operation_id=operation.id), code=303)


def _show_review(
    operation: RestoreOperation, *, error: str = "", errors: dict[str, str] | None = None
) -> Response:
    session, installation = current.session(), current.installation()
    actor = current.person()
    return render_page(
        "restore_review",
        status=422 if error or errors else 200,
        steps=steps(operation, 4),
        plan=view_plan(operation.plan) if operation.plan else PlanView(),
        issues=operation.issues,
        blocked=any(issue["level"] == "block" for issue in operation.issues),
        warned=any(issue["level"] == "warn" for issue in operation.issues),
        enrolled=second_factor.is_enrolled(session, actor.id),
        decision=restores.allow_decision(installation, current.origin()),
        allowlist=installation.settings.restore_ip_allowlist,
        undo_hours=installation.settings.undo_hours,
        form_error=error,
        errors=errors or {},
        typed={name: request.form.get(name, "") for name in ("reason", "app_name")},
        **_facts(operation),
    )


def _show_result(operation: RestoreOperation, code_error: str = "") -> Response:
    session, installation = current.session(), current.installation()
    state = restores.progress(session, installation, operation.id)
    outcomes = _ROWS_OUTCOMES if is_rows(operation) else _OUTCOMES
    waits = state.waits_for_server
    headline, summary = _WAITS if waits else outcomes.get(state.status.value, ("Restore", ""))
    return render_page(
        "restore_verify",
        status=422 if code_error else 200,
        steps=steps(operation, 6),
        state=state,
        headline=headline,
        summary=summary,
        as_planned=as_planned(state.checks) if is_rows(operation) else "",
        code_error=code_error,
        enrolled=second_factor.is_enrolled(session, current.person().id),
        **_facts(operation),
    )


def _facts(operation: RestoreOperation) -> dict[str, Any]:
    return {
        "operation": operation,
        "line": overview.restore_line(operation),
        "label": type_label(operation),
        "asked": RowsChoice.from_plain(operation.selection).words if is_rows(operation) else "",
        "snapshot": overview.manifest_of(current.session(), operation.snapshot_id),
    }


def _field_errors() -> dict[str, str]:
    errors = {}
    if not request.form.get("reason", "").strip():
        errors["reason"] = "Say why; it stands in the audit log."
    if request.form.get("app_name", "").strip() != current.settings().app_name:
        errors["app_name"] = "This is not the name of the app."
    if not request.form.get("code", "").strip():
        errors["code"] = "Type the code that your authenticator shows."
    return errors


def _confirmation() -> Confirmation:
    return Confirmation(
        actor=current.person(),
        origin=current.origin(),
        typed_name=request.form.get("app_name", "").strip(),
        reason=request.form.get("reason", "").strip(),
    )
