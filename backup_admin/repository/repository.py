"""A repository as the rest of the product sees it: create, open, read, commit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.clock import Clock, format_time
from backup_admin.core.errors import (
    ChainConflict,
    Damaged,
    ObjectMissing,
    OldKey,
    SnapshotMissing,
    StorageError,
    UsageError,
)
from backup_admin.core.ids import SnapshotId
from backup_admin.repository import config as repository_config
from backup_admin.repository import manifests, packs, pending, slots
from backup_admin.repository.chain import Chain
from backup_admin.repository.config import SINGLE_WRITER
from backup_admin.repository.entries import iterate_entries
from backup_admin.repository.epochs import find_epoch
from backup_admin.repository.index import Index
from backup_admin.repository.keys import RepositoryKeys, sha256
from backup_admin.repository.objects import (
    ObjectType,
    open_object,
    seal_object,
)
from backup_admin.repository.reader import ChunkReader
from backup_admin.repository.seen import seen_file
from backup_admin.repository.standing import LaterIndex, refuse_lost, refuse_own, refuse_retired, taken_since
from backup_admin.repository.store import ChunkStore
from backup_admin.repository.types import SAFETY
from backup_admin.storage.several import begin
from backup_admin.storage.turns import TakesTurns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from backup_admin.core.state import StateFolder
    from backup_admin.repository.config import Config
    from backup_admin.repository.history import ChainEntry, ChainState, Head
    from backup_admin.repository.index import PackInfo
    from backup_admin.repository.packs import Segment
    from backup_admin.repository.secrets import RepositorySecret
    from backup_admin.repository.slots import SlotInfo
    from backup_admin.repository.types import FileEntry, FilesRoot, Manifest, Snapshot
    from backup_admin.storage.base import Storage

_ATTEMPTS = 20

LookAgain = Callable[["Sequence[ChainEntry]"], None]


def open_repository(
    storage: Storage, secret: RepositorySecret, *, state: StateFolder | None, clock: Clock
) -> Repository:
    """Open a repository with one secret; writes nothing to the storage.

    Raises `NotARepository`, `WrongKey`, `NewerVersion` or `Damaged`.
    """
    listed = begin(storage, partial(slots.list_ids, storage))
    config, raw = repository_config.read_config(storage)
    keyring = slots.open_slots(storage, secret, config.repo_id, known=config.slots, listed=listed)
    keys = RepositoryKeys(keyring, config.repo_id, partial(find_epoch, storage))
    repository_config.check_config(raw, keys)
    try:
        return Repository(storage, keys, config, state=state, clock=clock)
    except Damaged as error:
        newest = max(kid for slot in slots.survey_slots(storage) if slot.info for kid in slot.info.epochs)
        if keys.knows(newest):
            raise
        raise OldKey(
            f"{storage.label}: the keys were rotated without this secret, so it does not hold key {newest}. "
            "Use another key. Nothing was written."
        ) from error


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
        self.config = config
        self._given = storage
        self.storage = TakesTurns(storage) if self.is_single_writer else storage
        self.keys = keys
        self.repo_id = config.repo_id.hex()
        self.label = storage.label
        self._clock = clock
        self._state = state
        self._index: Index | None = None
        pin_file = None if state is None else seen_file(state.heads, self.repo_id, self.label)
        self.state_name = self.repo_id if pin_file is None else pin_file.stem
        self._chain = Chain(self.storage, keys, pin_file)
        self._chain.refresh()

    @property
    def is_single_writer(self) -> bool:
        """Whether the storage does not keep two writers apart, so that they take turns."""
        return SINGLE_WRITER in self.config.features

    @property
    def history_warning(self) -> str:
        """A sentence when the repository is not what was seen before, else empty."""
        return self._chain.warning

    @property
    def head(self) -> Head:
        """Number and digest of the newest chain entry."""
        return self._chain.head

    @property
    def history(self) -> ChainState:
        """What all entries of the chain together say; not to be changed."""
        return self._chain.state

    def again(self) -> Repository:
        """Return a view of its own for another thread, of the repository as it is now."""
        return Repository(self._given, self.keys, self.config, state=self._state, clock=self._clock)

    def require_history(self) -> None:
        """Raise `HistoryChanged` when the repository is not the one seen before."""
        self._chain.require_history()

    def verify_history(self) -> int:
        """Read the whole chain and compare every link; return how many entries it has.

        Raises `Damaged`.
        """
        return self._chain.verify()

    def refresh(self) -> None:
        """See what others committed; forget what a failed run stored and never committed."""
        if self._chain.refresh() or (
            self._index is not None and self._index.names() != set(self.index_names())
        ):
            self._index = None

    def taken_since(self, seq: int) -> set[str] | None:
        """Return what entries behind a number took off the books: packs (hex) and names of objects.

        Whoever stored something and names it in an entry looks here before: what was
        taken is gone or soon will be. None when that cannot be told.
        """
        return taken_since(self._chain, seq)

    def slots(self) -> tuple[SlotInfo, ...]:
        """Return what stands in clear about the key slots."""
        return slots.list_slots(self.storage)

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
            return manifests.read_header(self.storage, self.keys, name)
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
        return self.snapshot(self.find_id(text))

    def find_id(self, text: str) -> SnapshotId:
        """Return the id that `find_snapshot` would find, also of a snapshot that cannot be read."""
        ids = self.snapshot_ids()
        if text == "latest" and ids:
            return self._latest(ids).id
        found = [snapshot_id for snapshot_id in ids if snapshot_id.startswith(text.lower())] if text else []
        if not found:
            raise SnapshotMissing(f"{self.label} has no snapshot {text!r}; {self._known(ids)}.")
        if len(found) > 1:
            raise UsageError(f"{len(found)} snapshots begin with {text!r}; give more of the id.")
        return found[0]

    def _known(self, ids: Sequence[SnapshotId]) -> str:
        """Say what snapshots there are, and which of them is the latest where that can be read."""
        with suppress(Damaged):
            return f"it has {len(ids)}, the latest is {self._latest(ids).id}" if ids else "it has none yet"
        return f"it has {len(ids)}"

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
            if sha256(data).hex() != self._chain.state.manifests[snapshot_id].digest:
                raise Damaged("it is not the manifest the chain names")
            return manifests.parse_manifest(open_object(self.keys, ObjectType.MANIFEST, name, data))
        except (Damaged, ObjectMissing) as error:
            raise Damaged(f"{name} in {self.label}: {error}") from error

    def manifest_digest(self, snapshot_id: str) -> str:
        """Return the digest the chain gives for a manifest."""
        self._manifest_name(snapshot_id)
        return self._chain.state.manifests[snapshot_id].digest

    def index(self) -> Index:
        """Return the index of everything committed."""
        if self._index is None:
            self._index = self.new_index()
        return self._index

    def new_index(self, more: Iterable[str] = ()) -> Index:
        """Load an index of its own: of everything committed, and of some more index objects."""
        index = Index(self.storage, self.keys, self.cache_folder())
        index.load((*self._chain.state.indexes, *more), self._chain.state.collected)
        return index

    def index_names(self) -> tuple[str, ...]:
        """Return the names of all index objects in use."""
        return tuple(self._chain.state.indexes)

    def reader(self) -> ChunkReader:
        """Return a reader of chunks; it notices when a prune moved what it reads."""
        later = LaterIndex(self.storage, self.keys, self.cache_folder(), self.head)
        return ChunkReader(self.storage, self.keys, self.index(), later)

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
        store = self.store_for(self.index(), pending.BACKUPS, threads=threads)
        store.adopt(self.left_packs(pending.BACKUPS))
        return store

    def store_for(self, index: Index, notes: str, *, threads: int = 2) -> ChunkStore:
        """Begin to add chunks that an index lacks, noting packs as one kind of work."""
        self._chain.require_history()
        pending_packs = pending.PendingPacks(self.cache_folder(), self.head.seq, notes)
        store = ChunkStore(
            self.storage, self.keys, self.config.parameters, index, pending_packs, threads=threads
        )
        store.base = self.head.seq
        return store

    def noted_packs(self, notes: str) -> tuple[bytes, ...]:
        """Return the packs that one kind of work noted and nobody committed."""
        return pending.PendingPacks(self.cache_folder(), self.head.seq, notes).names()

    def left_packs(self, kind: str) -> Iterator[tuple[PackInfo, list[Segment]]]:
        """Read the packs that one kind of work noted, as far as they may be taken over."""
        notes = pending.PendingPacks(self.cache_folder(), self.head.seq, kind)
        names = notes.names()
        taken = taken_since(self._chain, notes.since()) if names else set()
        if taken is None:
            return iter(())
        known = {pack.name for pack in self.index().packs()} if names else set()
        gone = taken | self._chain.state.collected
        left = [name for name in names if name not in known and name.hex() not in gone]
        return pending.whole_packs(self.storage, self.keys, left)

    def commit(self, manifest: Manifest, store: ChunkStore, *, actor: str) -> Snapshot:
        """Store the manifest and append the chain entry that makes it real.

        Raises `PacksCollected` when a collector took packs meanwhile that it needs: then the
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

        def look_again(_entries: Sequence[ChainEntry]) -> None:
            refuse_retired(self._chain.state.retired, (data, *(pack.header for pack in store.new_packs)))
            self._refuse_taken(manifest, store)

        look_again(())
        self.record("snapshot", payload, actor=actor, look_again=look_again)
        store.forget_pending()
        return snapshot

    def record(
        self,
        op: str,
        payload: Mapping[str, object],
        *,
        actor: str,
        look_again: LookAgain | None = None,
    ) -> ChainEntry:
        """Append an entry to the chain, the only way anything is changed for all.

        When others were first, `look_again` gets their entries and raises if what
        is to be recorded does not stand any more. Raises `HistoryChanged` or
        `ChainConflict`.
        """
        self._chain.require_history()
        for _ in range(_ATTEMPTS):
            entry = self._chain.append(op, payload, actor=actor, time=format_time(self._clock.now()))
            self._index = None
            if entry is not None:
                self._chain.shorten(actor=actor, time=format_time(self._clock.now()))
                return entry
            new = self._chain.refresh()
            if look_again is not None:
                look_again(new)
        raise ChainConflict(f"Other processes kept committing to {self.label}; try again.")

    def write_checkpoint(self, *, actor: str) -> None:
        """Append an entry with all that the chain says: opening then needs nothing before it.

        Raises `HistoryChanged`, `StorageError` or `ChainConflict`.
        """
        self._chain.require_history()
        for _ in range(_ATTEMPTS):
            if self._chain.append_checkpoint(actor=actor, time=format_time(self._clock.now())):
                return
            self._index = None
            self._chain.refresh()
        raise ChainConflict(f"Other processes kept committing to {self.label}; try again.")

    def _refuse_taken(self, manifest: Manifest, store: ChunkStore) -> None:
        """Raise `PacksCollected` when something was taken since the run began that it needs."""
        taken = taken_since(self._chain, store.base) or set()
        refuse_own(taken, (manifests.manifest_name(manifest.snapshot.id), *store.new_indexes))
        refuse_own(taken, (pack.name.hex() for pack in store.new_packs))
        if taken:
            index = self.new_index(store.new_indexes)
            index.ignore(name for name in taken if "/" not in name)
            refuse_lost(manifest, ChunkReader(self.storage, self.keys, index), index)

    def cache_folder(self) -> Path:
        """Return where the local copy of the index lies; all in it can be made again, or is a hint."""
        if self._state is None:
            raise UsageError("A repository opened without a state folder has no index.")
        cache = self._state.cache / self.repo_id[:32]
        cache.mkdir(mode=0o700, exist_ok=True)
        return cache

    def _manifest_name(self, snapshot_id: str) -> str:
        if snapshot_id not in self._chain.state.manifests:
            raise SnapshotMissing(f"{self.label} has no snapshot {snapshot_id!r}.")
        return self._chain.state.manifests[snapshot_id].name
