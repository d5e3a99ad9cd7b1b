"""Who is signed in to the host app, and what the host lets that person do."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app, g, request, session, url_for
from flask_login import current_user
from werkzeug.routing import BuildError

from backup_admin.access import step_up
from backup_admin.access.allowlist import client_address
from backup_admin.access.permissions import Actor, Permission, Role, role_permissions

if TYPE_CHECKING:
    from backup_admin.core.settings import Settings

logger = logging.getLogger(__name__)

PermissionLoader = Callable[[Any], Iterable[str] | None]
_LOGIN_KEY = "backup_admin_login"
_NAMES = ("username", "name", "email")


class UserAdapter(Protocol):
    """How the people of a host app are found and named."""

    def current(self) -> Any:
        """Return the person of this request, or None."""
        ...

    def id(self, user: Any) -> str:
        """Return an id that stays the same; it is kept instead of a foreign key."""
        ...

    def display(self, user: Any) -> str:
        """Return the name people know."""
        ...

    def sign_in_url(self, back: str) -> str | None:
        """Return where to sign in, or None when the host has no such page."""
        ...


class FlaskLoginUsers:
    """The people of an app that uses Flask-Login; without it nobody is signed in."""

    def current(self) -> Any:
        """Return Flask-Login's current user when there is one."""
        if not hasattr(current_app, "login_manager"):
            return None
        return current_user if current_user.is_authenticated else None

    def id(self, user: Any) -> str:
        """Return what Flask-Login keeps in the session."""
        return str(user.get_id())

    def display(self, user: Any) -> str:
        """Return user name, name or address, whichever there is."""
        names = (getattr(user, name, None) for name in _NAMES)
        return next((str(name) for name in names if name), self.id(user))

    def sign_in_url(self, back: str) -> str | None:
        """Return the host's login view with the way back."""
        view = getattr(getattr(current_app, "login_manager", None), "login_view", None)
        if not view:
            return None
        try:
            return url_for(view, next=back)
        except BuildError:
            return None


def build_actor(user: Any, adapter: UserAdapter, loader: PermissionLoader, settings: Settings) -> Actor:
    """Describe the person of this request as the control layer wants it."""
    user_id = adapter.id(user)
    forwarded = request.headers.getlist("X-Forwarded-For")
    return Actor(
        id=user_id,
        name=adapter.display(user)[:255],
        address=client_address(settings.trusted_proxies, request.remote_addr or "", forwarded),
        login_id=_login_id(user_id),
        request_id=_request_id(),
        granted=_granted(loader, user),
    )


def _granted(loader: PermissionLoader, user: Any) -> frozenset[Permission]:
    """Ask the host; whatever goes wrong there, and whatever we do not know, is a no."""
    try:
        words = loader(user)
        if words is None or isinstance(words, str | bytes):
            words = [words] if isinstance(words, str) else []
        found = [str(word) for word in words]
    except Exception:
        logger.exception("permission loader failed")
        return frozenset()
    granted = {Permission(word) for word in found if word in set(Permission)}
    for word in found:
        if word in set(Role):
            granted |= role_permissions(word)
    return frozenset(granted)


def _login_id(user_id: str) -> str:
    """Return the digest of this login; another browser of the person has another."""
    if not current_app.secret_key:
        return ""
    owner, token = session.get(_LOGIN_KEY) or ("", "")
    if owner != user_id or not token:
        token = secrets.token_urlsafe(24)
        session[_LOGIN_KEY] = [user_id, token]
    return step_up.login_id(token)


def _request_id() -> str:
    if "backup_admin_request_id" not in g:
        g.backup_admin_request_id = secrets.token_hex(8)
    return str(g.backup_admin_request_id)
