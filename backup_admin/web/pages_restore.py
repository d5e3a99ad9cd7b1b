"""The first three steps of a restore: which backup, how much, which parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Blueprint, redirect, request, url_for

from backup_admin.access import second_factor
from backup_admin.access.permissions import Permission
from backup_admin.control import offered, overview, planning, restore_points, wizard
from backup_admin.control.wizard import Choice, RestoreType
from backup_admin.core.errors import SnapshotMissing, UsageError
from backup_admin.records import ACTIVE_RESTORES, RestoreOperation, RestoreStatus
from backup_admin.repository.types import SAFETY
from backup_admin.web import current
from backup_admin.web.addresses import line_url
from backup_admin.web.errors import NotFound
from backup_admin.web.guards import requires
from backup_admin.web.render import render_page

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from backup_admin.control.offered import SnapshotRow
    from backup_admin.operations.points import Chosen

TYPES = {
    RestoreType.FULL: ("Everything", "All databases and folders that the backup holds."),
    RestoreType.DATABASE_ONLY: ("Databases only", "The databases; files stay as they are now."),
    RestoreType.FILES_ONLY: ("Files only", "The folders; databases stay as they are now."),
    RestoreType.PARTIAL: ("Chosen parts", "You choose single databases and folders in the next step."),
    RestoreType.ROWS: (
        "Tables or rows of one database",
        "A deleted row with all that belonged to it, or single tables.",
    ),
}
_STEPS = (
    ("Backup", "restore_select"),
    ("Type", "restore_type"),
    ("Components", "restore_components"),
    ("Review", "restore_review"),
    ("Progress", "restore_monitor"),
    ("Result", "restore_verify"),
)


@dataclass(frozen=True, slots=True)
class WizardStep:
    """One of the six steps in the list above the page."""

    label: str
    current: bool
    past: bool
    url: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A point in time that was typed, and the backup for it or why there is none."""

    at: str = ""
    found: Chosen | None = None
    error: str = ""


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/restore", "restore_select", select)
    add("/restore", "restore_start", begin, methods=["POST"])
    add("/restore/<operation_id>", "restore_show", show)
    add("/restore/<operation_id>/type", "restore_type", restore_type)
    add("/restore/<operation_id>/type", "restore_save_type", save_type, methods=["POST"])
    add("/restore/<operation_id>/components", "restore_components", components)
    add("/restore/<operation_id>/components", "restore_save_components", save_components, methods=["POST"])


@requires(Permission.PLAN_RESTORE)
def select() -> ResponseReturnValue:
    """Step 1: show the backups that can be restored."""
    session = current.session()
    asked = _asked()
    before = request.args.get("before", "")
    rows, older = offered.backups(session, current.settings(), before=before)
    safety = () if before else offered.safety_backups(session, current.settings())
    chosen = request.args.get("chosen", "") or next((row.snapshot_id for row in rows if row.newest_good), "")
    if asked.found is not None:
        older = asked.found.id
        rows, safety = _only(asked.found.id)
        chosen = asked.found.id if rows else ""
    mine = overview.drafts(session, current.person().id)
    return render_page(
        "restore_select",
        steps=steps(None, 1),
        snapshots=rows,
        safety=safety,
        older=older,
        asked=asked,
        chosen=chosen,
        operation_id=request.args.get("operation", ""),
        draft=mine[0] if mine else None,
        active=overview.active_restore(session),
        past=overview.restores(session),
        enrolled=second_factor.is_enrolled(session, current.person().id),
        url_of=line_url,
    )


def _asked() -> _Asked:
    """Find the backup for the point in time that was typed, if any."""
    at = request.args.get("at", "").strip()
    if not at:
        return _Asked()
    zone = current.settings().timezone
    try:
        found = restore_points.find_backup(current.session(), at, current.now(), zone)
    except (UsageError, SnapshotMissing) as error:
        return _Asked(at, error=str(error))
    return _Asked(at, found)


def _only(snapshot_id: str) -> tuple[tuple[SnapshotRow, ...], tuple[SnapshotRow, ...]]:
    """Return one backup among the backups or among the safety backups."""
    row = overview.manifest_of(current.session(), snapshot_id)
    if row is None:
        return (), ()
    shown = (offered.snapshot_row(row, current.settings(), overview.newest_good(current.session())),)
    return ((), shown) if row.kind == SAFETY else (shown, ())


@requires(Permission.PLAN_RESTORE)
def begin() -> ResponseReturnValue:
    """Keep the chosen backup in a new draft, or in the one being prepared."""
    session, installation = current.session(), current.installation()
    snapshot_id = request.form.get("snapshot", "")
    if overview.manifest_of(session, snapshot_id) is None:
        raise NotFound("There is no such backup.")
    known = request.form.get("operation", "")
    operation = find_draft(known) if known else _create_draft()
    wizard.choose_snapshot(session, installation, operation.id, snapshot_id)
    return redirect(url_for("backup_admin.restore_type", operation_id=operation.id), code=303)


def _create_draft() -> RestoreOperation:
    return wizard.create_draft(current.session(), current.installation(), current.person())


@requires(Permission.PLAN_RESTORE)
def show(operation_id: str) -> ResponseReturnValue:
    """Lead to the step at which a restore is."""
    return redirect(url_for(_endpoint(find(operation_id)), operation_id=operation_id))


