"""Carry out a restore in place: stage, verify, stop writers, keep, swap, verify.

Each step is in the journal, on disk, before it is done. A failure before the
last swap puts everything back; after a crash `recover` finishes or undoes.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.clock import format_time
from backup_admin.core.errors import (
    BackupAdminError,
    Busy,
    NotExchanged,
    RestoreRefused,
    SourceError,
    VerificationFailed,
)
from backup_admin.core.shown import count_of, show_moment
from backup_admin.operations import restore_parts as parts
from backup_admin.operations import tree_swap
from backup_admin.operations.databases import CheckLine
from backup_admin.operations.journal import Journal, Step, new_journal, refuse_unfinished
from backup_admin.operations.maintenance import close, reopen
from backup_admin.operations.on_disk import compare_tree
from backup_admin.operations.pinning import pinned
from backup_admin.operations.planned import planned_manifest
from backup_admin.operations.postgres_part import PostgresPart
from backup_admin.operations.put_back import ended, put_back, tell_kept
from backup_admin.operations.restore_report import RestoreReport, RestoreTools
from backup_admin.operations.results import SourceSet
from backup_admin.operations.safety_backup import keep_what_can_be, no_backups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from backup_admin.core.ids import RestoreId
    from backup_admin.operations.plans import DatabasePart, RestorePlan
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FileEntry, FilesRoot, Manifest
    from backup_admin.sources.files import FileSource


def carry_out(
    plan: RestorePlan,
    repository: Repository,
    targets: SourceSet,
    *,
    restore_id: RestoreId,
    actor: str,
    tools: RestoreTools,
) -> RestoreReport:
    """Restore onto the live targets, or leave them as they were.

    Raises `Busy` when another restore is under way, and `RestoreRefused` when the
    plan no longer fits the repository; everything later ends in the report.
    """
    manifest = planned_manifest(plan, repository)
    _check_places(plan, targets)
    tools = replace(tools, hooks=replace(tools.hooks, servers=targets.postgres))
    state = tools.state
    pin = pinned(repository, plan.snapshot_id, actor=actor, clock=tools.clock, warn=tools.reporter.warn)
    with state.lock("restore"), pin:
        refuse_unfinished(state, tools.clock)
        journal = new_journal(state, restore_id, tools.clock)
        journal.write(
            Step.PLANNED, plan=plan.to_json(), actor=actor, digest=plan.digest, undo_hours=tools.undo_hours
        )
        run = _Restore(plan, manifest, repository, targets, journal, tools)
        try:
            return run.carry_out()
        except BaseException as error:
            if journal.has(Step.COMMITTED):  # writers may be in already: nothing is taken back
                if not isinstance(error, Exception):
                    raise
                return run.report(
                    f"Restored, but writers could not be let in: {error} Mend that, then run "
                    "`backup-admin recover`.",
                    exit_code=1,
                )
            outcome, message = put_back(journal, state, tools.hooks, reason=str(error))
            known = _disk_error(error) if isinstance(error, OSError) else error
            if not isinstance(known, BackupAdminError):
                raise
            return RestoreReport(
                restore_id,
                outcome,
                ended(known, message),
                tuple(run.checks),
                run.safety_snapshot,
                error_code=known.code,
                exit_code=known.exit_code,
            )


class _Restore:
    """One restore from plan to report."""

    def __init__(
        self,
        plan: RestorePlan,
        manifest: Manifest,
        repository: Repository,
        targets: SourceSet,
        journal: Journal,
        tools: RestoreTools,
    ) -> None:
        self._plan = plan
        self._manifest = manifest
        self._repository = repository
        self._targets = targets
        self._journal = journal
        self._tools = tools
        self._hooks = tools.hooks
        self._state = tools.state
        self._reporter = tools.reporter
        self._clock = tools.clock
        self._undo_hours = tools.undo_hours
        restore_id = journal.restore_id
        self._trees = [parts.tree_part(part.name, part.root, restore_id) for part in plan.files]
        self._databases = [self._database_part(part) for part in plan.databases]
        self.checks: list[CheckLine] = []
        self.notices: list[str] = []
        self.safety_snapshot = ""
        self._undo_until: datetime | None = None

    def carry_out(self) -> RestoreReport:
        self._stage()
        self._verify_staged()
        with no_backups(self._tools):
            self._quiesce()
            self._take_safety_backup()
            self._swap()
            self._check()
        return self._commit()

    def _stage(self) -> None:
        everything: list[parts.Part] = [*self._trees, *self._databases]
        self._journal.write(Step.STAGING, parts=[part.to_json() for part in everything])
        self._reporter.stage("stage", total_bytes=self._plan.size)
        for part in everything:
            parts.make_work_folder(part)
        reader = self._repository.reader()
        for database in self._databases:
            self._reporter.check_cancelled()
            entry = self._database_entry(database.name)
            self._reporter.advance(current=database.name)
            self.notices += database.stage(entry, self._repository, self._reporter)
            self._reporter.advance(items=1)
        for tree in self._trees:
            self._reporter.advance(current=tree.name)
            parts.stage_tree(tree, self._root(tree.name), self._entries(tree.name), reader, self._reporter)
        self._journal.write(Step.STAGED)

    def _verify_staged(self) -> None:
        self._reporter.stage("verify", total_bytes=sum(part.size for part in self._plan.files))
        for tree in self._trees:
            count = parts.verify_staged_tree(tree, self._entries(tree.name), self._reporter)
            expected = count_of(self._root(tree.name).file_count, "file")
            self.checks.append(
                CheckLine(
                    f"{tree.name}: bytes of every file",
                    expected,
                    f"{count_of(count, 'file')} compared",
                    ok=True,
                )
            )
        self._journal.write(Step.VERIFIED)

    def _quiesce(self) -> None:
        self._reporter.check_cancelled()
        self._reporter.stage("maintenance")
        self._journal.write(Step.QUIESCING)
        close(self._state, self._journal.restore_id, self._hooks.maintenance)
        self._clock.sleep(self._hooks.drain_seconds)

    def _take_safety_backup(self) -> None:
        self._reporter.stage("safety_backup")
        safety = keep_what_can_be(
            self._repository,
            self._selected_targets(),
            self._databases,
            restore_id=self._journal.restore_id,
            actor=str((self._journal.find(Step.PLANNED) or {}).get("actor", "")),
            tools=self._tools,
        )
        self.safety_snapshot = safety.snapshot
        self.notices += safety.notices
        folders, databases = safety.absent.files, safety.absent.database_names()
        absent = [part.to_json() for part in self._trees if part.name in {one.name for one in folders}]
        absent += [part.to_json() for part in self._databases if part.name in databases]
        self._journal.write(
            Step.SAFETY_BACKUP,
            snapshot=safety.snapshot,
            usable=safety.usable,
            absent=[[part["kind"], part["name"]] for part in absent],
        )

    def _swap(self) -> None:
        self._reporter.check_cancelled()
        self._reporter.stage("swap", total_items=len(self._trees) + len(self._databases))
        usable = (self._journal.find(Step.SAFETY_BACKUP) or {})["usable"]
        for database in self._databases:
            self._swap_database(database, usable=usable[database.name])
            self._journal.write(Step.SWAPPED, name=database.name, kind=parts.kind_of(database))
            self._reporter.advance(items=1, current=database.name)
        for tree in self._trees:
            source = self._tree_target(tree.name)
            planned = tree_swap.plan_tree(tree, source, self._root(tree.name), self._entries(tree.name))
            written = tree_swap.tree_swap_to_json(planned)
            self._journal.write(Step.SWAPPING, name=tree.name, kind="files", **written)
            tree_swap.swap_tree(tree, planned)
            self._journal.write(Step.SWAPPED, name=tree.name, kind="files")
            self._reporter.advance(items=1, current=tree.name)
        self._journal.write(Step.ALL_SWAPPED)

    def _swap_database(self, database: parts.DatabasePart, *, usable: bool) -> None:
        kind = parts.kind_of(database)
        self._journal.write(Step.SWAPPING, name=database.name, kind=kind)
        try:
            database.swap(live_usable=usable)
        except (Busy, NotExchanged):
            if usable:  # all or nothing: no content was exchanged, so none has to go back
                self._journal.write(Step.NOT_SWAPPED, name=database.name, kind=kind)
            raise

    def _check(self) -> None:
        self._reporter.stage("check")
        for database in self._databases:
            entry = self._database_entry(database.name)
            self.checks += database.check_live(entry, self._state.scratch)
        for tree in self._trees:
            self.checks.append(self._check_tree(tree))
        for name, check in self._hooks.checks:
            found = check()
            self.checks.append(CheckLine(name, "ok", found, found == "ok"))
        wrong = [line for line in self.checks if not line.ok]
        self._journal.write(Step.CHECKED, checks=[asdict(line) for line in self.checks])
        if wrong:
            raise VerificationFailed(
                f"After the swap {count_of(len(wrong), 'check')} failed, the first: "
                f"{wrong[0].topic}: {wrong[0].found}."
            )

    def _commit(self) -> RestoreReport:
        self._reporter.stage("reopen")
        self._undo_until = self._clock.now() + timedelta(hours=self._undo_hours)
        self._journal.write(
            Step.COMMITTED,
            undo_until=format_time(self._undo_until),
            safety=self.safety_snapshot,
            notices=self.notices,
        )
        reopen(self._state, self._hooks.maintenance)
        for database in self._databases:
            database.forget_staged()
        usable = (self._journal.find(Step.SAFETY_BACKUP) or {})["usable"]
        servers = [part for part in self._databases if isinstance(part, PostgresPart) and usable[part.name]]
        told = tell_kept("now", [place for part in servers if (place := part.old_place())], self._undo_until)
        day = show_moment(self._manifest.snapshot.created_at)
        return self.report(f"Restored from the backup of {day}. {told}".strip())

    def report(self, message: str, *, exit_code: int = 0) -> RestoreReport:
        """Say how a committed restore ended."""
        return RestoreReport(
            self._journal.restore_id,
            "restored",
            message,
            tuple(self.checks),
            self.safety_snapshot,
            self._undo_until,
            tuple(self.notices),
            exit_code=exit_code,
        )

    def _check_tree(self, tree: parts.TreePart) -> CheckLine:
        root = self._root(tree.name)
        expected = f"{count_of(root.file_count, 'file')}, kinds, sizes, modes and times"
        count, problems = compare_tree(
            self._tree_target(tree.name), self._entries(tree.name), content=False, reporter=self._reporter
        )
        found = problems[0] if problems else f"{count_of(count, 'file')}, all as it should be"
        return CheckLine(f"{tree.name}: files", expected, found, not problems)

    def _selected_targets(self) -> SourceSet:
        names = {database.name for database in self._databases}
        return SourceSet(
            tuple(self._tree_target(tree.name) for tree in self._trees),
            tuple(one for one in self._targets.databases if one.name in names),
            tuple(one for one in self._targets.postgres if one.name in names),
        )

    def _entries(self, name: str) -> Iterator[FileEntry]:
        return self._repository.entries(self._root(name))

    def _root(self, name: str) -> FilesRoot:
        root = self._manifest.files_root(name)
        if root is None:
            raise RestoreRefused(f"The snapshot has no folder {name!r}. Nothing was touched.")
        return root

    def _database_entry(self, name: str) -> DatabaseEntry:
        entry = self._manifest.database(name)
        if entry is None:
            raise RestoreRefused(f"The snapshot has no database {name!r}. Nothing was touched.")
        return entry

    def _database_part(self, part: DatabasePart) -> parts.DatabasePart:
        restore_id = self._journal.restore_id
        server = next((one for one in self._targets.postgres if one.name == part.name), None)
        if server is not None:
            return parts.postgres_part(server, part.way, restore_id, self._state)
        return parts.sqlite_part(part.name, part.path, restore_id)

    def _tree_target(self, name: str) -> FileSource:
        return next(source for source in self._targets.files if source.name == name)


def _disk_error(error: OSError) -> SourceError:
    """Say what the disk of the live places or of the state folder refused."""
    return SourceError(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")


def _check_places(plan: RestorePlan, targets: SourceSet) -> None:
    """Refuse a plan whose places are no longer those that are configured."""
    places = {source.name: str(source.root.resolve()) for source in targets.files}
    databases = {source.name: str(source.path.resolve()) for source in targets.databases}
    databases |= {source.name: source.address.label for source in targets.postgres}
    wrong = [part.name for part in plan.files if places.get(part.name) != part.root]
    wrong += [part.name for part in plan.databases if databases.get(part.name) != part.path]
    if wrong:
        raise RestoreRefused(
            f"The plan was made for another place of {wrong[0]}; plan again. Nothing was touched."
        )
