"""The plan of a restore of tables or rows in the words of a person."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.operations.rows_plan import KIND
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.web.formats import count

if TYPE_CHECKING:
    from backup_admin.operations.linked_files import LinkedFiles
    from backup_admin.operations.rows_plan import RowsPlan, RowsSelection
    from backup_admin.sources.merging.merge_model import TableMerge


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
        "For single rows: all of them get new ids and stand beside the live ones.",
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


@dataclass(frozen=True, slots=True)
class RowsView:
    """What the review shows of a restore of tables or rows."""

    database: str
    place: str
    tables_asked: tuple[str, ...]
    rows_asked: tuple[str, ...]
    policy: str
    tables: tuple[TableMerge, ...]
    linked: tuple[LinkedFiles, ...]
    refused: bool
    losses: tuple[str, ...]
    command: str
    kind: str = KIND


def view_rows(plan: RowsPlan) -> RowsView:
    """Say what a plan does."""
    asked = plan.selection
    return RowsView(
        database=asked.database,
        place=plan.place,
        tables_asked=asked.tables,
        rows_asked=tuple(f"{table}:{key}" for table, key in asked.rows),
        policy=_REVIEWS[asked.on_conflict],
        # What changes stands first: the rest is only there to be complete.
        tables=tuple(sorted(plan.report.tables, key=lambda table: not table.changes)),
        linked=plan.linked,
        refused=plan.report.is_refused,
        losses=_losses(plan),
        command=_command(plan.snapshot_id, asked),
    )


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
        words += ["--table", f"{asked.database}.{_name(table)}"]
    for table, key in asked.rows:
        words += ["--rows", f"{asked.database}.{_name(table)}:{key}"]
    if asked.on_conflict is not OnConflict.SKIP:
        words += ["--on-conflict", asked.on_conflict.value]
    for link in asked.links:
        words += ["--linked", f"{asked.database}.{link.shown}"]
    return shlex.join(words)


def _name(table: str) -> str:
    """Write a table so that the command reads it as one."""
    return '"' + table.replace('"', '""') + '"' if ":" in table or '"' in table else table
