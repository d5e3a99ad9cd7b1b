"""Delete what no snapshot needs, beside running backups, and never anything one may need.

What every snapshot needs is marked. One entry of the chain then takes packs off the
books; it is refused when somebody committed meanwhile, and everything is looked at
again. Objects are deleted only after that entry. Stopping anywhere is safe: the next
prune finishes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import ChainConflict, Damaged
from backup_admin.core.shown import count_of
from backup_admin.operations.base_backups import Base, bases_in, obsolete_wal
from backup_admin.operations.collecting import count_locked, delete_collected
from backup_admin.operations.locking import Locked
from backup_admin.operations.prune_plan import PrunePlan, Usage, measure_use, plan_prune
from backup_admin.operations.read_back import read_back
from backup_admin.operations.repack import repack, rewrite_indexes
from backup_admin.operations.unknown_objects import FirstSeen, Unknown, find_unknown, sort_unknown
from backup_admin.repository import pending
from backup_admin.repository.chunk_ids import ChunkIds
from backup_admin.repository.marking import Marker
from backup_admin.repository.packs import PREFIX as PACK_PREFIX
from backup_admin.repository.packs import pack_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.store import ChunkStore
    from backup_admin.storage.base import ObjectInfo

_ATTEMPTS = 20
_ENTRY_PACKS = 20_000


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How a prune goes about it.

    `max_unused_percent` of the storage may stay taken by what nobody needs: writing less anew
    is quicker. `every_unknown` does not wait a day before it deletes objects that nothing names.
    """

    max_unused_percent: float = 5.0
    every_unknown: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class PruneReport:
    """What a prune did, or would do; `locked` are of these, and stay as old versions."""

    dry_run: bool
    snapshots: int = 0
    packs_kept: int = 0
    packs_taken: int = 0
    packs_rewritten: int = 0
    bytes_unused: int = 0
    bytes_taken: int = 0
    bytes_rewritten: int = 0
    wal_files: int = 0
    objects_deleted: int = 0
    objects_left: int = 0
    objects_waiting: int = 0
    refused: bool = False
    locked: Locked = field(default_factory=Locked)
    notices: list[str] = field(default_factory=list)

    @property
    def bytes_freed(self) -> int:
        """How much smaller the storage gets by this, once all of it is deleted."""
        return self.bytes_taken - self.bytes_rewritten


class _Stale(Exception):
    """Somebody committed since everything was looked at."""


