"""Restore chosen tables, or rows with all that belongs to them, into a live database.

The plan is the restore itself, taken back; who calls shows it and asks. Then a safety backup of the database
is taken, and the same is done once more and kept: in one transaction, so there is nothing to recover.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.errors import (
    BackupAdminError,
    RestoreRefused,
    SourceMissing,
    UsageError,
    VerificationFailed,
)
from backup_admin.core.shown import count_of, show_moment
from backup_admin.core.telling import telling
from backup_admin.operations.base_backups import refuse_cluster
from backup_admin.operations.captured import iterate_bytes, write_content
from backup_admin.operations.databases import compare_database
from backup_admin.operations.journal import Step, new_journal, refuse_unfinished
from backup_admin.operations.linked_files import check_links, follow_links
from backup_admin.operations.linked_undo import LinkRecord
from backup_admin.operations.pinning import pinned
from backup_admin.operations.planned import planned_manifest
from backup_admin.operations.results import SourceSet
from backup_admin.operations.rows_answers import merge_counts
from backup_admin.operations.rows_plan import KIND, RowsPlan, RowsReport
from backup_admin.operations.rows_undo import (
    commit_rows,
    files_path,
    give_up_rows,
    place_to_json,
    record_path,
    settle_rows,
    undo_until,
)
from backup_admin.operations.safety_backup import Safety, keep_safe, no_backups
from backup_admin.repository.lookup import find_entry
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.sources.sqlite_rows import merge_into_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from backup_admin.core.ids import RestoreId, SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.journal import Journal
    from backup_admin.operations.linked_files import LinkedFiles
    from backup_admin.operations.restore_report import RestoreTools
    from backup_admin.operations.rows_plan import RowsSelection
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, Manifest
    from backup_admin.sources.merging.merge_model import MergeReport
    from backup_admin.sources.merging.merging import TellLink
    from backup_admin.sources.postgres.source import PostgresSource

_WAIT_SECONDS = 600.0
_WAIT_STEP = 1.0
_INCOMPLETE = 3
_COPIES = 2.2


def plan_rows(
    repository: Repository,
    snapshot_id: SnapshotId,
    targets: SourceSet,
    selection: RowsSelection,
    *,
    state: StateFolder,
    reporter: Reporter,
) -> RowsPlan:
    """Do all of it and take it back; say what it was. Nothing live is changed.

    Raises `UsageError` or `RestoreRefused` for what cannot be meant, `SourceError` for a database that is not
    there or does not let us in, `Busy` when others keep the tables
    locked, and what the database or the repository refuses.
    """
    manifest = repository.manifest(snapshot_id)
    run = _Rows(repository, manifest, targets, selection, state)
    reporter.stage("plan")
    with telling("Nothing was touched."):
        _need_place(run.target)
        report, linked = run.merge(dry=True)
    return RowsPlan(
        snapshot_id=snapshot_id,
        manifest_digest=repository.manifest_digest(snapshot_id),
        repo_id=repository.repo_id,
        place=run.place,
        selection=selection,
        report=report,
        linked=linked,
    )


def carry_out_rows(
    plan: RowsPlan,
    repository: Repository,
    targets: SourceSet,
    *,
    restore_id: RestoreId,
    actor: str,
    tools: RestoreTools,
) -> RowsReport:
    """Take a safety backup of the database, then restore the rows into it: all of them or nothing.

    Raises what `plan_rows` does; nothing live was changed then. What linked files lack is in the report.
    """
    manifest = planned_manifest(plan, repository)
    state = tools.state
    run = _Rows(repository, manifest, targets, plan.selection, state, aside=f".before-{restore_id}")
    if run.place != plan.place:
        raise RestoreRefused("The plan was made for another place; plan again. Nothing was touched.")
    if (ended := end_at_once(plan, restore_id)) is not None:
        return ended
    pin = pinned(repository, plan.snapshot_id, actor=actor, clock=tools.clock, warn=tools.reporter.warn)
    with state.lock("restore"), pin:
        refuse_unfinished(state, tools.clock)
        journal = new_journal(state, restore_id, tools.clock)
        journal.write(
            Step.PLANNED,
            plan=plan.to_json(),
            actor=actor,
            digest=plan.digest,
            undo_hours=tools.undo_hours,
            place=place_to_json(run.target, restore_id, state),
        )
        return _carry_out(plan, run, journal, repository, tools)


def _carry_out(
    plan: RowsPlan, run: _Rows, journal: Journal, repository: Repository, tools: RestoreTools
) -> RowsReport:
    """Do it, with its journal begun; however that ends, the journal says how."""
    restore_id = journal.restore_id
    kept = Safety("", (), {})
    try:
        with no_backups(tools):
            tools.reporter.stage("safety_backup")
            actor = str((journal.find(Step.PLANNED) or {})["actor"])
            sources = _sources(run.target)
            kept = keep_safe(repository, sources, restore_id=restore_id, actor=actor, tools=tools)
            journal.write(Step.SAFETY_BACKUP, snapshot=kept.snapshot, usable={})
            tools.reporter.check_cancelled()
            tools.reporter.stage("swap")
            journal.write(Step.SWAPPING, kind=KIND, name=plan.selection.database)
            report, linked = run.merge(dry=False, restore_id=restore_id)
            if report.is_refused:
                give_up_rows(journal, tools.state, _why_refused(report))
            else:
                until = commit_rows(journal, tools.clock, _done(report))
    except BaseException as error:
        if not (_stands(journal, run, tools, error) and isinstance(error, Exception)):
            raise
        return _interrupted(plan, journal, kept, error)
    if report.is_refused:
        return RowsReport(
            restore_id, "refused", _why_refused(report), report, (), kept.snapshot, kept.notices, exit_code=1
        )
    return RowsReport(
        restore_id,
        "restored",
        f"Restored from the backup of {show_moment(run.day)} into {plan.place}.",
        report,
        linked,
        kept.snapshot,
        kept.notices,
        exit_code=_code_of(linked),
        undo_until=until,
    )


def _stands(journal: Journal, run: _Rows, tools: RestoreTools, error: BaseException) -> bool:
    """Say whether the rows are there all the same; where that cannot be asked now, recovery will."""
    if journal.finished:
        return journal.step is Step.COMMITTED
    servers = () if isinstance(run.target, SqliteSource) else (run.target,)
    try:
        return settle_rows(journal, tools.state, servers, tools.clock, str(error))
    except (BackupAdminError, OSError):
        return False


def _interrupted(plan: RowsPlan, journal: Journal, kept: Safety, error: Exception) -> RowsReport:
    return RowsReport(
        journal.restore_id,
        "restored",
        f"The rows are restored into {plan.place}, but what follows them may be missing: {error}",
        plan.report,
        (),
        kept.snapshot,
        kept.notices,
        exit_code=_INCOMPLETE,
        undo_until=undo_until(journal),
    )


def _done(report: MergeReport) -> list[tuple[str, str]]:
    return [(table.table, merge_counts(table)) for table in report.tables if table.changes]


def end_at_once(plan: RowsPlan, restore_id: RestoreId) -> RowsReport | None:
    """Return how it ends when nothing is to be done: it is refused, or all is there; None else."""
    if plan.report.is_refused:
        return RowsReport(restore_id, "refused", _why_refused(plan.report), plan.report, exit_code=1)
    if plan.is_empty:
        message = _why_nothing(plan.report)
        code = _code_of(plan.linked)
        return RowsReport(restore_id, "nothing_to_do", message, plan.report, plan.linked, exit_code=code)
    return None


class _Rows:
    """The database of a snapshot, its live place, and what is wanted of it."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        targets: SourceSet,
        selection: RowsSelection,
        state: StateFolder,
        aside: str = "",
    ) -> None:
        self._reader: ChunkReader = repository.reader()
        self._manifest = manifest
        self._targets = targets
        self._selection = selection
        self._state = state
        self._aside = aside
        self._entry = _entry_of(manifest, selection.database)
        self.target = _target_of(targets, selection.database, self._entry)
        check_links(manifest, selection.links, targets)

    @property
    def place(self) -> str:
        """Where the database is, as people write it."""
        if isinstance(self.target, SqliteSource):
            return str(self.target.path.resolve())
        return self.target.address.label

    @property
    def day(self) -> datetime:
        """When the backup was made."""
        return self._manifest.snapshot.created_at

    def merge(self, *, dry: bool, restore_id: str = "") -> tuple[MergeReport, tuple[LinkedFiles, ...]]:
        """Restore the rows and their files, or take the rows back and only count the files.

        In earnest, what an undo needs is kept under the id of the restore.
        """
        self._need_room()
        with TemporaryDirectory(prefix="rows-", dir=self._state.scratch) as folder:
            told = Path(folder) / "told"
            with told.open("x", encoding="ascii") as file:

                def tell_link(number: int, path: str) -> None:
                    file.write(json.dumps([number, path]) + "\n")

                record = record_path(self._state, restore_id) if restore_id else None
                report = self._merge_rows(Path(folder), tell_link, record, dry=dry)
            linked: tuple[LinkedFiles, ...] = ()
            if not report.is_refused:
                linked = follow_links(
                    told,
                    self._selection.links,
                    self._manifest,
                    self._targets,
                    self._reader,
                    dry=dry,
                    overwrite=self._selection.on_conflict is OnConflict.OVERWRITE,
                    aside=self._aside,
                    record=LinkRecord(files_path(self._state, restore_id)) if restore_id else None,
                )
        return report, linked

    def _need_room(self) -> None:
        """Refuse before a disk fills up: a SQLite database is put together, and its rows beside it."""
        if isinstance(self.target, SqliteSource):
            found = os.statvfs(self._state.scratch)
            room, needed = found.f_bavail * found.f_frsize, self._entry.content.size * _COPIES
            if room < needed:
                raise RestoreRefused(
                    f"The state folder has {room / 1e6:.0f} MB free and {needed / 1e6:.0f} MB are needed. "
                    "Nothing was touched. Name another with --state-dir."
                )

    def _merge_rows(
        self, folder: Path, tell_link: TellLink, record: Path | None, *, dry: bool
    ) -> MergeReport:
        request = self._selection.request()
        if isinstance(self.target, SqliteSource):
            copy = folder / "snapshot.db"
            write_content(self._reader, self._entry.content, copy)
            wrong = [line for line in compare_database(self._entry, copy) if not line.ok]
            if wrong:
                raise VerificationFailed(f"{wrong[0].topic}: {wrong[0].found}. Nothing live was touched.")
            live = self.target.path
            return merge_into_sqlite(copy, live, request, dry=dry, tell_link=tell_link, record=record)
        from backup_admin.sources.postgres.merge_rows import (  # noqa: PLC0415 - needs psycopg
            CapturedParts,
            merge_into_postgres,
        )

        parts = CapturedParts(
            b"".join(iterate_bytes(self._reader, self._entry.content)),
            partial(_read_part, self._reader, self._entry),
        )
        address = self.target.address
        return merge_into_postgres(address, parts, request, dry=dry, tell_link=tell_link, record=record)


