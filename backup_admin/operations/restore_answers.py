"""A restore in place as both commands show it: the plan before, the report after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import format_time
from backup_admin.core.errors import RestoreRefused
from backup_admin.core.shown import agree, columns, count_of, show_size, show_text, show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.issues import Issue, Level
from backup_admin.operations.plan_postgres import RENAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backup_admin.operations.databases import CheckLine
    from backup_admin.operations.plans import DatabasePart, FilesPart, RestorePlan, TableEffect
    from backup_admin.operations.restore_report import RestoreReport
    from backup_admin.operations.undo import Undoable
    from backup_admin.repository.types import Snapshot

_TABLES_SHOWN = 30
_UNTOUCHED = " Nothing was touched."


def plan_lines(plan: RestorePlan, snapshot: Snapshot) -> Iterator[str]:
    """Yield what a restore would change, for people."""
    yield f"Restore of snapshot {plan.snapshot_id} of {show_time(snapshot.created_at)}:"
    for database in plan.databases:
        yield from _database_lines(database)
    for files in plan.files:
        yield from _files_lines(files)
    if plan.left_out:
        yield f"  Not restored, because no place is given: {', '.join(plan.left_out)}."
    if plan.files:
        yield "  Files are compared by size and time, not by their bytes."
    yield f"  What is written to {plan.places} after this plan and before the restore is replaced too;"
    yield "  the safety backup holds it, and `undo` brings it back."


def issue_lines(issues: tuple[Issue, ...]) -> Iterator[str]:
    """Yield what a person should know before consenting."""
    for issue in issues:
        if issue.level is not Level.OK:
            yield f"  {issue.level.value}: {issue.topic}: {show_text(issue.message)}"


def describe_plan(plan: RestorePlan, issues: tuple[Issue, ...], *, dry_run: bool) -> dict[str, Any]:
    """Return what would be restored, and what was looked at before, as plain data."""
    return {
        "snapshot": plan.snapshot_id,
        "dry_run": dry_run,
        "plan": plan.to_json(),
        "digest": plan.digest,
        "issues": _describe_issues(issues),
    }


def blocks(issues: tuple[Issue, ...]) -> list[str]:
    """Return what forbids a restore."""
    return [issue.message for issue in issues if issue.level is Level.BLOCK]


def refusal(issues: tuple[Issue, ...]) -> str:
    """Return why a restore is refused, once; empty when nothing forbids it."""
    found = blocks(issues)
    ends = _UNTOUCHED.strip()
    return f"{' '.join(one.removesuffix(ends).strip() for one in found)}{_UNTOUCHED}" if found else ""


def answer_dry_run(plan: RestorePlan, issues: tuple[Issue, ...], snapshot: Snapshot) -> Answer:
    """Answer what a restore in place would do; status 1 when something forbids it."""
    return Answer(
        describe_plan(plan, issues, dry_run=True),
        [*plan_lines(plan, snapshot), *issue_lines(issues), "Nothing was touched."],
        RestoreRefused.exit_code if blocks(issues) else 0,
    )


def answer_report(report: RestoreReport, more: Mapping[str, object], command: str) -> Answer:
    """Answer how a restore or an undo ended; `command` is how it is undone."""
    return Answer(
        result={**more, **_describe_report(report)},
        lines=_report_lines(report, command),
        exit_code=report.exit_code,
        notes=[f"note: {notice}" for notice in report.notices],
    )


def _describe_issues(issues: tuple[Issue, ...]) -> list[dict[str, str]]:
    return [{"level": one.level.value, "topic": one.topic, "message": one.message} for one in issues]


def _describe_report(report: RestoreReport) -> dict[str, Any]:
    return {
        "restore": report.restore_id,
        "outcome": report.outcome,
        "message": report.message,
        "checks": [
            {"topic": line.topic, "expected": line.expected, "found": line.found, "ok": line.ok}
            for line in report.checks
        ],
        "safety_snapshot": report.safety_snapshot or None,
        "undo_until": None if report.undo_until is None else format_time(report.undo_until),
        "notices": list(report.notices),
        "error_code": report.error_code or None,
    }


def _report_lines(report: RestoreReport, command: str) -> Iterator[str]:
    yield f"{report.message}"
    marks = {True: "  ok", False: "  BAD"}
    yield from columns([(marks[line.ok], show_text(line.topic), _finding(line)) for line in report.checks])
    if report.safety_snapshot:
        yield f"The state from before is kept as snapshot {report.safety_snapshot}."
    if report.undo_until is not None:
        until = show_time(report.undo_until)
        yield f"Until {until} it can be taken back: {command} undo {report.restore_id}"


def undo_lines(choice: Undoable) -> Iterator[str]:
    """Yield what an undo would put back, for people."""
    yield f"Undo of restore {choice.restore_id} of {show_time(choice.restored_at)}."
    if choice.tables is not None:
        yield f"What it did to rows of {show_text(choice.places[0])} is taken back, and its files with them:"
        for table in choice.tables:
            yield f"  {show_text(table)}"
        yield "If somebody changed one of those rows since, they are named and nothing is touched."
        return
    back = [place for place in choice.places if place not in choice.new_places]
    if back:
        yield "What was live before it comes back to:"
    yield from (f"  {show_text(place)}" for place in back)
    if choice.new_places:
        yield "What it made is taken away, because nothing was there before:"
    yield from (f"  {show_text(place)}" for place in choice.new_places)
    yield "What was written since then is not merged; databases as they are now are kept beside."


def _finding(line: CheckLine) -> str:
    return show_text(line.found if line.ok else f"{line.found} (expected: {line.expected})")


def _database_lines(database: DatabasePart) -> Iterator[str]:
    state = "" if database.live_found else "  (there is no usable database now)"
    yield f"  Database {database.name} -> {show_text(database.path)}, {show_size(database.size)}{state}"
    if database.way == RENAME and database.live_found:
        yield "    A new database is made and read back beside it, then takes its name: connections end for a"
        yield "    moment, and what is live now stays for an undo."
    elif database.way == RENAME:
        yield "    A new database is made and read back, then takes its name."
    changed = [table for table in database.tables if not table.same]
    same = len(database.tables) - len(changed)
    rows = [(f"    {show_text(table.table)}", _rows(table)) for table in changed[:_TABLES_SHOWN]]
    yield from columns(rows)
    if len(changed) > _TABLES_SHOWN:
        yield f"    and {count_of(len(changed) - _TABLES_SHOWN, 'table')} more"
    if same:
        yield f"    {count_of(same, 'table')} the same as now"


def _rows(table: TableEffect) -> str:
    if table.rows_now < 0:
        return f"comes back with {count_of(table.rows_then, 'row')}"
    if table.rows_then < 0:
        return f"goes away with {count_of(table.rows_now, 'row')}"
    if table.rows_now == table.rows_then:
        return f"{count_of(table.rows_now, 'row')} now and then, but they differ"
    return f"{count_of(table.rows_now, 'row')} now, {table.rows_then:,} then"


def _files_lines(files: FilesPart) -> Iterator[str]:
    state = "" if files.live_found else "  (it is not there now)"
    yield (
        f"  Folder {files.name} -> {show_text(files.root)}, {count_of(files.file_count, 'file')}, "
        f"{show_size(files.size)}{state}"
    )
    fates = (
        (files.added, "comes back", "come back"),
        (files.changed, "changes", "change"),
        (files.removed, "goes away", "go away"),
        (files.unchanged, "stays the same", "stay the same"),
    )
    yield "    " + ", ".join(f"{number:,} {agree(number, one, many)}" for number, one, many in fates)
    for example in files.examples:
        yield f"      {show_text(example)}"
