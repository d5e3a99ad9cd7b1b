"""Settings: what is protected, where backups go, and when they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from backup_admin.access import second_factor
from backup_admin.access.permissions import Permission
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import (
    app_clusters,
    app_streams,
    engine,
    onboarding,
    overview,
    restore_points,
    schedules,
    storage_tests,
)
from backup_admin.control.installation import QueueUnavailable
from backup_admin.control.s3_keys import parse_keys
from backup_admin.core.errors import BackupAdminError, FieldMistake, NotPermitted, UsageError
from backup_admin.records import BackupSchedule, RunKind
from backup_admin.web import current, storage_form
from backup_admin.web.errors import NotFound
from backup_admin.web.flashes import say
from backup_admin.web.guards import requires
from backup_admin.web.proof import prove
from backup_admin.web.render import render_page
from backup_admin.web.storage_view import view_storage

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

_NEW_KEYS = "The keys have been replaced, after a try with them."


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/settings", "settings", settings)
    add("/settings/sources", "sources", sources)
    add("/settings/sources", "save_excludes", save_excludes, methods=["POST"])
    add("/settings/storage", "storage", storage)
    add("/settings/storage", "save_storage", save_storage, methods=["POST"])
    add("/settings/storage/keys", "save_storage_keys", save_storage_keys, methods=["POST"])
    add("/settings/storage/test", "test_storage", test_storage, methods=["POST"])
    add("/settings/schedule", "schedule", schedule)
    add("/settings/schedule/new", "schedule_new", schedule_new)
    add("/settings/schedule/new", "schedule_create", schedule_create, methods=["POST"])
    add("/settings/schedule/<int:schedule_id>", "schedule_edit", schedule_edit)
    add("/settings/schedule/<int:schedule_id>", "schedule_save", schedule_save, methods=["POST"])
    add("/settings/schedule/<int:schedule_id>/delete", "schedule_delete", schedule_delete, methods=["POST"])


@requires(Permission.VIEW)
def settings() -> ResponseReturnValue:
    """Lead to the first page of the settings."""
    return redirect(url_for("backup_admin.sources"))


@requires(Permission.VIEW)
def sources() -> ResponseReturnValue:
    """Show what is protected and what is left out."""
    return _show_sources()


@requires(Permission.CONFIGURE)
def save_excludes() -> ResponseReturnValue:
    """Keep the patterns an administrator added for one folder."""
    name = request.form.get("name", "")
    patterns = tuple(line.strip() for line in request.form.get("excludes", "").splitlines() if line.strip())
    try:
        engine.set_excludes(current.session(), current.installation(), name, patterns)
    except UsageError as error:
        return _show_sources(
            status=422, failed=name, error=str(error), typed=request.form.get("excludes", "")
        )
    details = {"exclude": ", ".join(patterns)}
    current.audit().append(current.person(), "settings.exclude", target=name, details=details)
    say("ok", f"What is left out of {name} has been saved. It counts from the next backup on.")
    return redirect(url_for("backup_admin.sources"), code=303)


@requires(Permission.VIEW)
def storage() -> ResponseReturnValue:
    """Show where backups go."""
    return _show_storage()


@requires(Permission.STORAGE)
def save_storage() -> ResponseReturnValue:
    """Change where backups go; it takes a code of the second factor."""
    installation, session, actor = current.installation(), current.session(), current.person()
    form = storage_form.read_form(request.form)
    before = engine.storage_address(session, installation.settings)
    try:
        chosen = storage_form.understand(form, request.form)
        prove(Act(Purpose.STORAGE))
        kept = onboarding.choose_storage(
            session, installation, chosen.address, actor, credentials=chosen.credentials
        )
    except NotPermitted as error:
        return _show_storage(status=422, code_error=str(error), form=form)
    except BackupAdminError as error:
        return _show_storage(status=422, form=storage_form.after(form, error, installation.settings))
    if kept != before:
        say("ok", "The storage has been changed. New backups go to the new place.")
    elif chosen.credentials is not None:
        say("ok", _NEW_KEYS)
    else:
        say("info", "This is the storage in use already. Nothing has been changed.")
    return redirect(url_for("backup_admin.storage"), code=303)


@requires(Permission.STORAGE)
def save_storage_keys() -> ResponseReturnValue:
    """Replace or remove the keys of the bucket; it takes a code of the second factor."""
    installation, session, actor = current.installation(), current.session(), current.person()
    is_removal = request.form.get("act") == "remove"
    try:
        given = None
        if not is_removal:
            given = parse_keys(request.form.get("access_key", ""), request.form.get("secret_key", ""))
            if given is None:
                raise UsageError("Give the access key and the secret key.")
        prove(Act(Purpose.STORAGE))
        onboarding.change_keys(session, installation, given, actor)
    except NotPermitted as error:
        return _show_storage(status=422, keys_code_error=str(error))
    except BackupAdminError as error:
        return _show_storage(status=422, keys_error=str(error))
    say(
        "ok",
        "The keys have been removed. Environment, profile or role give them now."
        if is_removal
        else _NEW_KEYS,
    )
    return redirect(url_for("backup_admin.storage"), code=303)


@requires(Permission.VERIFY)
def test_storage() -> ResponseReturnValue:
    """Test the storage now, or let the worker do it."""
    session, installation = current.session(), current.installation()
    try:
        if storage_tests.ask_for_test(session, installation, current.person()):
            say("info", "A worker tests the storage now. The result shows here in a moment.")
    except QueueUnavailable as error:
        say("warn", str(error))
    return redirect(url_for("backup_admin.storage"), code=303)


@requires(Permission.VIEW)
def schedule() -> ResponseReturnValue:
    """Show all schedules with their next five times."""
    rows = schedules.list_schedules(current.session())
    return render_page(
        "settings_schedule", schedules=[(row, _upcoming(row), _cost(_form_of(row))) for row in rows]
    )


@requires(Permission.CONFIGURE)
def schedule_new() -> ResponseReturnValue:
    """Show the form of a new schedule."""
    zone = current.settings().timezone
    return _show_schedule(None, schedules.ScheduleForm("Every night", "30 2 * * *", zone))


@requires(Permission.CONFIGURE)
def schedule_create() -> ResponseReturnValue:
    """Make a schedule."""
    form = _schedule_form()
    try:
        made = schedules.create_schedule(current.session(), current.installation(), form, current.person())
    except UsageError as error:
        return _show_schedule(None, form, error)
    say("ok", f"The schedule {made.name} has been made.")
    return redirect(url_for("backup_admin.schedule"), code=303)


@requires(Permission.CONFIGURE)
def schedule_edit(schedule_id: int) -> ResponseReturnValue:
    """Show the form of a schedule."""
    row = _find_schedule(schedule_id)
    return _show_schedule(row, _form_of(row))


@requires(Permission.CONFIGURE)
def schedule_save(schedule_id: int) -> ResponseReturnValue:
    """Change a schedule, unless somebody else did meanwhile."""
    row, form = _find_schedule(schedule_id), _schedule_form()
    version = request.form.get("version", default=0, type=int)
    try:
        schedules.update_schedule(
            current.session(), current.installation(), row.id, version, form, current.person()
        )
    except (UsageError, schedules.ScheduleChanged) as error:
        return _show_schedule(_find_schedule(schedule_id), form, error)
    say("ok", f"The schedule {form.name} has been saved.")
    return redirect(url_for("backup_admin.schedule"), code=303)


@requires(Permission.CONFIGURE)
def schedule_delete(schedule_id: int) -> ResponseReturnValue:
    """Remove a schedule; its backups stay."""
    row = _find_schedule(schedule_id)
    name = row.name
    schedules.delete_schedule(current.session(), current.installation(), row.id, current.person())
    say("ok", f"The schedule {name} has been removed. Its backups stay.")
    return redirect(url_for("backup_admin.schedule"), code=303)


def _show_sources(*, status: int = 200, **more: Any) -> Response:
    session, installation = current.session(), current.installation()
    context = {"failed": "", "error": "", "typed": "", **more}
    return render_page(
        "settings_sources",
        status=status,
        sources=engine.describe_sources(session, installation),
        folders=installation.settings.files,
        added=engine.excludes(session),
        streams=app_streams.views(session, installation),
        clusters=app_clusters.views(session, installation),
        address=engine.storage_address(session, installation.settings).partition("?")[0],
        **context,
    )


def _show_storage(*, status: int = 200, **more: Any) -> Response:
    session, installation = current.session(), current.installation()
    set_up = onboarding.look(session, installation)
    context = {"code_error": "", "keys_error": "", "keys_code_error": "", **more}
    return render_page(
        "settings_storage",
        status=status,
        set_up=set_up,
        view=view_storage(session, installation),
        stored=overview.stored(session),
        enrolled=second_factor.is_enrolled(session, current.person().id),
        **{"form": storage_form.form_of(set_up.storage), **context},
    )


def _show_schedule(
    row: BackupSchedule | None, form: schedules.ScheduleForm, error: BackupAdminError | None = None
) -> Response:
    return render_page(
        "settings_schedule_form",
        status=422 if error else 200,
        row=row,
        form=form,
        error=str(error) if error else "",
        field=error.field if isinstance(error, FieldMistake) else "",
        presets=schedules.PRESETS,
        upcoming=_next_times(form),
        cost=_cost(form),
    )


def _schedule_form() -> schedules.ScheduleForm:
    kind = request.form.get("kind", "")
    return schedules.ScheduleForm(
        name=request.form.get("name", "").strip(),
        cron=request.form.get("cron", "").strip(),
        timezone=request.form.get("timezone", "").strip(),
        kind=RunKind.VERIFY if kind == RunKind.VERIFY else RunKind.BACKUP,
        enabled=request.form.get("enabled") == "on",
    )


def _form_of(row: BackupSchedule) -> schedules.ScheduleForm:
    return schedules.ScheduleForm(row.name, row.cron, row.timezone, row.kind, row.enabled)


def _cost(form: schedules.ScheduleForm) -> restore_points.Cost | None:
    """Return what such backups cost; None where that has no meaning."""
    if form.kind != RunKind.BACKUP or not form.enabled:
        return None
    try:
        return restore_points.cost_of(current.session(), form.cron, form.timezone, current.now())
    except UsageError:
        return None  # the form itself says what is wrong with it


def _find_schedule(schedule_id: int) -> BackupSchedule:
    try:
        return schedules.find_schedule(current.session(), schedule_id)
    except UsageError as error:
        raise NotFound("There is no such schedule.") from error


def _upcoming(row: BackupSchedule) -> tuple[Any, ...]:
    if not row.enabled:
        return ()
    return schedules.next_times(row.cron, row.timezone, current.now())


def _next_times(form: schedules.ScheduleForm) -> tuple[Any, ...]:
    try:
        return schedules.next_times(form.cron, form.timezone, current.now())
    except UsageError:
        return ()  # the form itself says what is wrong with it
