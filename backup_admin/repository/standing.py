"""Whether what a run stored still stands: collectors may have taken packs meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, ObjectMissing, PacksCollected
from backup_admin.repository.chain import Chain
from backup_admin.repository.history import TAKING
from backup_admin.repository.index import Index
from backup_admin.repository.marking import Marker
from backup_admin.repository.objects import object_kid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from backup_admin.repository.history import ChainEntry, Head
    from backup_admin.repository.keys import RepositoryKeys
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import Manifest
    from backup_admin.storage.base import Storage

_MOST_ENTRIES = 2000
_MESSAGE = "A prune took packs that this backup needs while it ran; it is made again."


def taken_since(chain: Chain, since: int) -> set[str] | None:
    """Return what the entries behind a number took off the books: packs as hex, objects by name.

    None when that cannot be told, or only by reading a long history.
    """
    older: list[ChainEntry] = []
    if since < chain.begin:
        if chain.begin - since > _MOST_ENTRIES:
            return None
        try:
            older = chain.entries(since + 1, chain.begin)
        except (Damaged, ObjectMissing):
            return None
    return _named(entry for entry in (*older, *chain.takings) if entry.op in TAKING and entry.seq > since)


def refuse_own(taken: Collection[str], own: Iterable[str]) -> None:
    """Raise `PacksCollected` when something that a run stored itself was taken off the books."""
    if not set(taken).isdisjoint(own):
        raise PacksCollected(_MESSAGE)


def refuse_retired(retired: Collection[int], objects: Iterable[bytes]) -> None:
    """Raise `PacksCollected` when a key was dropped under which a run may have stored objects.

    What it stored besides those given here lies under the same keys or later ones.
    """
    oldest = min(object_kid(header) for header in objects)
    if any(kid >= oldest for kid in retired):
        raise PacksCollected("A key was retired while this backup ran; it is made again.")


def refuse_lost(manifest: Manifest, reader: ChunkReader, index: Index) -> None:
    """Raise `PacksCollected` when the index lacks a chunk that a manifest needs."""

    def need(chunk_ids: Iterable[bytes]) -> None:
        if not all(map(index.has, chunk_ids)):
            raise PacksCollected(_MESSAGE)

    try:
        Marker(reader, need).mark(manifest)
    except Damaged as error:
        raise PacksCollected(_MESSAGE) from error


class LaterIndex:
    """Loads the index as it is now, when the chain went on since the last time.

    Reads a chain of its own, so that nobody's view changes in the middle of his work.
    """

    def __init__(self, storage: Storage, keys: RepositoryKeys, cache: Path, head: Head) -> None:
        self._storage = storage
        self._keys = keys
        self._cache = cache
        self._head = head

    def __call__(self) -> Index | None:
        """Return a newer index than before, or None; raise `Damaged`."""
        chain = Chain(self._storage, self._keys, None)
        chain.refresh()
        if chain.head == self._head:
            return None
        self._head = chain.head
        index = Index(self._storage, self._keys, self._cache)
        index.load(chain.state.indexes, chain.state.collected)
        return index


def _named(entries: Iterable[ChainEntry]) -> set[str]:
    names: set[str] = set()
    for entry in entries:
        names.update(map(str, entry.payload["packs"]), map(str, entry.payload.get("objects", ())))
    return names
