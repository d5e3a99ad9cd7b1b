"""The first steps: what is protected, the repository, its recovery key, the first backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from backup_admin.access.permissions import Permission
from backup_admin.control import engine, onboarding
from backup_admin.core.errors import BackupAdminError, BadSecret, RepositoryExists
from backup_admin.web import current, storage_form
from backup_admin.web.flashes import say
from backup_admin.web.guards import requires
from backup_admin.web.render import render_page
from backup_admin.web.storage_view import view_storage

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

    from backup_admin.control.onboarding import NewRecoveryKey, SetUp

STEPS = (("sources", "What is protected"), ("key", "Recovery key"), ("backup", "First backup"))
_DONE = "done"


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    add = blueprint.add_url_rule
    add("/setup", "setup", setup)
    add("/setup/repository", "setup_repository", make_repository, methods=["POST"])
    add("/setup/adopt", "setup_adopt", adopt_repository, methods=["POST"])
    add("/setup/recovery-key", "setup_new_key", renew_key, methods=["POST"])
    add("/setup/confirm", "setup_confirm", confirm_key, methods=["POST"])


@requires(Permission.CONFIGURE)
def setup() -> ResponseReturnValue:
    """Show the step that comes next."""
    return _show(_look())


@requires(Permission.KEYS)
def make_repository() -> ResponseReturnValue:
    """Make the repository and show its recovery key, this once.

    The answer to the form is the page with the key: it is kept nowhere, so
    nothing could show it after a redirect.
    """
    session, installation, actor = current.session(), current.installation(), current.person()
    pinned = installation.settings.storage
    form = storage_form.read_form(request.form)
    try:
        chosen = storage_form.understand(form, request.form, pinned=pinned)
        if not pinned:
            onboarding.choose_storage(
                session, installation, chosen.address, actor, credentials=chosen.credentials
            )
        made = onboarding.make_repository(session, installation, actor)
    except RepositoryExists as error:
        return _show(_look(), status=422, error=str(error), form=form, exists=True)
    except BackupAdminError as error:
        return _show(_look(), status=422, form=storage_form.after(form, error, installation.settings))
    return _show(_look(), made=made)


@requires(Permission.KEYS)
def adopt_repository() -> ResponseReturnValue:
    """Use the repository that lies in the storage already."""
    try:
        problems = onboarding.adopt_repository(current.session(), current.installation(), current.person())
    except BackupAdminError as error:
        return _show(_look(), status=422, error=str(error))
    for problem in problems:
        say("warn", problem)
    say("ok", "The repository is in use again, with all the backups in it.")
    return redirect(url_for("backup_admin.setup"), code=303)


@requires(Permission.KEYS)
def renew_key() -> ResponseReturnValue:
    """Make another recovery key and show it, this once."""
    made = onboarding.renew_recovery_key(current.session(), current.installation(), current.person())
    return _show(_look(), made=made)


@requires(Permission.KEYS)
def confirm_key() -> ResponseReturnValue:
    """Compare the groups a person typed back."""
    asked = _look().recovery_asked
    typed = tuple(request.form.get(f"group{number}", "").strip() for number in asked)
    try:
        onboarding.confirm_recovery_key(current.session(), current.installation(), typed, current.person())
    except BadSecret as error:
        return _show(_look(), status=422, error=str(error))
    say("ok", "The recovery key is confirmed.")
    return redirect(url_for("backup_admin.setup"), code=303)


def step_of(set_up: SetUp) -> str:
    """Return the name of the step that comes next."""
    if not set_up.has_repository:
        return "sources"
    if not set_up.recovery_confirmed:
        return "key"
    return _DONE if set_up.has_verified_backup else "backup"


def _look() -> SetUp:
    return onboarding.look(current.session(), current.installation())


def _show(set_up: SetUp, *, status: int = 200, made: NewRecoveryKey | None = None, **more: Any) -> Response:
    step = step_of(set_up)
    names = [name for name, _ in STEPS]
    at = names.index(step) if step in names else len(names)
    steps = [(label, index == at, index < at) for index, (_, label) in enumerate(STEPS)]
    return render_page(
        "setup",
        status=status,
        set_up=set_up,
        step=step,
        steps=steps,
        groups=[group.reveal() for group in made.groups] if made else [],
        repository=made.repo_id if made else "",
        view=view_storage(current.session(), current.installation()),
        sources=engine.describe_sources(current.session(), current.installation()),
        now=current.now(),
        **{"error": "", "exists": False, "form": storage_form.form_of(set_up.storage), **more},
    )
