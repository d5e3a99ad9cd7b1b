"""A repository as the rest of the product sees it: create, open, read, commit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.clock import Clock, format_time
from backup_admin.core.errors import (
    BadObjectName,
    ChainConflict,
    Damaged,
    ObjectMissing,
    PacksCollected,
    RepositoryExists,
    SnapshotMissing,
    StorageError,
    StorageNotEmpty,
    UsageError,
)
from backup_admin.core.ids import SnapshotId, new_ulid
from backup_admin.repository import chain as chain_log
from backup_admin.repository import config as repository_config
from backup_admin.repository import manifests, packs, pending, slots
from backup_admin.repository.chain import Chain
from backup_admin.repository.config import Config, Parameters
from backup_admin.repository.entries import iterate_entries
from backup_admin.repository.index import Index
from backup_admin.repository.keys import RepositoryKeys, new_keyring, sha256
from backup_admin.repository.objects import (
    HEADER_BYTES,
    ObjectCipher,
    ObjectType,
    check_header,
    open_object,
    seal_object,
)
from backup_admin.repository.reader import ChunkReader
from backup_admin.repository.store import ChunkStore
from backup_admin.repository.types import SAFETY
from backup_admin.storage import probe
from backup_admin.storage.base import CanBeMade, PutResult, Storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from backup_admin.core.state import StateFolder
    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.repository.slots import SlotInfo
    from backup_admin.repository.types import FileEntry, FilesRoot, Manifest, Snapshot

_HEADER_READ = 16 << 10
_ATTEMPTS = 20
_MOST_LEFT = 8


@dataclass(frozen=True, slots=True)
class NewRepository:
    """What `create_repository` made."""

    repo_id: str
    slots: tuple[str, ...]


def create_repository(
    storage: Storage,
    secrets: Sequence[tuple[RepositorySecret, str]],
    *,
    clock: Clock,
    parameters: Parameters | None = None,
) -> NewRepository:
    """Make a repository that each of the secrets opens.

    The object `config` comes last and makes it real: what an interrupted call
    left is cleared by the next. The storage is tried out first. Raises
    `RepositoryExists`, `StorageNotEmpty` or `StorageError`.
    """
    if not secrets:
        raise UsageError("A repository needs at least one key.")
    _prepare_storage(storage)
    now = clock.now()
    probe.probe_storage(storage, new_ulid(now))
    repo_id = os.urandom(32)
    keyring = new_keyring()
    made = [slots.make_slot(secret, keyring, repo_id, label=label, now=now) for secret, label in secrets]
    for name, data in made:
        storage.put(name, data)
    config = Config(repo_id, format_time(now), parameters or Parameters())
    sealed = repository_config.seal_config(config, RepositoryKeys(keyring, repo_id))
    if storage.put(repository_config.NAME, sealed) is PutResult.EXISTS and (
        storage.get(repository_config.NAME) != sealed
    ):
        for name, _ in made:
            storage.delete(name)
        raise RepositoryExists(f"Another process made a repository in {storage.label} just now.")
    return NewRepository(repo_id.hex(), tuple(name.removeprefix(slots.PREFIX) for name, _ in made))


def open_repository(
    storage: Storage, secret: RepositorySecret, *, state: StateFolder | None, clock: Clock
) -> Repository:
    """Open a repository with one secret; writes nothing to the storage.

    Raises `NotARepository`, `WrongKey`, `NewerVersion` or `Damaged`.
    """
    config, raw = repository_config.read_config(storage)
    keyring = slots.open_slots(storage, secret, config.repo_id)
    keys = RepositoryKeys(keyring, config.repo_id)
    repository_config.check_config(raw, keys)
    return Repository(storage, keys, config, state=state, clock=clock)


class Repository:
    """An open repository."""

    def __init__(
        self,
        storage: Storage,
        keys: RepositoryKeys,
        config: Config,
        *,
        state: StateFolder | None,
        clock: Clock,
    ) -> None:
        self.storage = storage
        self.keys = keys
        self.config = config
        self.repo_id = config.repo_id.hex()
        self.label = storage.label
        self._clock = clock
        self._state = state
        self._index: Index | None = None
        pin_file = None if state is None else state.heads / f"{self.repo_id}.json"
        self._chain = Chain(storage, keys, pin_file)
        self._chain.refresh()

    @property
    def history_warning(self) -> str:
        """A sentence when the repository is not what was seen before, else empty."""
        return self._chain.warning

    @property
    def head(self) -> chain_log.Head:
        """Number and digest of the newest chain entry."""
        return self._chain.head

    def refresh(self) -> None:
        """See what others committed; forget what a failed run stored and never committed."""
        if self._chain.refresh() or (
            self._index is not None and self._index.names() != set(self.index_names())
        ):
            self._index = None

    def slots(self) -> tuple[SlotInfo, ...]:
        """Return what stands in clear about the key slots."""
        return slots.list_slots(self.storage)

    def add_slot(self, secret: RepositorySecret, *, label: str) -> str:
        """Add a secret that opens this repository, and prove that it does."""
        name, data = slots.make_slot(
            secret, self.keys.keyring, self.keys.repo_id, label=label, now=self._clock.now()
        )
        self.storage.put(name, data)
        slots.open_slots(self.storage, secret, self.keys.repo_id)
        return name.removeprefix(slots.PREFIX)

    def snapshot_ids(self) -> tuple[SnapshotId, ...]:
        """Return the ids of all snapshots in the order of their commits.

        A clock that was wrong for a while does not change what is the latest.
        """
        return tuple(SnapshotId(text) for text in self._chain.state.manifests)

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return the headers of all snapshots, oldest first; raise `Damaged`."""
        return tuple(self.snapshot(snapshot_id) for snapshot_id in self.snapshot_ids())

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return the header of one snapshot, by reading only that."""
        name = self._manifest_name(snapshot_id)
        try:
            data = self.storage.get(name, 0, _HEADER_READ)
            size = int.from_bytes(data[HEADER_BYTES : HEADER_BYTES + 4], "big")
            if len(data) == _HEADER_READ < HEADER_BYTES + 4 + size:
                data = self.storage.get(name, 0, HEADER_BYTES + 4 + size)
            check_header(data[:HEADER_BYTES], ObjectType.MANIFEST)
            cipher = ObjectCipher(self.keys, data[:HEADER_BYTES], name)
            frame = cipher.open(data[HEADER_BYTES + 4 : HEADER_BYTES + 4 + size], 0, last=False)
            return manifests.parse_header(frame)[0]
        except (Damaged, ObjectMissing) as error:
            raise Damaged(f"{name} in {self.label}: {error}") from error

    def find_snapshot(self, text: str) -> Snapshot:
        """Return the snapshot with this id or unique beginning of one, or the `latest`.

        The safety backup that a restore makes is never the latest while there is another.

        Raises `SnapshotMissing` or `UsageError` when several begin so.
        """
        ids = self.snapshot_ids()
        if text == "latest" and ids:
            return self._latest(ids)
        found = [snapshot_id for snapshot_id in ids if snapshot_id.startswith(text.lower())] if text else []
        if not found:
            known = f"it has {len(ids)}, the newest is {ids[-1]}" if ids else "it has none yet"
            raise SnapshotMissing(f"{self.label} has no snapshot {text!r}; {known}.")
        if len(found) > 1:
            raise UsageError(f"{len(found)} snapshots begin with {text!r}; give more of the id.")
        return self.snapshot(found[0])

    def _latest(self, ids: Sequence[SnapshotId]) -> Snapshot:
        """Return the newest snapshot that is not what a restore replaced."""
        newest = self.snapshot(ids[-1])
        if newest.kind != SAFETY:
            return newest
        kept = (self.snapshot(snapshot_id) for snapshot_id in reversed(ids[:-1]))
        return next((snapshot for snapshot in kept if snapshot.kind != SAFETY), newest)

    def manifest(self, snapshot_id: str) -> Manifest:
        """Return the whole manifest of a snapshot; raise `Damaged`."""
        name = self._manifest_name(snapshot_id)
        try:
            data = self.storage.get(name)
            if sha256(data).hex() != self._chain.state.manifests[snapshot_id]:
                raise Damaged("it is not the manifest the chain names")
            return manifests.parse_manifest(open_object(self.keys, ObjectType.MANIFEST, name, data))
        except (Damaged, ObjectMissing) as error:
            raise Damaged(f"{name} in {self.label}: {error}") from error

    def manifest_digest(self, snapshot_id: str) -> str:
        """Return the digest the chain gives for a manifest."""
        self._manifest_name(snapshot_id)
        return self._chain.state.manifests[snapshot_id]

    def index(self) -> Index:
        """Return the index of everything committed."""
        if self._index is None:
            index = Index(self.storage, self.keys, self._cache())
            index.load(self._chain.state.indexes, self._chain.state.collected)
            self._index = index
        return self._index

    def index_names(self) -> tuple[str, ...]:
        """Return the names of all index objects in use."""
        return tuple(self._chain.state.indexes)

    def reader(self) -> ChunkReader:
        """Return a reader of chunks."""
        return ChunkReader(self.storage, self.keys, self.index())

    def entries(self, root: FilesRoot, reader: ChunkReader | None = None) -> Iterator[FileEntry]:
        """Yield the entries of a folder tree in the order of a walk."""
        return iterate_entries(reader or self.reader(), root)

    def missing_packs(self) -> tuple[str, ...]:
        """Return the packs (hex names) of the index that the storage lacks or holds cut short.

        A pack a listing does not show is looked up by name before it counts.
        """
        listed = {info.name: info.size for info in self.storage.list_objects(packs.PREFIX)}
        missing = []
        for pack in self.index().packs():
            name = packs.pack_name(pack.name)
            size = listed.get(name)
            if size is None and (info := self.storage.stat(name)) is not None:
                size = info.size
            if size != pack.size:
                missing.append(pack.name.hex())
        return tuple(missing)

    def new_store(self, *, threads: int = 2) -> ChunkStore:
        """Begin to add chunks; nothing is visible before `commit`.

        What a run before stored and could not commit is taken over.
        """
        self._chain.require_history()
        index, notes = self.index(), pending.PendingPacks(self._cache())
        store = ChunkStore(self.storage, self.keys, self.config.parameters, index, notes, threads=threads)
        if names := notes.names():
            known = {pack.name for pack in index.packs()}
            left = [
                name for name in names if name not in known and name.hex() not in self._chain.state.collected
            ]
            store.adopt(pending.whole_packs(self.storage, self.keys, left))
        return store

    def commit(self, manifest: Manifest, store: ChunkStore, *, actor: str) -> Snapshot:
        """Store the manifest and append the chain entry that makes it real.

        Raises `PacksCollected` when a collector took packs meanwhile: then the
        backup is made again, which stores those chunks under new names.
        """
        snapshot = manifest.snapshot
        name = manifests.manifest_name(snapshot.id)
        data = seal_object(self.keys, ObjectType.MANIFEST, name, manifests.manifest_frames(manifest))
        self.storage.put(name, data)
        if self.storage.get(name) != data:
            raise StorageError(f"{name} in {self.label} is not what was written; no snapshot was made.")
        payload = {
            "id": snapshot.id,
            "manifest": sha256(data).hex(),
            "indexes": store.new_indexes,
        }
        self._append("snapshot", payload, actor=actor)
        store.forget_pending()
        self._index = None
        return snapshot

    def _cache(self) -> Path:
        if self._state is None:
            raise UsageError("A repository opened without a state folder has no index.")
        cache = self._state.cache / self.repo_id[:32]
        cache.mkdir(mode=0o700, exist_ok=True)
        return cache

    def _append(self, op: str, payload: Mapping[str, object], *, actor: str) -> None:
        for _ in range(_ATTEMPTS):
            if self._chain.append(op, payload, actor=actor, time=format_time(self._clock.now())):
                return
            if any(entry.op == "gc-delete" for entry in self._chain.refresh()):
                self._index = None
                raise PacksCollected("A prune took packs while this backup ran; it is made again.")
        raise ChainConflict(f"Other processes kept committing to {self.label}; try again.")

    def _manifest_name(self, snapshot_id: str) -> str:
        if snapshot_id not in self._chain.state.manifests:
            raise SnapshotMissing(f"{self.label} has no snapshot {snapshot_id!r}.")
        return manifests.manifest_name(snapshot_id)


def holds_repository(storage: Storage) -> bool:
    """Say whether a repository is in a storage; reads only.

    What an interrupted `create_repository` left counts as nothing. Raises
    `StorageNotEmpty` when other things are there.
    """
    if storage.stat(repository_config.NAME) is not None:
        return True
    _leftovers(storage)
    return False


def _prepare_storage(storage: Storage) -> None:
    """Make sure the storage is there and empty; clear what an interrupted call left."""
    if isinstance(storage, CanBeMade):
        storage.make()
    if holds_repository(storage):
        raise RepositoryExists(f"{storage.label} already holds a repository; it was not touched.")
    for name in _leftovers(storage):
        storage.delete(name)


def _is_leftover(storage: Storage, name: str) -> bool:
    try:
        is_slot = name.startswith(slots.PREFIX) and storage.get(name, 0, 4) == slots.MAGIC
        return is_slot or probe.is_left_probe(storage, name)
    except BadObjectName:
        return False


def _leftovers(storage: Storage) -> list[str]:
    left: list[str] = []
    for info in storage.list_objects(""):
        name = info.name
        if len(left) >= _MOST_LEFT or not _is_leftover(storage, name):
            raise StorageNotEmpty(
                f"{storage.label} holds other things (for example {name!r}); "
                "give an empty or new place. Nothing was touched."
            )
        left.append(name)
    return left
