"""How a restore of tables or rows ended, as its row in the history says it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import Cancelled
from backup_admin.core.shown import count_of
from backup_admin.operations.databases import CheckLine
from backup_admin.operations.journal import Step
from backup_admin.operations.rows_answers import clash_words, file_counts, merge_counts
from backup_admin.operations.rows_plan import KIND
from backup_admin.records import RestoreOperation, RestoreStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from backup_admin.operations.journal import JournalSummary
    from backup_admin.operations.linked_files import LinkedFiles
    from backup_admin.operations.rows_plan import RowsPlan, RowsReport

ALL_OR_NOTHING = (
    "The rows were to be written in one transaction, so all of them are there or none is. The worker finds "
    "out which within seconds, and whether there is something to undo; files that follow them may be missing."
)
WRITES = "swap"
"""The stage in which it can no longer be stopped."""
_SHOWN_REASONS = 5
_FILES_OF = "Files of "


def is_rows(operation: RestoreOperation) -> bool:
    """Say whether a restore is one of tables or rows."""
    return operation.restore_type == KIND


def rows_values(plan: RowsPlan, report: RowsReport) -> dict[str, Any]:
    """Return what a row says of a restore that was carried out, or refused when it was to be."""
    lines = tuple(_done(plan, report))
    warnings = [*report.notices, *remarks_of(report)]
    if any(not line.ok for line in lines):
        warnings.append(
            "What was live changed after this was planned, so not all of it is as it was planned."
        )
    said = {
        "message": report.message,
        "safety_snapshot_id": report.safety_snapshot,
        "warnings": warnings,
        "undo_until": report.undo_until,
    }
    if report.outcome == "refused":
        reasons = [*report.report.refusals, *map(clash_words, report.report.clashes)]
        message = " ".join([report.message, *(f"{one}." for one in reasons[:_SHOWN_REASONS])])
        return {
            **said,
            "status": RestoreStatus.FAILED,
            "error_message": message,
            "warnings": list(report.notices),
        }
    checks = [asdict(line) for line in lines]
    return {**said, "status": RestoreStatus.RESTORED, "error_message": "", "checks": checks}


def remarks_of(report: RowsReport) -> list[str]:
    """Return what a person should know of what was done."""
    problems = [f"{files.link}: {problem}" for files in report.linked for problem in files.problems]
    return [*report.report.notes, *problems]


def failed_rows(error: BaseException, said: dict[str, Any], journal: JournalSummary | None) -> dict[str, Any]:
    """Return what a row says of a restore that raised.

    Its journal says whether the rows were written. While that is open, whoever recovers finds it out.
    """
    if journal is not None and not journal.finished:
        message = f"{said['error_message']} {ALL_OR_NOTHING}"
        return {**said, "status": RestoreStatus.INTERRUPTED, "error_message": message}
    if journal is not None and journal.step is Step.COMMITTED:
        return {**said, "status": RestoreStatus.RESTORED}
    cancelled = isinstance(error, Cancelled)
    return {**said, "status": RestoreStatus.CANCELLED if cancelled else RestoreStatus.FAILED}


def _done(plan: RowsPlan, report: RowsReport) -> Iterator[CheckLine]:
    planned = {table.table: table for table in plan.report.tables}
    done = {table.table: table for table in report.report.tables}
    for name in dict.fromkeys((*planned, *done)):
        expected = merge_counts(planned[name]) if name in planned else "nothing"
        found = merge_counts(done[name]) if name in done else "nothing"
        yield CheckLine(name, expected, found, expected == found)
    yield from _followed(plan.linked, report.linked)


def _followed(planned: tuple[LinkedFiles, ...], done: tuple[LinkedFiles, ...]) -> Iterator[CheckLine]:
    for before, after in zip(planned, done, strict=False):
        expected, found = file_counts(before), file_counts(after)
        yield CheckLine(f"{_FILES_OF}{after.link}", expected, found, expected == found)


def as_planned(checks: Iterable[Mapping[str, Any]]) -> str:
    """Say how many tables, and columns of files, are as planned; empty when none is."""
    columns = [str(check["topic"]).startswith(_FILES_OF) for check in checks if check["ok"]]
    kinds = (("table", columns.count(False), ""), ("column", columns.count(True), " of files"))
    said = " and ".join(f"{count_of(number, kind)}{more}" for kind, number, more in kinds if number)
    return f"{said} {'is' if len(columns) == 1 else 'are'} as planned" if said else ""
