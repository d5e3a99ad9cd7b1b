"""The app without a host: the same pages, with a sign-in of its own."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, redirect, url_for
from flask.cli import AppGroup
from flask_login import LoginManager

from backup_admin import jobs
from backup_admin.access.permissions import Role
from backup_admin.core.durable import make_folders, write_new
from backup_admin.core.errors import BackupAdminError
from backup_admin.records.upgrade import is_current
from backup_admin.web import accounts, sign_in
from backup_admin.web.extension import BackupAdmin
from backup_admin.web.users import FlaskLoginUsers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flask.typing import ResponseReturnValue

logger = logging.getLogger(__name__)

_MAX_BODY_BYTES = 1 << 20
user_commands = AppGroup("user", help="Accounts of the standalone app.")


class StandaloneUsers(FlaskLoginUsers):
    """The people in our own table."""

    def id(self, user: Any) -> str:
        """Return the stable id; what the session keeps changes when logins are ended."""
        return str(user.user_id)

    def sign_in_url(self, back: str) -> str | None:
        """Return our own page."""
        return url_for(f"{sign_in.NAME}.sign_in", next=back)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Create the standalone app.

    `BACKUP_ADMIN_...` in the environment configures backups, `FLASK_...` the
    app itself: `FLASK_SESSION_COOKIE_SECURE=false` lets it work without TLS.
    """
    app = Flask("backup_admin")
    app.config.from_mapping(
        SESSION_COOKIE_NAME="backup_admin_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=accounts.ABSOLUTE,
        MAX_CONTENT_LENGTH=_MAX_BODY_BYTES,
    )
    app.config.from_prefixed_env()
    app.config.update(config or {})
    backup_admin = BackupAdmin(app, users=StandaloneUsers())
    backup_admin.permission_loader(lambda account: [account.role])
    _add_secret(app)
    _add_login(app)
    app.register_blueprint(sign_in.create_blueprint())
    app.add_url_rule("/", "home", _home)
    app.cli.add_command(user_commands)
    _offer_first_admin(app)
    return app


@user_commands.command("create-admin")
@click.argument("name")
@click.password_option()
def create_admin(name: str, password: str) -> None:
    """Create an account that may do everything; the password is asked for."""
    _create(name, password, Role.ADMIN)


@user_commands.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.password_option()
def create(name: str, role: str, password: str) -> None:
    """Create an account with a role; the password is asked for."""
    _create(name, password, Role(role))


def _create(name: str, password: str, role: Role) -> None:
    installation = sign_in.installation()
    try:
        accounts.create_user(installation.database.session(), installation, name, password, role)
    except BackupAdminError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{name} may sign in now, as {role.value}.")


def _add_secret(app: Flask) -> None:
    """Sign sessions with a key in the state folder, unless the deployment brings one."""
    if not app.secret_key:
        app.secret_key = _stored_secret(jobs.installation_of(app).settings.state_dir)


def _stored_secret(folder: Path) -> str:
    path = folder / "session.key"
    if not path.exists():
        make_folders(folder)
        # Of several processes one writes it; all read the same.
        write_new(path, (secrets.token_hex(32).encode(),))
    return path.read_text(encoding="ascii")


def _add_login(app: Flask) -> None:
    manager = LoginManager()
    manager.session_protection = None  # our own limits on a login are stricter
    manager.login_message = ""
    manager.user_loader(sign_in.load_account)
    manager.init_app(app)


def _home() -> ResponseReturnValue:
    return redirect(url_for("backup_admin.dashboard"))


def _offer_first_admin(app: Flask) -> None:
    """Write the token into the log while nobody can sign in."""
    with app.app_context():
        installation = jobs.installation_of(app)
        if not is_current(installation.database) or accounts.has_users(installation.database.session()):
            return
        token = sign_in.first_admin_token()
        logger.warning("nobody can sign in yet: open /first-admin and enter the token %s", token)