@requires(Permission.PLAN_RESTORE)
def restore_type(operation_id: str) -> ResponseReturnValue:
    """Step 2: how much shall come back."""
    return _show_type(find_draft(operation_id))


def _show_type(operation: RestoreOperation, error: str = "") -> ResponseReturnValue:
    held = wizard.available(current.session(), current.installation(), operation.id)
    possible = {
        RestoreType.FULL: True,
        RestoreType.DATABASE_ONLY: bool(held.databases),
        RestoreType.FILES_ONLY: bool(held.files),
        RestoreType.PARTIAL: True,
        RestoreType.ROWS: bool(held.databases),
    }
    return render_page(
        "restore_type",
        status=422 if error else 200,
        error=error,
        steps=steps(operation, 2),
        operation=operation,
        snapshot=overview.manifest_of(current.session(), operation.snapshot_id),
        missing=_missing(operation),
        types=[(kind, *words, possible[kind]) for kind, words in TYPES.items()],
        has_rows=possible[RestoreType.ROWS],
    )


@requires(Permission.PLAN_RESTORE)
def save_type(operation_id: str) -> ResponseReturnValue:
    """Keep how much shall come back."""
    operation = find_draft(operation_id)
    wanted = request.form.get("restore_type", "")
    if wanted not in set(RestoreType):
        return _show_type(operation, "Choose one of the types.")
    wizard.choose_type(current.session(), current.installation(), operation.id, RestoreType(wanted))
    return redirect(url_for("backup_admin.restore_components", operation_id=operation.id), code=303)


@requires(Permission.PLAN_RESTORE)
def components(operation_id: str) -> ResponseReturnValue:
    """Step 3: which parts."""
    operation = find_draft(operation_id)
    if operation.restore_type == RestoreType.ROWS:
        return redirect(url_for("backup_admin.restore_rows", operation_id=operation.id))
    return _show_components(operation)


@requires(Permission.PLAN_RESTORE)
def save_components(operation_id: str) -> ResponseReturnValue:
    """Keep which parts, and let the plan be made of what would change."""
    operation = find_draft(operation_id)
    session, installation = current.session(), current.installation()
    choice = Choice(
        files=tuple(request.form.getlist("files")),
        databases=tuple(request.form.getlist("databases")),
    )
    try:
        wizard.choose_components(session, installation, operation.id, choice)
    except UsageError as error:
        return _show_components(operation, error=str(error))
    planning.ask_for_plan(session, installation, operation.id)
    return redirect(url_for("backup_admin.restore_review", operation_id=operation.id), code=303)


def _show_components(operation: RestoreOperation, error: str = "") -> ResponseReturnValue:
    return render_page(
        "restore_components",
        status=422 if error else 200,
        steps=steps(operation, 3),
        operation=operation,
        error=error,
        label=type_label(operation),
        held=wizard.available(current.session(), current.installation(), operation.id),
        snapshot=overview.manifest_of(current.session(), operation.snapshot_id),
        fixed=operation.restore_type != RestoreType.PARTIAL,
    )


def _missing(operation: RestoreOperation) -> tuple[str, ...]:
    """Return the parts of this app that the chosen backup does not hold."""
    row = overview.manifest_of(current.session(), operation.snapshot_id)
    return () if row is None else offered.missing_parts(row, current.settings())


def find(operation_id: str) -> RestoreOperation:
    """Return a restore; a draft only to the person who prepares it."""
    operation = current.session().get(RestoreOperation, operation_id)
    if operation is None:
        raise NotFound("There is no such restore.")
    if operation.status == RestoreStatus.DRAFT and operation.restored_by != current.person().id:
        raise NotFound("There is no such restore.")
    return operation


def find_draft(operation_id: str) -> RestoreOperation:
    """Return a restore that can still be changed."""
    operation = find(operation_id)
    if operation.status != RestoreStatus.DRAFT:
        raise UsageError("This restore has been started; it cannot be changed any more.")
    return operation


def type_label(operation: RestoreOperation) -> str:
    """Return the type of a restore in words."""
    return TYPES[RestoreType(operation.restore_type)][0]


def steps(operation: RestoreOperation | None, at: int) -> tuple[WizardStep, ...]:
    """Return the six steps; those behind can be visited while it is a draft."""
    drafting = operation is not None and operation.status == RestoreStatus.DRAFT
    return tuple(
        WizardStep(
            label,
            number == at,
            number < at,
            _step_url(operation, endpoint) if drafting and number < at else "",
        )
        for number, (label, endpoint) in enumerate(_STEPS, start=1)
    )


def _step_url(operation: RestoreOperation | None, endpoint: str) -> str:
    if operation is None:
        return ""
    if endpoint == "restore_select":
        return url_for(f"backup_admin.{endpoint}", operation=operation.id, chosen=operation.snapshot_id)
    return url_for(f"backup_admin.{endpoint}", operation_id=operation.id)


def _endpoint(operation: RestoreOperation) -> str:
    if operation.status in ACTIVE_RESTORES:
        return "backup_admin.restore_monitor"
    if operation.status != RestoreStatus.DRAFT:
        return "backup_admin.restore_verify"
    if not operation.snapshot_id:
        return "backup_admin.restore_select"
    seen = operation.plan or operation.error_message or planning.is_planning(operation)
    return "backup_admin.restore_review" if seen else "backup_admin.restore_type"
