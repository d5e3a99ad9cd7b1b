"""Carry out a repair: save what can be saved, list what is whole, take off the books what is not.

Nothing is deleted. Everything new is stored and read back first; then one entry of
the chain makes it real. Whatever ends a repair before leaves objects nobody refers to.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.errors import (
    ChainConflict,
    NotARepository,
    ObjectMissing,
    StorageError,
    StorageUnavailable,
    VerificationFailed,
)
from backup_admin.core.shown import count_of, show_size
from backup_admin.operations.backup import back_up_locked
from backup_admin.operations.read_back import read_back
from backup_admin.operations.repair import Finder, RepairPlan, read_contents, without_packs
from backup_admin.operations.results import BackupOptions, SourceSet
from backup_admin.operations.salvage import sound_chunks
from backup_admin.repository import config
from backup_admin.repository.index import Index
from backup_admin.repository.packs import Method, pack_name
from backup_admin.repository.pending import whole_packs
from backup_admin.repository.store import put_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.history import ChainEntry
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.store import ChunkStore

QUARANTINE = "quarantine/"
_NOTES = "pending-repair"
_MOST_PACKS = 20_000
_ROUNDS = 4
_HARMLESS = frozenset(["pin", "unpin", "gc-begin", "checkpoint"])


class Overtaken(ChainConflict):
    """Others committed while a repair was prepared: what is damaged has to be looked at anew."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair found, what it did, and what it left: the last look is the proof."""

    found: RepairPlan
    left: RepairPlan
    done: tuple[str, ...] = ()
    snapshot: str = ""

    @property
    def ok(self) -> bool:
        """Whether every snapshot is whole."""
        return not self.left.damaged


def repair(
    repository: Repository,
    sources: SourceSet,
    *,
    actor: str,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> RepairReport:
    """Mend what can be mended; safe to interrupt and to repeat.

    With sources, and while a snapshot is damaged, they are backed up: whatever
    they still hold is stored again, and older snapshots find it. Raises `Busy`,
    `HistoryChanged` or `StorageError`.
    """
    repository.require_history()
    with state.lock("backup"):
        run = _Repair(repository, Finder(repository, state.scratch, reporter), actor, state, reporter)
        run.mend()
        if run.plan.damaged and (sources.files or sources.databases):
            options = BackupOptions(label="repair", actor=actor)
            made = back_up_locked(
                repository, sources, options=options, state=state, reporter=reporter, clock=clock
            )
            run.done.append(
                f"Snapshot {made.snapshot.id} was made of the sources ({show_size(made.new_bytes)} new)."
            )
            run.plan = run.finder.find()
            run.mend()
            return RepairReport(run.found, run.plan, tuple(run.done), made.snapshot.id)
    return RepairReport(run.found, run.plan, tuple(run.done))


class _Repair:
    def __init__(
        self, repository: Repository, finder: Finder, actor: str, state: StateFolder, reporter: Reporter
    ) -> None:
        self._repository = repository
        self._actor = actor
        self._scratch = state.scratch
        self._reporter = reporter
        self.finder = finder
        self.found = self.plan = finder.find()
        self.done: list[str] = []

    def mend(self) -> None:
        """Carry plans out until there is nothing left to do."""
        for _ in range(_ROUNDS):
            if not self.plan.is_needed:
                return
            self._reporter.check_cancelled()
            with suppress(Overtaken):
                self.done += carry_out(
                    self._repository,
                    self.plan,
                    actor=self._actor,
                    scratch=self._scratch,
                    reporter=self._reporter,
                )
            self.plan = self.finder.find()
        if self.plan.is_needed:
            raise ChainConflict(f"Other processes kept changing {self._repository.label}; run repair again.")


def carry_out(
    repository: Repository, plan: RepairPlan, *, actor: str, scratch: Path, reporter: Reporter
) -> list[str]:
    """Do what a plan says and return it as sentences; raise `Overtaken` when it does not stand."""
    if repository.storage.stat(config.NAME) is None:
        raise NotARepository(f"{repository.label} is not there any more; nothing was changed.")
    copied = _quarantine(repository, plan, reporter)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="repair-", dir=scratch))
        indexes = _rewrite_indexes(repository, plan)
        index = Index(repository.storage, repository.keys, Path(folder))
        index.load([*plan.sound_indexes, *indexes], repository.history.collected)
        store = repository.store_for(index, _NOTES)
        stack.callback(store.close)
        saved = _fill(repository, plan, store, reporter)
        store.finish()
        read_back(repository, store, reporter=reporter)
        _record(repository, plan, [*indexes, *store.new_indexes], actor)
        store.forget_pending()
    return _sentences(plan, copied, saved)


