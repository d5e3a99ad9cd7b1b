"""Whether a plan of a restore still fits the repository it is carried out from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from backup_admin.core.errors import RestoreRefused, SnapshotMissing

if TYPE_CHECKING:
    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Manifest


class OfASnapshot(Protocol):
    """A plan that was made for one snapshot of one repository."""

    @property
    def snapshot_id(self) -> SnapshotId:
        """Which snapshot."""

    @property
    def manifest_digest(self) -> str:
        """What its manifest was."""

    @property
    def repo_id(self) -> str:
        """Which repository."""


def planned_manifest(plan: OfASnapshot, repository: Repository) -> Manifest:
    """Return the manifest a plan was made for; raise `RestoreRefused` when it is another now."""
    repository.refresh()
    try:
        same = repository.manifest_digest(plan.snapshot_id) == plan.manifest_digest
    except SnapshotMissing:
        same = False
    if repository.repo_id != plan.repo_id or not same:
        raise RestoreRefused(
            "The plan was made for another repository or snapshot; plan again. Nothing was touched."
        )
    return repository.manifest(plan.snapshot_id)