def _read_part(reader: ChunkReader, entry: DatabaseEntry, name: str) -> Iterator[memoryview]:
    found = None if entry.tree is None else find_entry(reader, entry.tree, name.encode())
    if found is None or found.content is None:
        raise RestoreRefused(f"The snapshot lacks {name} of {entry.name}. Nothing was touched.")
    return iterate_bytes(reader, found.content)


def _entry_of(manifest: Manifest, name: str) -> DatabaseEntry:
    entry = manifest.database(name)
    if entry is None:
        known = ", ".join(one.name for one in manifest.databases) or "none"
        raise UsageError(f"The snapshot has no database {name!r}; it has {known}.")
    refuse_cluster(entry)
    return entry


def _target_of(targets: SourceSet, name: str, entry: DatabaseEntry) -> SqliteSource | PostgresSource:
    wanted = targets.databases if entry.tree is None else targets.postgres
    for target in wanted:
        if target.name == name:
            return target
    option = "--sqlite NAME=FILE" if entry.tree is None else "--postgres NAME=ADDRESS"
    raise UsageError(
        f"The database {name!r} of the snapshot is {entry.engine}: say where the live one is with {option}. "
        "Nothing was touched."
    )


def _need_place(target: SqliteSource | PostgresSource) -> None:
    """Refuse a file that is not there, before anything is read from the backup."""
    if isinstance(target, SqliteSource) and not os.path.lexists(target.path):
        raise SourceMissing(
            f"{target.path} is not there. Nothing was touched. Tables and rows go only into a database that "
            "is there: check the path, or restore the whole database first."
        )


def _sources(target: SqliteSource | PostgresSource) -> SourceSet:
    if isinstance(target, SqliteSource):
        return SourceSet(databases=(target,))
    return SourceSet(postgres=(target,))


def _why_refused(report: MergeReport) -> str:
    reasons = count_of(len(report.clashes) + len(report.refusals), "reason")
    return f"It cannot be restored as asked, for {reasons}. Nothing live was changed."


def _why_nothing(report: MergeReport) -> str:
    different = sum(table.skip for table in report.tables)
    if not different:
        return "All of it is live already. Nothing was touched."
    return (
        f"Of {count_of(different, 'row')} something else is live, and stays; no other is missing. "
        "Nothing was touched. To write over them: --on-conflict overwrite."
    )


def _code_of(linked: tuple[LinkedFiles, ...]) -> int:
    return _INCOMPLETE if any(one.problems for one in linked) else 0
