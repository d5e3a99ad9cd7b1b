"""A restore of tables and rows as commands show it: the plan before, the report after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import format_time
from backup_admin.core.errors import RestoreRefused
from backup_admin.core.shown import columns, count_of, show_text, show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.rows_plan import describe_merge
from backup_admin.sources.merging.merge_model import OnConflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.operations.linked_files import LinkedFiles
    from backup_admin.operations.rows_plan import RowsPlan, RowsReport
    from backup_admin.repository.types import Snapshot
    from backup_admin.sources.merging.merge_model import Clash, MergeReport, TableMerge


def rows_plan_lines(plan: RowsPlan, snapshot: Snapshot) -> Iterator[str]:
    """Yield what would be done, for people."""
    yield f"Rows of snapshot {plan.snapshot_id} of {show_time(snapshot.created_at)}"
    yield f"into {show_text(plan.place)}:"
    yield from _merge_lines(plan.report, plan.linked)
    if plan.report.clashes:
        yield f"  {clash_advice(plan.selection.on_conflict)}"


def answer_rows_plan(plan: RowsPlan, snapshot: Snapshot) -> Answer:
    """Answer a dry run; status 1 when something forbids it."""
    return Answer(
        _describe_plan(plan, dry_run=True),
        [*rows_plan_lines(plan, snapshot), "Nothing was touched."],
        RestoreRefused.exit_code if plan.report.is_refused else 0,
    )


def answer_rows(report: RowsReport, plan: RowsPlan, command: str) -> Answer:
    """Answer how a restore of rows ended; `command` is how it is undone."""
    return Answer(
        result={
            **_describe_plan(plan, dry_run=False),
            "restore": report.restore_id,
            "outcome": report.outcome,
            "message": report.message,
            "done": describe_merge(report.report, report.linked),
            "safety_snapshot": report.safety_snapshot or None,
            "undo_until": None if report.undo_until is None else format_time(report.undo_until),
            "notices": list(report.notices),
        },
        lines=_report_lines(report, command),
        exit_code=report.exit_code,
        notes=[f"note: {notice}" for notice in report.notices],
    )


def _describe_plan(plan: RowsPlan, *, dry_run: bool) -> dict[str, Any]:
    return {"snapshot": plan.snapshot_id, "dry_run": dry_run, "plan": plan.to_json(), "digest": plan.digest}


def _report_lines(report: RowsReport, command: str) -> Iterator[str]:
    yield report.message
    yield from _merge_lines(report.report, report.linked)
    if report.safety_snapshot:
        yield f"The database from before is kept as snapshot {report.safety_snapshot}."
    if report.undo_until is not None:
        until = show_time(report.undo_until)
        yield f"Until {until} exactly this can be taken back: {command} undo {report.restore_id}"


def _merge_lines(report: MergeReport, linked: tuple[LinkedFiles, ...]) -> Iterator[str]:
    yield from columns([(f"  {show_text(table.table)}", merge_counts(table)) for table in report.tables])
    for clash in report.clashes:
        yield f"  clash: {show_text(clash_words(clash))}"
    for sentence in report.refusals:
        yield f"  refused: {show_text(sentence)}"
    for note in report.notes:
        yield f"  note: {show_text(note)}"
    for files in linked:
        yield f"  {show_text(files.link)}: {file_counts(files)}"
        for problem in files.problems:
            yield f"    {show_text(problem)}"


def clash_words(clash: Clash) -> str:
    """Return why a row cannot go in."""
    return f"{clash.table} {clash.row}: the live row {clash.live_row} has the same {clash.unique}"


def clash_advice(policy: OnConflict) -> str:
    """Return what can be done about rows that cannot go in."""
    if policy is OnConflict.COPY:
        return (
            "A copy would have what may be there once only: choose to leave alone or to overwrite what is "
            "live, or give the live row another value first."
        )
    return "Change or delete that one first."


def merge_counts(table: TableMerge) -> str:
    """Return what is or would be done to the rows of a table."""
    words = [
        (table.insert, "new"),
        (table.parents, "new since others need them"),
        (table.overwrite, "overwritten"),
        (table.delete, "deleted"),
        (table.skip, "different, left alone"),
        (table.equal, "the same already"),
    ]
    return ", ".join(f"{count:,} {word}" for count, word in words if count) or "nothing"


def file_counts(files: LinkedFiles) -> str:
    """Return what became, or would become, of the files of a link."""
    words = [
        (files.put_back, "put back"),
        (files.present, "there already"),
        (files.different, "different, left alone"),
        (files.kept_aside, "kept aside"),
        (files.missing, "not in the snapshot"),
        (files.refused, "refused"),
    ]
    return ", ".join(f"{count_of(count, 'file')} {word}" for count, word in words if count) or "no files"
