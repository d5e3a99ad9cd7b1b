"""Mirrors: the same repository in a second storage, kept by copying objects.

Visible last, as everywhere: a mirror that is interrupted is the repository as it was before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import ChainConflict, StorageDenied
from backup_admin.core.ids import new_ulid
from backup_admin.core.shown import count_of
from backup_admin.operations.mirror_copy import Copier, put_same
from backup_admin.operations.mirror_place import prove_apart
from backup_admin.operations.mirror_plan import MirrorPlan, is_moved, plan_mirror
from backup_admin.operations.object_kinds import kind_of
from backup_admin.repository import chain, config
from backup_admin.repository.seen import is_noted, note_mirror
from backup_admin.storage import probe

if TYPE_CHECKING:
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.storage.base import ObjectInfo, Storage

_ROUNDS = 10
_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """What is not as usual: `keep_removed` deletes nothing, `read_back` reads each copied pack again.

    `remove_all` deletes also what the new entries of the history cannot account for.
    """

    keep_removed: bool = False
    read_back: bool = False
    remove_all: bool = False


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """What was done. `kept` are objects of the mirror alone, which were left there."""

    objects: int
    bytes_copied: int
    entries_behind: int
    head_seq: int
    deleted: int
    kept: int = 0
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the mirror holds all that the source holds, soundly."""
        return not self.problems


def mirror(
    source: Storage,
    target: Storage,
    plan: MirrorPlan,
    *,
    reporter: Reporter,
    state: StateFolder | None = None,
    options: MirrorOptions = MirrorOptions(),
) -> MirrorReport:
    """Bring a mirror up to date: objects first, then the chain, then what makes it a repository.

    Safe to interrupt anywhere and to repeat. When the source goes on meanwhile, it is planned anew. An
    object that is damaged in the source is named and not copied; the chain then stays as it
    is, since nobody without a key can tell which commit needs what. Raises `ChainConflict`
    when the source does not rest, `UsageError` when both are one place, and whatever the storages raise.

    The state folder remembers which storage is the mirror: there it may be behind, and a restore
    from it commits nothing.
    """
    work = _Mirroring(source, target, reporter, options)
    if state is not None:
        if plan.in_sync and not is_noted(state.heads, plan.repo_id, target.label):
            prove_apart(source, target)  # every place is in sync with itself, under whatever name
        note_mirror(state.heads, plan.repo_id, source=source.label, mirror=target.label)
    if plan.is_first:
        _prepare(target)
    before = plan.mirror_head
    for _ in range(_ROUNDS):
        rests = work.copy_objects(plan.objects)
        if work.problems or (rests and not is_moved(source, plan)):
            break
        plan = plan_mirror(source, target)
    else:
        raise ChainConflict(
            f"{source.label} kept changing. What was copied stays, and {target.label} is as it was before; "
            "run it again."
        )
    head = before if work.problems else work.copy_chain(plan)
    if not work.problems:
        work.finish(plan)
    return work.report(plan, before, head)


def why_kept(plan: MirrorPlan, source: Storage, target: Storage, options: MirrorOptions) -> str:
    """Return why what the source has no more must stay in the mirror; empty when it may go."""
    what = f"{count_of(len(plan.gone), 'object')} of {target.label} are gone from {source.label}"
    if not plan.gone or options.keep_removed:
        return ""
    if plan.emptied:
        nothing = f"which has nothing below {' and '.join(plan.emptied)} any more"
        return f"{what}, {nothing}. Nothing is removed from the mirror; it may be all that is left."
    if not plan.accounts_for_gone and not options.remove_all:
        return (
            f"{what}, and what was committed since the last mirror does not account for that. Nothing is "
            "removed from the mirror. `check` of the source tells whether something is lost; when it is "
            "sound, remove them with --remove-all."
        )
    return ""


def _prepare(target: Storage) -> None:
    """Make the place and try it out; clear what earlier trials left."""
    probe.probe_storage(target, new_ulid(SystemClock().now()))
    for info in list(target.list_objects(probe.PREFIX)):
        if probe.is_left_probe(target, info.name):
            target.delete(info.name)


