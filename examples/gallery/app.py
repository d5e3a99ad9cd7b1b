"""A small photo gallery: the app that shows, and tests, how backup_admin is mounted.

It brings extensions of its own - database, sign-in, CSRF protection, migrations - so
that it also proves they stay undisturbed.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask

from examples.gallery.database import enforce_foreign_keys
from examples.gallery.extensions import csrf, db, login_manager, migrate
from examples.gallery.folders import EXCLUDED_FOLDERS, Folders
from examples.gallery.views import gallery, show_bytes

_CHECKOUT = Path(__file__).resolve().parents[2]


def create_app(config: Mapping[str, Any] | None = None, *, mount: bool = True) -> Flask:
    """Create the gallery for the data folder `GALLERY_DATA`.

    The folder comes from `config`, else from the environment, else it is `.demo` in
    the checkout. With `mount=False` the gallery runs without backup_admin.
    """
    given = dict(config or {})
    data = Path(given.get("GALLERY_DATA") or os.environ.get("GALLERY_DATA") or _demo())
    folders = Folders(data.absolute())
    app = Flask(__name__)
    app.config.from_mapping(_defaults(folders))
    app.config.update(given)
    app.extensions["gallery.folders"] = folders
    _add_extensions(app)
    app.register_blueprint(gallery)
    app.add_template_filter(show_bytes)
    if mount:
        from examples.gallery.mount import mount_backup_admin  # noqa: PLC0415

        mount_backup_admin(app)
    return app


def _demo() -> Path:
    return _CHECKOUT / ".demo"


def _defaults(folders: Folders) -> dict[str, Any]:
    """Return the whole configuration, the host's part and backup_admin's part."""
    data = folders.data
    return {
        "SECRET_KEY": _secret_key(data),
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SQLALCHEMY_DATABASE_URI": folders.database_url,
        "BACKUP_ADMIN_APP_NAME": "Gallery",
        "BACKUP_ADMIN_ENVIRONMENT": "demo",
        "BACKUP_ADMIN_DATABASES": {"gallery": folders.database_url},
        "BACKUP_ADMIN_FILES": {"storage": {"path": str(folders.storage), "exclude": [*EXCLUDED_FOLDERS]}},
        "BACKUP_ADMIN_STORAGE": str(data / "backups"),
        "BACKUP_ADMIN_KEY_FILE": str(data / "backup.key"),
        "BACKUP_ADMIN_STATE_DIR": str(data / "state"),
        "BACKUP_ADMIN_REDIS_URL": os.environ.get("BACKUP_ADMIN_REDIS_URL", ""),
    }


def _secret_key(data: Path) -> str:
    """Return the key the demo left in the data folder, else one for this process."""
    file = data / "secret.key"
    return file.read_text() if file.is_file() else secrets.token_hex(32)


def _add_extensions(app: Flask) -> None:
    db.init_app(app)
    with app.app_context():
        enforce_foreign_keys(db.engine)
    login_manager.init_app(app)
    csrf.init_app(app)
    migrate.init_app(app, db, directory=str(Path(__file__).parent / "migrations"))
