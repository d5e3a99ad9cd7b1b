"""Settings: more storages, which get a copy of every backup, and what each came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from backup_admin.access import second_factor
from backup_admin.access.permissions import Permission
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import destinations, onboarding
from backup_admin.control.copies import count_copies
from backup_admin.core.errors import BackupAdminError, NotPermitted
from backup_admin.web import current
from backup_admin.web.flashes import say
from backup_admin.web.guards import requires
from backup_admin.web.proof import prove
from backup_admin.web.render import render_page

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    blueprint.add_url_rule("/settings/mirrors", "mirrors", mirrors)
    blueprint.add_url_rule("/settings/mirrors", "save_mirrors", save_mirrors, methods=["POST"])


@requires(Permission.VIEW)
def mirrors() -> ResponseReturnValue:
    """Show where copies go and what the last backup came to in each place."""
    return _show()


@requires(Permission.STORAGE)
def save_mirrors() -> ResponseReturnValue:
    """Change where copies go; it takes a code of the second factor."""
    installation, session, actor = current.installation(), current.session(), current.person()
    typed = request.form.get("mirrors", "")
    try:
        prove(Act(Purpose.STORAGE))
        kept = destinations.set_mirrors(session, installation, typed.splitlines(), actor)
    except NotPermitted as error:
        return _show(status=422, code_error=str(error), typed=typed)
    except BackupAdminError as error:
        return _show(status=422, error=str(error), typed=typed)
    say("ok", "The next backup goes to these places too." if kept else "There are no mirrors any more.")
    return redirect(url_for("backup_admin.mirrors"), code=303)


def _show(*, status: int = 200, **more: Any) -> Response:
    session, installation = current.session(), current.installation()
    states = destinations.read_states(session)
    addresses = destinations.mirror_addresses(session, installation.settings)
    context = {"error": "", "code_error": "", "typed": "\n".join(addresses), **more}
    return render_page(
        "settings_mirrors",
        status=status,
        set_up=onboarding.look(session, installation),
        states=states,
        rule=count_copies(states) if states else None,
        addresses=addresses,
        pinned=bool(installation.settings.mirrors),
        enrolled=second_factor.is_enrolled(session, current.person().id),
        **context,
    )
