"""What operations found, as both commands answer it: data for programs, lines for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError, RestoreRefused, VerificationFailed
from backup_admin.core.paths import path_to_json, show_path
from backup_admin.core.shown import count_of, show_size, show_text
from backup_admin.operations.diff import FileChange, TableChange, diff_files, diff_tables
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.operations.results import (
        CheckReport,
        ExtractPlan,
        ExtractReport,
        SampleResult,
        VerifyReport,
    )
    from backup_admin.repository.repository import Repository

VERSION = 1
INCOMPLETE = 3
SKIPPED = 10
_FAILED = VerificationFailed.exit_code
_MARKS = {"added": "+", "removed": "-", "changed": "~"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb answers: `result` for programs, `lines` for people.

    `stream` is the last member of the result, given one row at a time, so that
    memory does not grow with it.
    """

    result: Mapping[str, Any]
    lines: Iterable[str] = ()
    exit_code: int = 0
    stream: tuple[str, Iterable[Any]] | None = None
    notes: Sequence[str] = field(default=())
    """Messages for people, on stderr."""


def envelope(command: str, exit_code: int, error: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the JSON document of a command, still without its result."""
    return {"version": VERSION, "command": command, "exit_code": exit_code, "error": error, "result": None}


def write_document(
    command: str, answer: Answer, write: Callable[[str], object]
) -> tuple[int, BackupAdminError | None]:
    """Write an answer as one JSON document, row by row; return the status and what went wrong."""
    if answer.stream is None:
        write(dump({**envelope(command, answer.exit_code, None), "result": answer.result}) + "\n")
        return answer.exit_code, None
    name, rows = answer.stream
    head = {"version": VERSION, "command": command, "result": answer.result}
    write(dump(head)[:-2] + f'{", " if answer.result else ""}"{name}": [')
    exit_code, error = answer.exit_code, None
    separator = ""
    try:
        for row in rows:
            write(separator + "\n" + dump(row))
            separator = ","
    except BackupAdminError as caught:
        exit_code, error = caught.exit_code, caught
    tail = dump({"exit_code": exit_code, "error": None if error is None else describe_error(error)})
    write("]}, " + tail[1:] + "\n")
    return exit_code, error


def describe_error(error: BackupAdminError) -> dict[str, str]:
    """Return what programs are told about an error."""
    return {"code": error.code, "message": str(error)}


def dump(value: Any) -> str:
    """Write JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


# --- check and verify --------------------------------------------------------


def answer_check(repository: Repository, report: CheckReport) -> Answer:
    """Answer whether a repository is sound; status 4 when it is not."""
    return Answer(
        result={
            "repository": repository.repo_id,
            "snapshots": report.snapshots,
            "objects": report.objects,
            "bytes_read": report.bytes_read,
            "read_data": report.read_data,
            "problems": list(report.problems),
            "notices": list(report.notices),
            "damage": [asdict(damage) for damage in report.damage],
            "sample": None if report.sample is None else _describe_sample(report.sample),
        },
        lines=_check_lines(report),
        exit_code=0 if report.ok else _FAILED,
        notes=_notes(report.notices, report.problems),
    )


def answer_verify(report: VerifyReport) -> Answer:
    """Answer whether a snapshot is as its manifest says; status 4 when it is not."""
    return Answer(
        result={
            "snapshot": report.snapshot_id,
            "files": report.files,
            "databases": report.databases,
            "bytes_read": report.bytes_read,
            "problems": list(report.problems),
        },
        lines=[_verify_line(report)],
        exit_code=0 if report.ok else _FAILED,
        notes=_notes((), report.problems),
    )


def _check_lines(report: CheckReport) -> Iterator[str]:
    yield _check_line(report)
    sample = report.sample
    if sample is not None:
        oldest = f", the oldest on {sample.oldest[:10]}" if sample.oldest else ""
        yield (
            f"{sample.packs_read:,} of {count_of(sample.packs, 'pack')} were read. In the last "
            f"{count_of(sample.runs, 'run')} {sample.percent:.1f} % of the contents were read and are "
            f"good{oldest}."
        )


def _describe_sample(sample: SampleResult) -> dict[str, Any]:
    return {**asdict(sample), "percent": sample.percent}


def _check_line(report: CheckReport) -> str:
    about = f"{count_of(report.snapshots, 'snapshot')}, {count_of(report.objects, 'object')}"
    if not report.ok:
        return (
            f"{count_of(len(report.problems), 'problem')} found in {about}. Other snapshots can be restored."
        )
    if report.read_data:
        return f"No problem in {about}; every byte was read ({show_size(report.bytes_read)})."
    if report.sample is not None:
        return f"No problem in {about}. A part of the contents was read."
    return f"No problem in {about}. The contents were not read: --read-data does that."


def _verify_line(report: VerifyReport) -> str:
    about = (
        f"{count_of(report.files, 'file')} and {count_of(report.databases, 'database')} "
        f"({show_size(report.bytes_read)})"
    )
    if report.ok:
        return f"Snapshot {report.snapshot_id} is as its manifest says: {about} read."
    return f"Snapshot {report.snapshot_id} has {count_of(len(report.problems), 'problem')}: {about} read."


def _notes(notices: tuple[str, ...], problems: tuple[str, ...]) -> list[str]:
    return [*(f"note: {notice}" for notice in notices), *(f"problem: {problem}" for problem in problems)]


# --- diff ----------------------------------------------------------------------


def answer_diff(repository: Repository, before: SnapshotId, after: SnapshotId, *, as_json: bool) -> Answer:
    """Answer what changed between two snapshots; streams, so it is for one of both."""
    tables = diff_tables(repository.manifest(before), repository.manifest(after))
    files = diff_files(repository, before, after)
    if not as_json:
        return Answer({}, lines=_diff_lines(tables, files))
    return Answer(
        result={"before": before, "after": after, "tables": [_describe_table(table) for table in tables]},
        stream=("files", (_describe_file(change) for change in files)),
    )


def _diff_lines(tables: tuple[TableChange, ...], files: Iterator[FileChange]) -> Iterator[str]:
    nothing = True
    for table in tables:
        nothing = False
        yield f"{_mark_table(table)} databases/{table.database} {show_text(table.table)}  {_show_rows(table)}"
    for change in files:
        nothing = False
        sizes = f"{show_size(change.old_size)} -> {show_size(change.new_size)}"
        if change.change != "changed":
            sizes = show_size(max(change.old_size, change.new_size))
        yield f"{_MARKS[change.change]} files/{change.source}/{show_path(change.path)}  {sizes}"
    if nothing:
        yield "Nothing differs."


def _mark_table(table: TableChange) -> str:
    if table.old_rows < 0:
        return _MARKS["added"]
    return _MARKS["removed"] if table.new_rows < 0 else _MARKS["changed"]


def _show_rows(table: TableChange) -> str:
    if table.old_rows < 0 or table.new_rows < 0:
        return count_of(max(table.old_rows, table.new_rows), "row")
    return f"{table.old_rows:,} -> {count_of(table.new_rows, 'row')}"


def _describe_table(table: TableChange) -> dict[str, Any]:
    return {
        "database": table.database,
        "table": table.table,
        "old_rows": None if table.old_rows < 0 else table.old_rows,
        "new_rows": None if table.new_rows < 0 else table.new_rows,
    }


def _describe_file(change: FileChange) -> dict[str, Any]:
    return {
        "source": change.source,
        "path": path_to_json(change.path),
        "change": change.change,
        "old_size": change.old_size,
        "new_size": change.new_size,
    }


# --- restore into a folder -------------------------------------------------------


def refuse_inside_storage(repository: Repository, target: Path) -> None:
    """Raise `RestoreRefused` for a target in the storage, or around it."""
    folder = local_folder(repository.storage)
    if folder is None:
        return
    storage, place = folder.resolve(), target.resolve()
    if place.is_relative_to(storage) or storage.is_relative_to(place):
        raise RestoreRefused(f"{target} and the storage {folder} lie inside each other. Nothing was written.")


def answer_extract_plan(plan: ExtractPlan, target: Path) -> Answer:
    """Answer what a restore into a folder would write."""
    about = (
        f"{count_of(plan.files, 'file')} and {count_of(plan.databases, 'database')}, {show_size(plan.size)}"
    )
    return Answer(
        result={
            "snapshot": plan.snapshot_id,
            "target": str(target),
            "dry_run": True,
            "files": plan.files,
            "databases": plan.databases,
            "settings": plan.settings,
            "bytes": plan.size,
        },
        lines=[f"Snapshot {plan.snapshot_id} would be restored into {target}: {about}. Nothing was written."],
    )


def answer_extract(report: ExtractReport, target: Path) -> Answer:
    """Answer what a restore into a folder wrote; status 3 when not all is as it was."""
    return Answer(
        result={
            "snapshot": report.snapshot_id,
            "target": str(target),
            "dry_run": False,
            "files": report.files,
            "databases": report.databases,
            "bytes": report.bytes_written,
            "problems": list(report.problems),
            "notices": list(report.notices),
        },
        lines=[_extract_line(report, target)],
        exit_code=0 if report.ok else INCOMPLETE,
        notes=_notes(report.notices, report.problems),
    )


def _extract_line(report: ExtractReport, target: Path) -> str:
    about = (
        f"{count_of(report.files, 'file')} and {count_of(report.databases, 'database')} "
        f"({show_size(report.bytes_written)}) of snapshot {report.snapshot_id} into {target}"
    )
    if report.ok:
        return f"Restored {about}; all of it was compared with the manifest."
    return f"Restored {about}, but not all of it: {count_of(len(report.problems), 'problem')}, named below."