def _quarantine(repository: Repository, plan: RepairPlan, reporter: Reporter) -> int:
    """Copy what is damaged to a name of its own, where no prune deletes it."""
    names = [pack_name(pack.info.name) for pack in plan.bad if pack.is_there] + list(plan.lost_indexes)
    reporter.stage("quarantine", total_items=len(names))
    copied = 0
    for name in names:
        reporter.check_cancelled()
        try:
            data = repository.storage.get(name)
        except StorageUnavailable:
            raise
        except (ObjectMissing, StorageError):
            continue  # nothing is there that could be kept
        repository.storage.put(QUARANTINE + name, data)
        copied += 1
        reporter.advance(items=1)
    return copied


def _rewrite_indexes(repository: Repository, plan: RepairPlan) -> list[str]:
    """Store each index object that lists bad packs anew, without them, and read it back."""
    unwanted = {pack.info.name for pack in plan.bad} | set(map(bytes.fromhex, repository.history.collected))
    names = []
    for stale in plan.stale:
        rewritten = without_packs(repository.keys, repository.storage.get(stale), stale, unwanted)
        if rewritten is None:
            continue
        name, data = rewritten
        put_object(repository.storage, name, data)
        if repository.storage.get(name) != data:
            raise VerificationFailed(f"{name} is not what was written. Nothing was taken off the books.")
        names.append(name)
    return names


def _fill(repository: Repository, plan: RepairPlan, store: ChunkStore, reporter: Reporter) -> int:
    """List whole packs and store what can be saved of the others; return how many chunks."""
    keys, storage = repository.keys, repository.storage
    store.adopt(whole_packs(storage, keys, plan.adopted))
    writer = store.writer()
    saved = 0
    reporter.stage("save", total_items=len(plan.bad) + len(plan.returned))
    parts = [(pack.info, pack.frames) for pack in plan.bad if pack.saved]
    parts += [part for name in plan.returned if (part := read_contents(repository, name)) is not None]
    for info, frames in parts:
        reporter.check_cancelled()
        methods = {span.id: frame.method for frame in frames for span in frame.spans}
        for chunk in sound_chunks(storage, keys, info, frames):
            writer.put(chunk.kind, chunk.data, compress=methods[chunk.id] == Method.ZSTD)
            saved += 1
        reporter.advance(items=1)
    return saved


def _record(repository: Repository, plan: RepairPlan, indexes: Sequence[str], actor: str) -> None:
    """Append the entry that makes the repair real; lists too long for one go into more."""
    bad = [pack.info.name.hex() for pack in plan.bad]
    payload = {
        "packs": bad[:_MOST_PACKS],
        "objects": [*plan.lost_indexes, *plan.stale],
        "indexes": list(indexes),
        "damaged": sorted(plan.damaged),
    }
    repository.record("gc-delete", payload, actor=actor, look_again=_refuse_overtaken)
    for at in range(_MOST_PACKS, len(bad), _MOST_PACKS):
        rest = {"packs": bad[at : at + _MOST_PACKS], "objects": [], "indexes": []}
        repository.record("gc-delete", rest, actor=actor)


def _refuse_overtaken(entries: Sequence[ChainEntry]) -> None:
    if any(entry.op not in _HARMLESS for entry in entries):
        raise Overtaken("Others committed meanwhile; the repair looks again.")


def _sentences(plan: RepairPlan, copied: int, saved: int) -> list[str]:
    done = []
    if copied:
        done.append(f"{count_of(copied, 'damaged object')} copied to {QUARANTINE}.")
    if plan.bad:
        done.append(f"{count_of(len(plan.bad), 'damaged or missing pack')} taken off the books.")
    if plan.lost_indexes:
        done.append(f"{count_of(len(plan.lost_indexes), 'index object')} made again from the packs.")
    if plan.adopted:
        done.append(f"{count_of(len(plan.adopted), 'whole pack')} listed again.")
    if plan.returned:
        done.append(f"What {count_of(len(plan.returned), 'returned pack')} held was stored anew.")
    if saved and plan.bad:
        done.append(
            f"{count_of(saved, 'sound chunk')} of damaged packs looked at and stored anew where needed."
        )
    return done
