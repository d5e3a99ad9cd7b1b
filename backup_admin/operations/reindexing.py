"""Build the local copy of the index anew, and compare the storage with what its index names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.repository import index, packs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """What the index holds, and where the storage differs from it."""

    indexes: int
    packs: int
    chunks: int
    lost_indexes: Mapping[str, str]
    missing_packs: tuple[str, ...]
    unnamed_indexes: int
    unnamed_packs: int

    @property
    def ok(self) -> bool:
        """Whether all that is named is there."""
        return not self.lost_indexes and not self.missing_packs


def reindex(repository: Repository, *, state: StateFolder, reporter: Reporter) -> ReindexReport:
    """Drop the local copy of the index and read every index object from the storage.

    Changes nothing in the storage; raises `Busy` while a backup runs here.
    """
    with state.lock("backup"):
        names = set(repository.index_names())
        reporter.stage("read index", total_items=len(names))
        index.clear_cache(repository.cache_folder())
        made = repository.new_index()
        reporter.stage("compare")
        listed_indexes = {info.name for info in repository.storage.list_objects(index.PREFIX)}
        listed_packs = {info.name for info in repository.storage.list_objects(packs.PREFIX)}
        known_packs = {packs.pack_name(pack.name) for pack in made.packs()}
        return ReindexReport(
            indexes=len(names) - len(made.lost),
            packs=len(known_packs),
            chunks=made.chunk_count(),
            lost_indexes=dict(made.lost),
            missing_packs=repository.missing_packs(),
            unnamed_indexes=len(listed_indexes - names),
            unnamed_packs=len(listed_packs - known_packs),
        )
