"""Sign-in, sign-out and the first administrator of the standalone app."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app, redirect, request, session, url_for
from flask_login import login_user, logout_user

from backup_admin import jobs
from backup_admin.access.allowlist import client_address
from backup_admin.access.audit import AuditOutcome
from backup_admin.access.permissions import Actor, Role
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.errors import ConfigurationError, FieldMistake, NotPermitted
from backup_admin.records.upgrade import require_current
from backup_admin.web import accounts, current, forgery
from backup_admin.web.addresses import local_path
from backup_admin.web.errors import NotFound, register_errors
from backup_admin.web.guards import open_to_all
from backup_admin.web.headers import protect
from backup_admin.web.render import render_bare

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.web.accounts import Account

NAME = "backup_admin_standalone"
_BEGAN, _SEEN = "backup_admin_began", "backup_admin_seen"


def create_blueprint() -> Blueprint:
    """Create the pages that need nobody to be signed in."""
    blueprint = Blueprint(NAME, __name__)
    blueprint.before_request(_before_request)
    blueprint.after_request(_after_request)
    add = blueprint.add_url_rule
    add("/sign-in", "sign_in", show_sign_in)
    add("/sign-in", "do_sign_in", do_sign_in, methods=["POST"])
    add("/sign-out", "sign_out", sign_out, methods=["POST"])
    add("/first-admin", "first_admin", show_first_admin)
    add("/first-admin", "do_first_admin", do_first_admin, methods=["POST"])
    register_errors(blueprint)
    return blueprint


def installation() -> Installation:
    """Return what the app has of us."""
    return jobs.installation_of(current_app)


@open_to_all
def show_sign_in() -> ResponseReturnValue:
    """Show the form."""
    if not accounts.has_users(_database()):
        return redirect(url_for(f"{NAME}.first_admin"))
    return _show(next_path=request.args.get("next", ""))


@open_to_all
def do_sign_in() -> ResponseReturnValue:
    """Check name and password, and begin a new session."""
    name, back = request.form.get("name", ""), request.form.get("next", "")
    who = Actor(id="", name=name[:255], address=_address())
    password = request.form.get("password", "")
    try:
        account = accounts.authenticate(_database(), installation(), name, password, who.address)
    except NotPermitted as error:
        _audit(who, "sign_in", AuditOutcome.DENIED, str(error))
        return _show(status=422, error=str(error), name=name, next_path=back)
    _begin(account)
    _audit(Actor(id=str(account.user_id), name=account.name, address=who.address), "sign_in")
    return redirect(local_path(back, url_for("backup_admin.dashboard")), code=303)


@open_to_all
def sign_out() -> ResponseReturnValue:
    """End the session."""
    actor = current.actor()
    logout_user()
    session.clear()
    if actor is not None:
        _audit(actor, "sign_out")
    return redirect(url_for(f"{NAME}.sign_in"), code=303)


@open_to_all
def show_first_admin() -> ResponseReturnValue:
    """Show the form for the first administrator, as long as there is none."""
    _require_nobody()
    return _show_first_admin("")


@open_to_all
def do_first_admin() -> ResponseReturnValue:
    """Create the first administrator for whoever can read the log."""
    _require_nobody()
    name, who = request.form.get("name", ""), Actor(id="", name="", address=_address())
    given = request.form.get("token", "").strip()
    try:
        installation().attempts.take("first-admin", who.address)
        if not hmac.compare_digest(given.encode(), first_admin_token().encode()):
            raise NotPermitted("This is not the token from the log.")
        accounts.create_user(_database(), installation(), name, request.form.get("password", ""), Role.ADMIN)
    except NotPermitted as error:
        _audit(who, "first_admin", AuditOutcome.DENIED, str(error))
        return _show_first_admin(name, token=str(error))
    except FieldMistake as error:
        return _show_first_admin(name, **{error.field: str(error)})
    _audit(Actor(id="", name=name, address=who.address), "first_admin")
    return redirect(url_for(f"{NAME}.sign_in"), code=303)


def first_admin_token() -> str:
    """Return the token; the same in all processes, of no use once there is an account."""
    key = str(current_app.secret_key).encode()
    return hmac.new(key, b"backup_admin/first-admin", hashlib.sha256).hexdigest()[:32]


def load_account(stored: str) -> Account | None:
    """Return who the session belongs to, unless the login is too old or ended."""
    now = installation().clock.now()
    try:
        began, seen = parse_time(session[_BEGAN]), parse_time(session[_SEEN])
    except (KeyError, TypeError, ValueError):
        return None
    if not accounts.is_fresh(began, seen, now):
        return None
    account = accounts.find_account(_database(), stored)
    if account is not None:
        session[_SEEN] = format_time(now)
    return account


def _begin(account: Account) -> None:
    """Begin with an empty session: nothing from before the sign-in counts."""
    session.clear()
    session.permanent = True
    session[_BEGAN] = session[_SEEN] = format_time(installation().clock.now())
    login_user(account)


def _before_request() -> None:
    require_current(installation().database)
    forgery.check_request(request)


def _after_request(response: Response) -> Response:
    return protect(response, is_static=False)


def _show(*, status: int = 200, error: str = "", name: str = "", next_path: str = "") -> Response:
    return render_bare("sign_in", status=status, error=error, name=name, next_path=next_path)


def _show_first_admin(name: str, **errors: str) -> Response:
    return render_bare("first_admin", status=422 if errors else 200, errors=errors, name=name)


def _require_nobody() -> None:
    if accounts.has_users(_database()):
        raise NotFound("There is an administrator already.")


def _database() -> Session:
    return cast("Session", installation().database.session)


def _address() -> str:
    forwarded = request.headers.getlist("X-Forwarded-For")
    return client_address(installation().settings.trusted_proxies, request.remote_addr or "", forwarded)


def _audit(actor: Actor, action: str, outcome: AuditOutcome = AuditOutcome.DONE, reason: str = "") -> None:
    try:
        installation().audit().append(actor, action, outcome=outcome, reason=reason)
    except ConfigurationError:
        # Without an application key there is no audit log yet, and nothing to protect.
        return
