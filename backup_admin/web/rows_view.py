"""The plan of a restore of tables or rows in the words of a person."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.operations.rows_plan import KIND
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.web.formats import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.operations.linked_files import LinkedFiles
    from backup_admin.operations.rows_plan import RowsPlan, RowsSelection


@dataclass(frozen=True, slots=True)
class Policy:
    """What may become of rows that are live and different, in words."""

    value: str
    label: str
    text: str
    review: str


POLICIES = (
    Policy(
        OnConflict.SKIP.value,
        "Leave it alone",
        "What is missing comes back; nothing that is live changes.",
        "stay as they are",
    ),
    Policy(
        OnConflict.OVERWRITE.value,
        "Overwrite it",
        "The live row becomes what it was in the backup.",
        "become what they were in the backup",
    ),
    Policy(
        OnConflict.COPY.value,
        "Put a copy beside it",
        "For single rows: all of them get new ids and stand beside the live ones. Not while "
        "the original is live and has values that may be there once only.",
        "stay, and copies with new ids stand beside them",
    ),
    Policy(
        OnConflict.REPLACE.value,
        "Make whole tables what they were",
        "For whole tables: rows that are only live go, unless others need them.",
        "become what they were, and rows that only the live table has go",
    ),
)
_REVIEWS = {policy.value: policy.review for policy in POLICIES}


_ROWS = (
    ("New", "insert", "ok"),
    ("New, as others need them", "parents", "ok"),
    ("Overwritten", "overwrite", "warn"),
    ("Deleted", "delete", "bad"),
    ("Different, left alone", "skip", "warn"),
    ("The same", "equal", ""),
)
_FILES = (
    ("Put back", "put_back", "ok"),
    ("There already", "present", ""),
    ("Different, left alone", "different", "warn"),
    ("Kept aside", "kept_aside", "warn"),
    ("Not in the backup", "missing", "bad"),
    ("Refused", "refused", "bad"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A number under its heading. `level` is a colour for one that counts, or empty."""

    heading: str
    number: int
    level: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers by line; headings under which all is zero are left out."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, slots=True)
class RowsView:
    """What the review shows of a restore of tables or rows."""

    database: str
    place: str
    tables_asked: tuple[str, ...]
    rows_asked: tuple[str, ...]
    policy: str
    tables: Grid
    same: Grid
    files: Grid
    linked: tuple[LinkedFiles, ...]
    refused: bool
    losses: tuple[str, ...]
    command: str
    kind: str = KIND


def view_rows(plan: RowsPlan) -> RowsView:
    """Say what a plan does."""
    asked = plan.selection
    tables = [table for table in plan.report.tables if table.changes or table.skip]
    same = [table for table in plan.report.tables if not (table.changes or table.skip)]
    return RowsView(
        database=asked.database,
        place=plan.place,
        tables_asked=asked.tables,
        rows_asked=tuple(f"{table}:{key}" for table, key in asked.rows),
        policy=_REVIEWS[asked.on_conflict],
        tables=_grid(_ROWS, [(table.table, table) for table in tables]),
        same=_grid(_ROWS, [(table.table, table) for table in same]),
        files=_grid(_FILES, [(files.link, files) for files in plan.linked]),
        linked=plan.linked,
        refused=plan.report.is_refused,
        losses=_losses(plan),
        command=_command(plan.snapshot_id, asked),
    )


def _grid(columns: Sequence[tuple[str, str, str]], found: Sequence[tuple[str, object]]) -> Grid:
    used = [one for one in columns if any(getattr(counts, one[1]) for _, counts in found)]
    lines = []
    for name, counts in found:
        numbers = [(heading, int(getattr(counts, field)), level) for heading, field, level in used]
        lines.append(
            (name, tuple(Cell(head, number, level if number else "") for head, number, level in numbers))
        )
    return Grid(tuple(heading for heading, _, _ in used), tuple(lines))


def _losses(plan: RowsPlan) -> tuple[str, ...]:
    found = []
    for table in plan.report.tables:
        if table.overwrite:
            found.append(f"{table.table}: what {count(table.overwrite, 'row')} became since the backup")
        if table.delete:
            found.append(f"{table.table}: {count(table.delete, 'row')} that the backup does not have")
    return tuple(found)


def _command(snapshot: str, asked: RowsSelection) -> str:
    words = ["flask", "backup", "restore", snapshot]
    for table in asked.tables:
        words += ["--table", f"{asked.database}.{line_name(table)}"]
    for table, key in asked.rows:
        words += ["--rows", f"{asked.database}.{line_name(table)}:{key}"]
    if asked.on_conflict is not OnConflict.SKIP:
        words += ["--on-conflict", asked.on_conflict.value]
    for link in asked.links:
        words += ["--linked", f"{asked.database}.{link.shown}"]
    return shlex.join(words)


def line_name(table: str) -> str:
    """Write a table so that the command reads it as one."""
    return '"' + table.replace('"', '""') + '"' if ":" in table or '"' in table else table
