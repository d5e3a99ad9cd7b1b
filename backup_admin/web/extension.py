"""`BackupAdmin`: mounts the pages into a host app and takes what the host plugs in."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Response, current_app, request
from limits.storage import MemoryStorage, storage_from_string

from backup_admin import jobs
from backup_admin.access.second_factor import Attempts
from backup_admin.control import recovery
from backup_admin.control.installation import Hooks, Installation
from backup_admin.control.journals import is_closed, unfinished
from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import BackupAdminError, NotPermitted
from backup_admin.core.settings import Settings, load_settings
from backup_admin.records import Database
from backup_admin.records.upgrade import is_current, require_current
from backup_admin.web.blueprint import create_blueprint
from backup_admin.web.commands import backup
from backup_admin.web.users import FlaskLoginUsers, PermissionLoader, UserAdapter, build_actor

if TYPE_CHECKING:
    from flask import Flask
    from limits.storage import Storage as LimitsStorage

    from backup_admin.access.permissions import Actor
    from backup_admin.core.clock import Clock
    from backup_admin.core.secret import Secret

logger = logging.getLogger(__name__)

EXTENSION = "backup_admin"
BLUEPRINT = "backup_admin"
RETRY_AFTER_SECONDS = 10
_NO_LOADER = (
    "Nobody is let in before the app says who may do what. Add to it: "
    "backup_admin.permission_loader(lambda user: ['admin'] if user.is_admin else [])"
)
_CLOSED = "The app is being restored and opens again in a moment.\n"

F = TypeVar("F", bound=Callable[..., Any])


class BackupAdmin:
    """Backup and restore for a Flask app.

    `BackupAdmin(app)`, or `BackupAdmin()` and `init_app(app)` later. Nobody is
    let in before a `permission_loader` is there. It makes no LoginManager, no
    CSRFProtect and no Migrate, and leaves the host's database object alone.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        url_prefix: str | None = None,
        users: UserAdapter | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.users: UserAdapter = users or FlaskLoginUsers()
        self.hooks = Hooks()
        self._clock = clock or SystemClock()
        self._load_permissions: PermissionLoader | None = None
        if app is not None:
            self.init_app(app, url_prefix=url_prefix)

    def init_app(self, app: Flask, *, url_prefix: str | None = None) -> None:
        """Mount into an app; its configuration must be complete by now."""
        settings = load_settings(app.config, os.environ, instance=Path(app.instance_path), app_name=app.name)
        if url_prefix is not None:
            settings = replace(settings, url_prefix=url_prefix.rstrip("/"))
        database = Database(settings.database_uri)
        database.init_app(app)
        app.extensions[jobs.INSTALLATION] = Installation(
            settings=settings,
            database=database,
            hooks=self.hooks,
            clock=self._clock,
            attempts=Attempts(_limits_storage(settings.redis_url)),
            queue=_queue(settings),
        )
        app.extensions[EXTENSION] = self
        app.register_blueprint(create_blueprint(), url_prefix=settings.url_prefix)
        app.cli.add_command(backup)
        # First of all: what the host does before a request may need what is being restored.
        app.before_request_funcs.setdefault(None, []).insert(0, _Gate().before_request)

    @property
    def installation(self) -> Installation:
        """Return what the current app has of us."""
        return jobs.installation_of(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001

    def current_actor(self) -> Actor | None:
        """Return the person of this request; None when nobody is signed in.

        Raises `NotPermitted`, naming the line to add, without a permission loader.
        """
        if self._load_permissions is None:
            raise NotPermitted(_NO_LOADER)
        user = self.users.current()
        if user is None:
            return None
        return build_actor(user, self.users, self._load_permissions, self.installation.settings)

    def sign_in_url(self, back: str) -> str | None:
        """Return where to sign in and come back to a page; None without such a page."""
        return self.users.sign_in_url(back)

    # What a host plugs in; each works as a decorator.

    def permission_loader(self, function: PermissionLoader) -> PermissionLoader:
        """Take a function from a person to permissions or roles; nothing means: denied."""
        self._load_permissions = function
        return function

    def settings_provider(
        self, function: Callable[[], Mapping[str, object]]
    ) -> Callable[[], Mapping[str, object]]:
        """Take a function that returns the app's settings, to be kept in each backup."""
        self.hooks.settings_provider = function
        return function

    def maintenance(self, function: Callable[[bool], None]) -> Callable[[bool], None]:
        """Take a function that stops writers (True) and lets them go on (False)."""
        self.hooks.maintenance.append(function)
        return function

    def restore_check(self, name: str) -> Callable[[F], F]:
        """Take a function that looks at the restored app; what it raises is a failed check."""

        def add(function: F) -> F:
            self.hooks.restore_checks.append((name, function))
            return function

        return add

    def after_restore(self, function: Callable[[str], None]) -> Callable[[str], None]:
        """Take a function that is told the outcome once a restore has ended."""
        self.hooks.after_restore.append(function)
        return function


class _Gate:
    """Before each request: keep out of a restore, and mend one whose process is gone."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._is_current = False

    def before_request(self) -> Response | None:
        """Answer 503 while a restore is under way; let our own pages and static files through."""
        installation = jobs.installation_of(current_app)
        self._mend(installation)
        endpoint = request.endpoint or ""
        if endpoint == "static" or endpoint.endswith(".static"):
            return None
        if endpoint.startswith(f"{BLUEPRINT}."):
            self._require_current(installation)
            return None
        if not installation.settings.maintenance_gate or not is_closed(installation):
            return None
        return Response(
            _CLOSED, 503, {"Retry-After": str(RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}, "text/plain"
        )

    def _require_current(self, installation: Installation) -> None:
        if not self._is_current:
            require_current(installation.database)
            self._is_current = True

    def _mend(self, installation: Installation) -> None:
        """Once at the start, and while closed: finish or undo what a dead process left."""
        now = installation.clock.monotonic()
        first = self._looked_at == float("-inf")
        if not first and (now - self._looked_at < RETRY_AFTER_SECONDS or not is_closed(installation)):
            return
        self._looked_at = now
        try:
            if not (is_closed(installation) or unfinished(installation)):
                return
        except BackupAdminError:  # a damaged journal waits for a person, the host does not
            logger.exception("journals cannot be read")
            return
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        threading.Thread(target=_recover, args=(app,), name="recover", daemon=True).start()


def _recover(app: Flask) -> None:
    installation = jobs.installation_of(app)
    with app.app_context():
        try:
            if not is_current(installation.database):
                return
            with installation.database.new_session() as session:
                if not recovery.needs_recovery(session, installation):
                    return
            recovery.recover_restores(installation)
        except Exception:
            logger.exception("recovery failed")


def _queue(settings: Settings) -> jobs.RqQueue | None:
    if settings.redis_url is None:
        return None
    return jobs.RqQueue(settings.redis_url, settings.queue, job_timeout=settings.job_timeout)


def _limits_storage(redis_url: Secret | None) -> LimitsStorage:
    """Count attempts in Redis, where all processes of the app see them; else in this process."""
    if redis_url is None:
        return MemoryStorage()
    url = redis_url.reveal()
    if url.startswith("unix://"):
        url = f"redis+{url}"
    return storage_from_string(url, wrap_exceptions=True)  # type: ignore[return-value] # a sync one
