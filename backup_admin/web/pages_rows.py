"""The third step of a restore of tables or rows: which, and what becomes of what is live."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flask import Blueprint, redirect, request, url_for

from backup_admin.access.permissions import Permission
from backup_admin.control import overview, planning, rows_look, wizard
from backup_admin.control.rows_choice import RowsChoice
from backup_admin.control.wizard import RestoreType
from backup_admin.core.errors import BackupAdminError
from backup_admin.web import current
from backup_admin.web.guards import requires
from backup_admin.web.pages_restore import find_draft, steps, type_label
from backup_admin.web.render import render_page
from backup_admin.web.rows_view import POLICIES, line_name

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from backup_admin.control.rows_choice import Held
    from backup_admin.records import RestoreOperation
    from backup_admin.sources.row_search import FoundRows

_LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Look:
    """What somebody looks for in the backup, and what was found; `taken` is a row that was chosen."""

    table: str = ""
    text: str = ""
    found: FoundRows | None = None
    name: str = ""
    taken: str = ""
    error: str = ""


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/restore/<operation_id>/rows", "restore_rows", show)
    add("/restore/<operation_id>/rows", "restore_save_rows", save, methods=["POST"])
    add("/restore/<operation_id>/rows/look", "restore_look_rows", look, methods=["POST"])


@requires(Permission.PLAN_RESTORE)
def show(operation_id: str) -> ResponseReturnValue:
    """Step 3: which tables or rows."""
    operation = find_draft(operation_id)
    if operation.restore_type != RestoreType.ROWS:
        return redirect(url_for("backup_admin.restore_components", operation_id=operation.id))
    choice = RowsChoice.from_plain(operation.selection)
    return _show(operation, _held(operation), choice, problem=operation.error_message, status=200)


@requires(Permission.PLAN_RESTORE)
def save(operation_id: str) -> ResponseReturnValue:
    """Keep what was asked for, and let it be tried out and taken back."""
    operation = find_draft(operation_id)
    session, installation = current.session(), current.installation()
    held = _held(operation)
    choice = _read(held)
    errors = wizard.choose_rows(session, installation, operation.id, choice, held)
    if errors:
        return _show(operation, held, choice, errors=errors)
    try:
        planning.ask_for_plan(session, installation, operation.id)
    except BackupAdminError as error:
        return _show(operation, held, choice, problem=str(error))
    return redirect(url_for("backup_admin.restore_review", operation_id=operation.id), code=303)


@requires(Permission.PLAN_RESTORE)
def look(operation_id: str) -> ResponseReturnValue:
    """Look into the backup for rows, or take the key of one that was found; keeps what is typed meanwhile."""
    operation = find_draft(operation_id)
    held = _held(operation)
    choice = _read(held)
    taken = request.form.get("take", "").strip()
    number, _, table = request.form.get("look_table", "").partition(":")
    database = held.databases[int(number)].name if number in map(str, range(len(held.databases))) else ""
    asked = Look(f"{number}:{table}", request.form.get("look_text", "").strip()[:_LONGEST_TEXT])
    if taken:
        lines = [line for line in choice.rows.splitlines() if line.strip() and line.strip() != taken]
        choice = replace(choice, database=database or choice.database, rows="\n".join([*lines, taken]))
        return _show(operation, held, choice, look=replace(asked, taken=taken))
    if database not in [one.name for one in held.databases] or not table:
        return _show(operation, held, choice, look=replace(asked, error="Choose the table to look into."))
    try:
        found = rows_look.look(
            current.session(),
            current.installation(),
            operation.id,
            current.person(),
            database=database,
            table=table,
            text=asked.text,
        )
    except BackupAdminError as error:
        return _show(operation, held, choice, look=replace(asked, error=str(error)))
    return _show(operation, held, choice, look=replace(asked, found=found, name=line_name(table)))


def _held(operation: RestoreOperation) -> Held:
    return wizard.held_rows(current.session(), current.installation(), operation.id)


def _read(held: Held) -> RowsChoice:
    """Read the form; the one database there is needs no choice."""
    form = request.form
    database = form.get("database", held.databases[0].name if len(held.databases) == 1 else "")
    names = [one.name for one in held.databases]
    number = names.index(database) if database in names else -1
    return RowsChoice(
        database,
        tuple(form.getlist(f"tables-{number}")),
        form.get("rows", ""),
        form.get("on_conflict", ""),
        form.get("linked", ""),
    )


def _show(  # noqa: PLR0913 - what is on the page
    operation: RestoreOperation,
    held: Held,
    choice: RowsChoice,
    *,
    errors: dict[str, str] | None = None,
    problem: str = "",
    look: Look | None = None,
    status: int = 0,
) -> ResponseReturnValue:
    tables = [table.name for one in held.databases for table in one.tables]
    return render_page(
        "restore_rows",
        status=status or (422 if errors or problem or (look and look.error) else 200),
        steps=steps(operation, 3),
        operation=operation,
        label=type_label(operation),
        snapshot=overview.manifest_of(current.session(), operation.snapshot_id),
        held=held,
        choice=choice,
        policies=POLICIES,
        errors=errors or {},
        problem=problem,
        look=look or Look(),
        clashes=rows_look.copy_clashes(current.session(), current.installation(), held),
        example=tables[0] if tables else "events",
    )
