"""Backup and restore for Flask apps; `BackupAdmin` is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.version import VERSION

if TYPE_CHECKING:
    from backup_admin.web.extension import BackupAdmin

__all__ = ["BackupAdmin", "__version__"]

__version__ = VERSION


def __getattr__(name: str) -> object:
    """Load `BackupAdmin` late: the emergency command must not need Flask."""
    if name != "BackupAdmin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backup_admin.web.extension import BackupAdmin  # noqa: PLC0415 - the lazy one

    return BackupAdmin
