"""A restore of tables or rows in its journal: how it ended after a crash, and taking it back.

What an undo needs is on disk before the transaction that it undoes is committed, in two files beside the
journal. So there is no commit without them; and without a commit they change nothing, since only rows are
touched that are what the restore would have left.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.durable import sync_folder
from backup_admin.core.errors import BackupAdminError, RestoreRefused
from backup_admin.core.shown import count_of, show_moment
from backup_admin.operations import restore_parts as parts
from backup_admin.operations.databases import CheckLine
from backup_admin.operations.journal import Step
from backup_admin.operations.linked_undo import undo_links
from backup_admin.operations.postgres_part import PostgresPart
from backup_admin.operations.restore_report import RestoreReport
from backup_admin.operations.rows_plan import KIND
from backup_admin.sources.merging.record import is_kept
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.sources.sqlite_rows import undo_in_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.journal import Journal
    from backup_admin.operations.linked_undo import FilesUndone
    from backup_admin.sources.merging.merge_model import TableUndo, UndoReport
    from backup_admin.sources.postgres.source import PostgresSource

_SHOWN_REASONS = 10
_CHANGED_SINCE = (
    "The restore was not undone: these rows are no longer what it left: {rows}. Nothing was changed. Put "
    "them back to what they were after the restore and undo again, or restore the safety backup."
)


def is_rows_journal(journal: Journal) -> bool:
    """Say whether a journal is that of a restore of tables or rows."""
    planned = journal.find(Step.PLANNED) or {}
    return bool(planned.get("plan", {}).get("kind") == KIND)


def record_path(state: StateFolder, restore_id: str) -> Path:
    """Return where it is kept which rows a restore changed."""
    return state.restores / f"rows-{restore_id}.record"


def files_path(state: StateFolder, restore_id: str) -> Path:
    """Return where it is kept which files a restore brought."""
    return state.restores / f"rows-{restore_id}.files"


def place_to_json(
    target: SqliteSource | PostgresSource, restore_id: str, state: StateFolder
) -> dict[str, Any]:
    """Return where rows go, as it stands in the journal: without any password."""
    if isinstance(target, SqliteSource):
        return parts.sqlite_part(target.name, str(target.path.resolve()), restore_id).to_json()
    return parts.postgres_part(target, "", restore_id, state).to_json()


def place_of(journal: Journal) -> str:
    """Return the database that rows went into, as people write it."""
    return _part(journal, ()).live


def commit_rows(journal: Journal, clock: Clock, tables: Sequence[tuple[str, str]]) -> datetime:
    """Write that the rows are there; return until when that can be undone."""
    until = clock.now() + timedelta(hours=float((journal.find(Step.PLANNED) or {})["undo_hours"]))
    safety = (journal.find(Step.SAFETY_BACKUP) or {}).get("snapshot", "")
    journal.write(
        Step.COMMITTED,
        undo_until=format_time(until),
        safety=safety,
        notices=[],
        tables=[list(pair) for pair in tables],
    )
    return until


def undo_until(journal: Journal) -> datetime:
    """Return until when a restore can be undone."""
    return parse_time(str((journal.find(Step.COMMITTED) or {})["undo_until"]))


def give_up_rows(journal: Journal, state: StateFolder, reason: str) -> None:
    """Write that nothing live was changed; what was kept for an undo goes."""
    remove_rows_record(journal, state)
    journal.write(Step.ROLLED_BACK, reason=reason, left=[])


def remove_rows_record(journal: Journal, state: StateFolder) -> None:
    """Remove what was kept for an undo."""
    record_path(state, journal.restore_id).unlink(missing_ok=True)
    files_path(state, journal.restore_id).unlink(missing_ok=True)
    sync_folder(state.restores)


def settle_rows(
    journal: Journal, state: StateFolder, servers: Sequence[PostgresSource], clock: Clock, reason: str
) -> bool:
    """Find out whether the transaction of a restore was committed, and write that down.

    Raises what the database raises; then the journal stays open.
    """
    record = record_path(state, journal.restore_id)
    if not (journal.has(Step.SWAPPING) and is_kept(record)):
        give_up_rows(journal, state, reason)
        return False
    found = _ask(journal, state, servers, dry=True)
    # Before the commit every row is as it was before.
    if found.already and not found.left and not found.changed:
        give_up_rows(journal, state, reason)
        return False
    commit_rows(journal, clock, [])
    return True


def undo_rows(journal: Journal, state: StateFolder, servers: Sequence[PostgresSource]) -> RestoreReport:
    """Put the rows of a restore back as they were before, and its files; all rows or none.

    Safe to repeat. Raises `RestoreRefused` when somebody changed a row since, and what the database raises;
    nothing live was changed then, and the restore can still be undone.
    """
    committed = dict(journal.find(Step.COMMITTED) or {})
    journal.write(Step.UNDOING)
    try:
        found = _ask(journal, state, servers, dry=False)
        if found.is_refused:
            raise RestoreRefused(_why_refused(found))
        files = undo_links(files_path(state, journal.restore_id))
    except BaseException:
        journal.write(Step.COMMITTED, **committed)  # one transaction: it can be begun again
        raise
    journal.write(Step.UNDONE)
    remove_rows_record(journal, state)
    checks = tuple(_check_lines(found, files))
    done = "; ".join(f"{line.topic}: {line.found}" for line in checks)
    return RestoreReport(
        journal.restore_id,
        "undone",
        f"The rows are as they were before the restore of {show_moment(journal.lines[0].time)}"
        f"{f' ({done})' if done else ''}.",
        checks,
        notices=(*found.notes, *files.problems),
    )


def recover_rows(
    journal: Journal, state: StateFolder, servers: Sequence[PostgresSource], clock: Clock
) -> tuple[str, str]:
    """Bring an interrupted restore of rows, or its undo, to an end; return outcome and sentence."""
    try:
        if journal.step is Step.UNDOING:
            return _recover_undo(journal, state, servers)
        if settle_rows(journal, state, servers, clock, "interrupted"):
            return "restored", (
                "The restore was interrupted after its transaction: the rows are there, files that follow "
                "them may be missing. Plan the same again to see, or undo it."
            )
    except (BackupAdminError, OSError) as error:
        journal.write(Step.ATTENTION, reason=str(error))
        return "needs_attention", (
            f"Whether the rows were written cannot be found out: {error} All of them are there or none. "
            "Mend that, then run `backup-admin recover`."
        )
    return (
        "rolled_back",
        "The restore was interrupted before its transaction ended. Nothing live was changed.",
    )


def _recover_undo(journal: Journal, state: StateFolder, servers: Sequence[PostgresSource]) -> tuple[str, str]:
    try:
        return "undone", undo_rows(journal, state, servers).message
    except (BackupAdminError, OSError) as error:
        return "restored", f"The undo was interrupted, and the rows are as the restore left them. {error}"


def restored_at(journal: Journal) -> datetime:
    """Return when the rows were there."""
    return next(line.time for line in journal.lines if line.step is Step.COMMITTED)


def is_beneath_another(journal: Journal, others: Sequence[Journal]) -> bool:
    """Say whether the database is another now than the one that the rows went into.

    So it is after a whole restore of it, until that is undone; and after the undo of an earlier one.
    """
    place, since = place_of(journal), restored_at(journal)
    for other in others:
        if is_rows_journal(other) or place not in {part["live"] for part in _raw_parts(other)}:
            continue
        turns = [line for line in other.lines if line.step in (Step.COMMITTED, Step.UNDONE)]
        if sum(line.time > since for line in turns) % 2:
            return True
    return False


def _raw_parts(journal: Journal) -> list[dict[str, Any]]:
    return list((journal.find(Step.STAGING) or {}).get("parts", []))


def _part(journal: Journal, servers: Sequence[PostgresSource]) -> parts.Part:
    return parts.part_from_json((journal.find(Step.PLANNED) or {})["place"], servers)


def _ask(journal: Journal, state: StateFolder, servers: Sequence[PostgresSource], *, dry: bool) -> UndoReport:
    part, record = _part(journal, servers), record_path(state, journal.restore_id)
    if isinstance(part, PostgresPart):
        from backup_admin.sources.postgres.undo_rows import undo_in_postgres  # noqa: PLC0415 - needs psycopg

        return undo_in_postgres(part.source.address, record, dry=dry)
    return undo_in_sqlite(Path(part.live), record, state.scratch, dry=dry)


def _why_refused(found: UndoReport) -> str:
    if found.changed:
        shown = list(found.changed[:_SHOWN_REASONS])
        if len(found.changed) > len(shown):
            shown.append("and others")
        return _CHANGED_SINCE.format(rows=", ".join(shown))
    reasons = " ".join(found.refusals[:_SHOWN_REASONS])
    return f"The restore was not undone: {reasons} Nothing was changed. Delete or change those first."


def _check_lines(found: UndoReport, files: FilesUndone) -> Iterator[CheckLine]:
    for table in found.tables:
        if table.changes:
            yield CheckLine(table.table, "as before", _undone(table), ok=True)
    if found.already:
        yield CheckLine("rows that were as before already", "as before", str(found.already), ok=True)
    if files.taken_away or files.put_back or files.problems:
        words = f"{count_of(files.taken_away, 'file')} taken away, {files.put_back} put back from aside"
        yield CheckLine("files that came with them", "as before", words, ok=not files.problems)


def _undone(table: TableUndo) -> str:
    words = [
        (table.deleted, "deleted"),
        (table.put_back, "put back"),
        (table.brought_back, "brought back"),
    ]
    return ", ".join(f"{count:,} {word}" for count, word in words if count)