def prune(
    repository: Repository,
    options: PruneOptions,
    *,
    actor: str,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> PruneReport:
    """Delete what no snapshot needs, and what earlier prunes took and could not delete.

    Raises `Damaged` when it cannot be told what a snapshot needs, `HistoryChanged`, and
    `Busy` while another prune works in this state folder; nothing is deleted then.
    """
    with state.lock("prune"):
        repository.refresh()
        repository.require_history()
        run = _Prune(repository, options, actor, state, reporter, clock)
        return run.plan_only() if options.dry_run else run.carry_out()


class _Prune:
    def __init__(
        self,
        repository: Repository,
        options: PruneOptions,
        actor: str,
        state: StateFolder,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._options = options
        self._actor = actor
        self._reporter = reporter
        self._clock = clock
        self._first_seen = FirstSeen(state, repository.state_name)
        self._needed = ChunkIds()
        self._marker = Marker(repository.reader(), self._needed.update)
        self._marked: set[str] = set()
        self._bases: list[Base] = []
        self._store: ChunkStore | None = None
        self._rewritten: set[bytes] = set()
        self._has_rewritten = False
        self._taken: set[str] = set()
        self._litter: list[str] = []
        self._given_up: set[str] = set()
        self._measured: tuple[object, Usage] | None = None
        self._report = PruneReport(options.dry_run)

    def plan_only(self) -> PruneReport:
        """Say what would be done; change nothing, also not in the state folder."""
        self._mark()
        usage = self._measure()
        plan = self._plan(usage)
        unknown = self._unknown(usage)
        report, going = self._report, (*plan.delete, *plan.rewrite)
        wal = obsolete_wal(self._repository, self._bases)
        report.wal_files = len(wal)
        report.packs_taken, report.packs_rewritten = len(going), len(plan.rewrite)
        report.bytes_taken = sum(pack.size for pack in going) + sum(info.size for info in unknown.ripe)
        report.bytes_taken += sum(wal.values())
        report.bytes_rewritten = plan.moved_bytes
        report.packs_kept, report.bytes_unused = plan.kept, plan.unused_bytes
        report.objects_left = len(self._repository.history.collected) + len(self._repository.history.doomed)
        now = self._clock.now()
        for name in (*(pack_name(pack.name) for pack in going), *(info.name for info in unknown.ripe)):
            report.locked = count_locked(self._repository.storage, name, report.locked, now)
        return report

    def carry_out(self) -> PruneReport:
        """Write anew, take off the books, delete."""
        try:
            self._take_all()
        finally:
            self._close_store()
        if self._store is not None:
            self._store.forget_pending()
        self._delete()
        return self._report

    def _take_all(self) -> None:
        """Go on until an entry stood; another process that commits makes it all be looked at again."""
        for _ in range(_ATTEMPTS):
            before = self._repository.head
            try:
                self._mark()
                if not self._has_rewritten:
                    self._rewrite()
                    self._has_rewritten = True
                while self._take():
                    self._reporter.check_cancelled()
            except _Stale:
                continue
            except Damaged:
                self._repository.refresh()
                if self._repository.head == before:
                    raise
                continue  # another prune moved what was to be read
            return
        raise ChainConflict("Other processes kept committing, so that nothing could be deleted. Try again.")

    def _mark(self) -> None:
        """Mark what the snapshots need that were not there the last time."""
        ids = [one for one in self._repository.snapshot_ids() if one not in self._marked]
        damaged = self._repository.history.damaged
        self._reporter.stage("mark", total_items=len(ids))
        self._marker.reader = self._repository.reader()
        for snapshot_id in ids:
            self._reporter.check_cancelled()
            try:
                manifest = self._repository.manifest(snapshot_id)
                self._marker.mark(manifest, tolerant=snapshot_id in damaged)
                self._bases += bases_in(manifest)
            except Damaged as error:
                raise Damaged(
                    f"What snapshot {snapshot_id} needs cannot be told: {error} Nothing was deleted; "
                    "repair the repository first, or forget that snapshot."
                ) from error
            self._marked.add(snapshot_id)
            self._reporter.advance(items=1)
        self._report.snapshots = len(self._repository.snapshot_ids())

    def _measure(self) -> Usage:
        own = self._own_indexes()
        basis = (self._repository.head, tuple(own), len(self._marked))
        if self._measured is not None and self._measured[0] == basis:
            return self._measured[1]
        index = self._repository.new_index(own)
        if index.lost:
            raise Damaged(
                f"{count_of(len(index.lost), 'index object')} of the repository cannot be read, so it cannot "
                "be told what is unused. Nothing was deleted; repair the repository first."
            )
        usage = measure_use(
            index,
            self._needed,
            ignored={bytes.fromhex(name) for name in self._repository.history.collected},
            best=self._own_packs(),
            going=self._rewritten,
        )
        self._measured = (basis, usage)
        return usage

    def _plan(self, usage: Usage) -> PrunePlan:
        return plan_prune(
            usage.packs,
            max_unused_percent=self._options.max_unused_percent,
            pack_bytes=self._repository.config.parameters.pack,
        )

    def _rewrite(self) -> None:
        """Store anew what is needed of wasteful packs; take over what a killed prune stored so."""
        repository = self._repository
        self._close_store()
        left = tuple(repository.left_packs(pending.PRUNES))
        if not left and not self._plan(self._measure()).rewrite:
            return
        index = repository.new_index()
        self._store = store = repository.store_for(index, pending.PRUNES)
        store.adopt(left)
        plan = self._plan(self._measure())
        size = sum(pack.size for pack in plan.rewrite)
        self._reporter.stage("repack", total_bytes=size, total_items=len(plan.rewrite))
        index.ignore(pack.name.hex() for pack in plan.rewrite)
        problems = repack(repository, plan.rewrite, self._needed, store, reporter=self._reporter)
        if problems:
            self._need_unmoved()
        self._report.notices += problems
        self._rewritten = {pack.name for pack in plan.rewrite}
        self._report.packs_rewritten = len(plan.rewrite)
        self._report.bytes_rewritten = sum(pack.size for pack in store.new_packs)
        read_back(repository, store, reporter=self._reporter)

    def _take(self) -> bool:
        """Take off the books what nobody needs, in one entry; say whether more is to be taken."""
        if not self._marked.issuperset(self._repository.snapshot_ids()):
            raise _Stale
        self._refuse_own()
        history, own, usage = self._repository.history, self._own_indexes(), self._measure()
        unused = [use.pack for use in usage.packs if not use.chunks]
        unknown = self._unknown(usage)
        self._first_seen.write((info.name for info in (*unknown.ripe, *unknown.young)), self._clock.now())
        packs = {pack.name.hex(): pack.size for pack in unused[:_ENTRY_PACKS]}
        packs |= {_digest(info): info.size for info in unknown.ripe if _is_pack(info)}
        litter = {info.name: info.size for info in unknown.ripe if not _is_pack(info)}
        gone = {bytes.fromhex(name) for name in (*packs, *history.collected)}
        change = rewrite_indexes(self._repository, (*history.indexes, *own), gone)
        indexes = [name for name in own if name not in change.old] + change.new
        wal = obsolete_wal(self._repository, self._bases)
        objects = {*change.old, *history.forgotten, *litter, *wal, *self._litter} - set(indexes)
        if packs or objects or indexes:
            self._litter += change.new
            self._record({"packs": list(packs), "objects": sorted(objects), "indexes": indexes})
            self._given_up |= objects.union(packs)
            self._litter = []
        self._report.packs_taken += len(packs)
        self._report.bytes_taken += sum(packs.values()) + sum(litter.values()) + sum(wal.values())
        self._report.wal_files += len(wal)
        self._report.packs_kept = len(usage.packs) - len(unused)
        self._report.bytes_unused = sum(use.unused_bytes for use in usage.packs if use.chunks)
        self._taken.update(packs)
        return len(unused) > _ENTRY_PACKS

    def _refuse_own(self) -> None:
        """Begin anew when another prune took what this one stored: it is gone, or soon will be."""
        if self._store is None:
            return
        own = {pack.name.hex() for pack in self._store.new_packs}.union(self._store.new_indexes)
        taken = self._repository.taken_since(self._store.base)
        if taken is None or (taken - self._given_up) & own:
            self._close_store()
            self._store, self._has_rewritten, self._rewritten = None, False, set()
            raise _Stale

    def _record(self, payload: dict[str, list[str]]) -> None:
        def look_again(_entries: Sequence[ChainEntry]) -> None:
            raise _Stale

        self._repository.record("gc-delete", payload, actor=self._actor, look_again=look_again)

    def _unknown(self, usage: Usage) -> Unknown:
        """Return what nothing names, of packs but those that a backup here may take over."""
        repository, history = self._repository, self._repository.history
        packs = [use.pack.name for use in usage.packs] + [bytes.fromhex(name) for name in history.collected]
        if not self._options.every_unknown:
            packs += repository.noted_packs(pending.BACKUPS)
        known = {ref.name for ref in history.manifests.values()}
        known.update(map(pack_name, packs), history.indexes, history.doomed, history.forgotten)
        known.update(self._own_indexes(), self._litter)
        found = find_unknown(repository.storage, known)
        unknown = sort_unknown(
            found, self._first_seen.read(), self._clock.now(), every=self._options.every_unknown
        )
        if usage.lost_chunks and unknown.ripe:
            # One of these packs may hold what snapshots lack.
            unknown = Unknown((), tuple(found))
            self._report.notices.append(
                f"{count_of(usage.lost_chunks, 'chunk')} that snapshots need are in no known pack, so "
                "objects that nothing names were left; repair the repository."
            )
        self._report.objects_waiting = len(unknown.young)
        return unknown

    def _delete(self) -> None:
        safe = self._taken - {name.hex() for name in self._rewritten}
        outcome = delete_collected(
            self._repository, safe, actor=self._actor, reporter=self._reporter, now=self._clock.now()
        )
        self._report.objects_deleted = outcome.deleted
        self._report.objects_left = outcome.left
        self._report.refused = outcome.refused
        self._report.locked = outcome.locked
        self._report.notices += outcome.notices

    def _need_unmoved(self) -> None:
        """Raise `_Stale` when another process committed: what cannot be read may have been moved."""
        before = self._repository.head
        self._repository.refresh()
        if self._repository.head != before:
            raise _Stale

    def _close_store(self) -> None:
        """Stop storing; the next store takes over the packs of this one, its index objects are litter."""
        if self._store is not None:
            self._store.close()
            self._litter += self._own_indexes()

    def _own_packs(self) -> set[bytes]:
        return set() if self._store is None else {pack.name for pack in self._store.new_packs}

    def _own_indexes(self) -> list[str]:
        """Return the index objects this run stored that no entry names yet."""
        history = self._repository.history
        made = [] if self._store is None else self._store.new_indexes
        return [name for name in made if name not in history.indexes and name not in history.doomed]


def _is_pack(info: ObjectInfo) -> bool:
    return info.name.startswith(PACK_PREFIX)


def _digest(info: ObjectInfo) -> str:
    """Return how an entry names a pack."""
    return info.name.rpartition("/")[2]
