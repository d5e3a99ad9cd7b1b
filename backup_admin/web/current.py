"""The app, the person and the request at hand, for the views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flask import current_app, g, request, url_for

from backup_admin.access.permissions import Permission
from backup_admin.control import verdict as verdicts
from backup_admin.control.restores import Origin
from backup_admin.core.errors import NotPermitted

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.access.audit import AuditLog
    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.control.verdict import Verdict
    from backup_admin.core.settings import Settings

SIGN_OUT_ENDPOINT = "backup_admin_standalone.sign_out"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the person may do, for templates: a button without effect is not shown."""

    actor: Actor | None
    read_only: bool

    def has(self, permission: Permission) -> bool:
        """Say whether the person has the permission."""
        return self.actor is not None and self.actor.may(permission)

    @property
    def run(self) -> bool:
        """May start a backup."""
        return self.has(Permission.RUN) and not self.read_only

    @property
    def verify(self) -> bool:
        """May start a verification."""
        return self.has(Permission.VERIFY) and not self.read_only

    @property
    def configure(self) -> bool:
        """May change settings."""
        return self.has(Permission.CONFIGURE) and not self.read_only

    @property
    def storage(self) -> bool:
        """May change where backups go."""
        return self.has(Permission.STORAGE) and not self.read_only

    @property
    def download(self) -> bool:
        """May download a manifest."""
        return self.has(Permission.DOWNLOAD)

    @property
    def plan(self) -> bool:
        """May prepare a restore."""
        return self.has(Permission.PLAN_RESTORE) and not self.read_only

    @property
    def execute(self) -> bool:
        """May carry out a restore."""
        return self.has(Permission.RESTORE) and not self.read_only


def extension() -> Any:
    """Return the `BackupAdmin` of the app."""
    return current_app.extensions["backup_admin"]


def installation() -> Installation:
    """Return what the functions of the control layer work with."""
    return cast("Installation", extension().installation)


def settings() -> Settings:
    """Return the settings of the deployment."""
    return installation().settings


def session() -> Session:
    """Return the session of the control database for this request."""
    return cast("Session", installation().database.session)


def now() -> datetime:
    """Return the time."""
    return installation().clock.now()


def audit() -> AuditLog:
    """Return the audit log."""
    return installation().audit()


def actor() -> Actor | None:
    """Return the person who asks, or nothing when nobody is signed in."""
    if "backup_admin_actor" not in g:
        g.backup_admin_actor = extension().current_actor()
    return cast("Actor | None", g.backup_admin_actor)


def person() -> Actor:
    """Return the person who asks; a guard has made sure that there is one."""
    known = actor()
    if known is None:
        raise NotPermitted("Sign in first; these pages are for administrators of the app.")
    return known


def permissions() -> Permissions:
    """Return what the person who asks may do."""
    return Permissions(actor(), settings().read_only)


def no_permissions() -> Permissions:
    """Return what somebody unknown may do."""
    return Permissions(None, settings().read_only)


def origin() -> Origin:
    """Return where the request came from."""
    return Origin(request.remote_addr or "", tuple(request.headers.getlist("X-Forwarded-For")))


def verdict() -> Verdict:
    """Return the verdict for the bar on every page."""
    return verdicts.judge(session(), installation())


def sign_in_url() -> str | None:
    """Return where to sign in, coming back afterwards; nothing where the host has no such page."""
    back = request.full_path.rstrip("?") if request.method == "GET" else url_for("backup_admin.dashboard")
    return cast("str | None", extension().sign_in_url(back))


def sign_out_url() -> str:
    """Return where to sign out: only the standalone app has its own."""
    return url_for(SIGN_OUT_ENDPOINT) if SIGN_OUT_ENDPOINT in current_app.view_functions else ""
