"""Mount backup_admin into the gallery: all a host app has to write."""

from collections.abc import Iterable
from typing import Any

from flask import Flask
from sqlalchemy import select

from backup_admin import BackupAdmin
from examples.gallery.extensions import db
from examples.gallery.models import AdminUser, AppSetting

ADMIN_PERMISSIONS = (
    "backup.view",
    "backup.run",
    "backup.configure",
    "backup.download",
    "backup.delete",
    "backup.verify",
    "restore.plan",
    "restore.execute",
    "restore.approve",
    "audit.view",
    "storage.manage",
    "key.manage",
)
VIEWER_PERMISSIONS = ("backup.view",)


def mount_backup_admin(app: Flask) -> BackupAdmin:
    """Add the backup pages; what they need is in the app's configuration."""
    backup_admin = BackupAdmin(app)
    backup_admin.permission_loader(load_permissions)
    backup_admin.settings_provider(load_settings)
    return backup_admin


def load_permissions(user: AdminUser) -> Iterable[str]:
    """Say what this person may do with backups: a gallery admin everything."""
    return ADMIN_PERMISSIONS if user.role.name == "admin" else VIEWER_PERMISSIONS


def load_settings() -> dict[str, Any]:
    """Return the gallery's settings, for the manifest."""
    rows = db.session.execute(select(AppSetting).order_by(AppSetting.setting_key))
    return {row.setting_key: row.setting_value for row in rows.scalars()}
