"""The dashboard, the audit log, and the small things of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, redirect, request, url_for

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Permission
from backup_admin.control import destinations, onboarding, overview
from backup_admin.control.copies import count_copies
from backup_admin.core.errors import UsageError
from backup_admin.web import current
from backup_admin.web.addresses import line_url, local_path
from backup_admin.web.charts import strips
from backup_admin.web.frame import THEME_COOKIE, THEMES
from backup_admin.web.guards import open_to_all, requires
from backup_admin.web.render import render_fragment, render_page

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

_YEAR_SECONDS = 365 * 86_400
_AUDIT_ROWS = 50
ACTIONS = ("backup.", "restore.", "settings.", "schedule.", "second_factor.", "step_up.", "sign_in")


def register(blueprint: Blueprint) -> None:
    """Add the routes of this module."""
    blueprint.add_url_rule("/", "dashboard", dashboard)
    blueprint.add_url_rule("/running", "running", running)
    blueprint.add_url_rule("/theme", "set_theme", set_theme, methods=["POST"])
    blueprint.add_url_rule("/audit", "audit", audit)


@requires(Permission.VIEW)
def dashboard() -> ResponseReturnValue:
    """Show what is protected, how fresh it is and what happens next."""
    session, settings = current.session(), current.settings()
    set_up = onboarding.look(session, current.installation())
    page = overview.dashboard(session, now=current.now(), zone=settings.timezone)
    states = destinations.read_states(session)
    return render_page(
        "dashboard",
        page=page,
        set_up=set_up,
        first_run=not set_up.complete,
        may_skip=settings.max_skip_hours > 0,
        strip=strips(page.days),
        rule=count_copies(states) if states else None,
        url_of=line_url,
    )


@requires(Permission.VIEW)
def running() -> ResponseReturnValue:
    """Return the line about what runs now, for the frame."""
    return render_fragment("running")


@open_to_all
def set_theme() -> ResponseReturnValue:
    """Remember light or dark instead of what the system says: a cookie and nothing else."""
    theme = request.form.get("theme", "")
    if theme not in THEMES:
        raise UsageError("There is no such theme.")
    home = url_for("backup_admin.dashboard")
    response = redirect(local_path(request.form.get("next", ""), home), code=303)
    path = current.settings().url_prefix
    response.set_cookie(
        THEME_COOKIE,
        theme,
        path=path,
        max_age=_YEAR_SECONDS,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
    )
    return response


@requires(Permission.AUDIT)
def audit() -> ResponseReturnValue:
    """Show who did what, and whether the log is as it was written."""
    wanted = {name: request.args.get(name, "").strip() for name in ("actor", "action", "outcome")}
    before = request.args.get("before", type=int)
    log = current.audit()
    entries = log.read_page(before=before, limit=_AUDIT_ROWS + 1, **wanted)
    shown = entries[:_AUDIT_ROWS]
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value}
    older = url_for("backup_admin.audit", **given, before=shown[-1].seq) if len(entries) > _AUDIT_ROWS else ""
    return render_page(
        "audit",
        entries=shown,
        check=log.verify(),
        wanted=wanted,
        filtered=bool(given),
        older_url=older,
        actions=ACTIONS,
        outcomes=[outcome.value for outcome in AuditOutcome],
    )
