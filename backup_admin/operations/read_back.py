"""Read back what a backup stored, before anybody calls it good."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from backup_admin.core.errors import StorageUnavailable
from backup_admin.operations.results import Evidence
from backup_admin.repository.config import NAME as CONFIG
from backup_admin.repository.index import open_index
from backup_admin.repository.manifests import manifest_name

if TYPE_CHECKING:
    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.store import ChunkStore


def read_back(repository: Repository, store: ChunkStore, *, reporter: Reporter) -> Evidence:
    """Read every index that a backup added, and sum up what was read of the store's packs.

    The store proved each pack when it was stored; earlier ones were proven before.
    Done before the commit, so that a snapshot that cannot be read never exists.
    Raises `Damaged` when an index is not as it was written, `StorageUnavailable` when the
    repository is not there any more, and `Cancelled`: the last place where a backup stops
    when asked.
    """
    reporter.stage("verify", total_items=len(store.new_indexes))
    count, size = store.proof.packs_read, store.proof.bytes_read
    reporter.check_cancelled()
    for name in store.new_indexes:
        reporter.check_cancelled()
        data = repository.storage.get(name)
        _, _, records = open_index(repository.keys, name, data)
        deque(records, maxlen=0)  # opens every frame
        count, size = count + 1, size + len(data)
        reporter.advance(items=1)
    _need_repository(repository)
    return Evidence(count, size)


def _need_repository(repository: Repository) -> None:
    """Raise when the repository went away meanwhile: a disk that is gone, a bucket that was made anew."""
    if repository.storage.stat(CONFIG) is None:
        raise StorageUnavailable(
            f"The repository in {repository.label} went away during the work: {CONFIG} is not there. "
            "Nothing was committed. See what happened to the storage before anything else is written to it."
        )


def read_manifest(repository: Repository, snapshot_id: SnapshotId) -> Evidence:
    """Read a manifest back after its commit; raise `Damaged`."""
    repository.manifest(snapshot_id)
    info = repository.storage.stat(manifest_name(snapshot_id))
    return Evidence(1, 0 if info is None else info.size)
