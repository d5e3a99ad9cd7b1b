"""What one snapshot holds, read from the storage when a person asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.control.restore_from import open_for_restore
from backup_admin.core.errors import BackupAdminError
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.export import export_manifest
from backup_admin.web import current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Manifest


@dataclass(frozen=True, slots=True)
class Content:
    """The manifest of a snapshot, or why it cannot be shown now."""

    manifest: Manifest | None
    problem: str = ""


def read_content(snapshot_id: str) -> Content:
    """Return the manifest of a snapshot; the page is shown also without it."""
    try:
        return Content(_open().manifest(SnapshotId(snapshot_id)))
    except BackupAdminError as error:
        return Content(None, str(error))


def manifest_json(snapshot_id: str) -> Iterator[str]:
    """Return the manifest as JSON, piece by piece."""
    return export_manifest(_open(), SnapshotId(snapshot_id))


def _open() -> Repository:
    return open_for_restore(current.session(), current.installation())[0]