class _Mirroring:
    def __init__(self, source: Storage, target: Storage, reporter: Reporter, options: MirrorOptions) -> None:
        self._source = source
        self._target = target
        self._reporter = reporter
        self._options = options
        self._copier = Copier(source, target, reporter, read_back=options.read_back)
        self._deleted = self._kept = 0
        self._is_finished = False
        self.problems = self._copier.problems

    def copy_objects(self, objects: tuple[ObjectInfo, ...]) -> bool:
        """Copy objects, some at a time; return False when one is not there any more.

        Each kind is stored whole before the next one, which may refer to it.
        """
        self._begin("mirror", objects)
        rests = True
        for _, some in groupby(objects, key=lambda info: kind_of(info.name)):
            rests = self._copier.copy_all(some) and rests
        return rests

    def copy_chain(self, plan: MirrorPlan) -> int:
        """Copy entries of the chain; return the number of the newest one the mirror has then.

        In order, since each is a commit; where no repository is yet, none is.
        """
        self._begin("history", plan.entries)
        if plan.is_first:
            if not self._copier.copy_all(plan.entries):
                self._note_missing("An entry")
            return 0 if self.problems else plan.head
        head = plan.mirror_head
        for info in plan.entries:
            if not self._copier.copy(info):
                self._note_missing(info.name)
            if self.problems:
                return head
            head = max(head, int(info.name.removeprefix(chain.PREFIX)))
        return head

    def finish(self, plan: MirrorPlan) -> None:
        """Make a new mirror real, and delete what the source deleted."""
        if plan.is_first:
            put_same(self._target, self._source.label, config.NAME, plan.config)
        self._is_finished = True
        doubt = why_kept(plan, self._source, self._target, self._options)
        if doubt or self._options.keep_removed:
            self._kept = len(plan.gone)
            self.problems += [doubt] if doubt else []
        else:
            self._remove(plan.gone)

    def report(self, plan: MirrorPlan, before: int, head: int) -> MirrorReport:
        """Say what was done."""
        if not self._is_finished:
            self.problems.append(self._where_it_stands(plan, head))
        if plan.hole:
            self.problems.append(
                f"{plan.hole} is missing from {self._source.label}, and later entries are there; the mirror "
                "had got that far before. Look with `check`."
            )
        return MirrorReport(
            self._copier.objects,
            self._copier.bytes,
            max(0, plan.head - before),
            head,
            self._deleted,
            self._kept,
            tuple(self.problems),
        )

    def _note_missing(self, entry: str) -> None:
        self.problems.append(f"{entry} is missing from {self._source.label}; its history ends there.")

    def _where_it_stands(self, plan: MirrorPlan, head: int) -> str:
        stands = "is no repository yet"
        if not plan.is_first:
            stands = f"stays at entry {head:,} of {plan.head:,}: it opens and restores as it did then"
        return (
            f"{self._target.label} {stands}. Mend the source with `repair`, let `prune` delete what is "
            "damaged, and mirror again."
        )

    def _remove(self, gone: tuple[ObjectInfo, ...]) -> None:
        """Delete objects; give up when the storage refuses again and again and never agrees."""
        self._begin("remove", gone)
        refusals: list[StorageDenied] = []
        for info in gone:
            self._reporter.check_cancelled()
            try:
                self._target.delete(info.name)
                self._deleted += 1
            except StorageDenied as error:
                refusals.append(error)
            if len(refusals) >= _REFUSALS and not self._deleted:
                break
            self._reporter.advance(size=info.size, items=1)
        self._kept = len(gone) - self._deleted
        if refusals:
            stay = count_of(self._kept, "object")
            self.problems.append(f"{stay} that the source has no more cannot be deleted: {refusals[0]}")

    def _begin(self, stage: str, objects: tuple[ObjectInfo, ...]) -> None:
        if objects:
            size = sum(info.size for info in objects)
            self._reporter.stage(stage, total_bytes=size, total_items=len(objects))
