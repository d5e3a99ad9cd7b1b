"""A restore plan in the words of a person: what changes, and what is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.control.wizard import read_plan
from backup_admin.operations.rows_plan import RowsPlan
from backup_admin.web.formats import count, size
from backup_admin.web.rows_view import RowsView, view_rows

if TYPE_CHECKING:
    from backup_admin.operations.plans import DatabasePart, FilesPart, RestorePlan, TableEffect


@dataclass(frozen=True, slots=True)
class TableView:
    """One table now and then."""

    name: str
    now: int | None
    then: int | None
    text: str
    level: str


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """One database of the plan: the tables that change, and those that stay as they are."""

    name: str
    summary: str
    tables: tuple[TableView, ...]
    same: tuple[TableView, ...]


@dataclass(frozen=True, slots=True)
class FolderView:
    """One folder tree of the plan."""

    name: str
    added: int
    changed: int
    removed: int
    size: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanView:
    """What the review shows."""

    databases: tuple[DatabaseView, ...] = ()
    folders: tuple[FolderView, ...] = ()
    size: int = 0
    left_out: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    unchanged: str = ""
    places: str = ""
    kind: str = "parts"


def view_plan(text: str) -> PlanView | RowsView:
    """Read a stored plan and say what it does."""
    plan = read_plan(json.loads(text))
    if isinstance(plan, RowsPlan):
        return view_rows(plan)
    return _view_parts(plan)


def _view_parts(plan: RestorePlan) -> PlanView:
    losses = [loss for database in plan.databases for loss in _table_losses(database)]
    losses += [loss for tree in plan.files for loss in _file_losses(tree)]
    return PlanView(
        databases=tuple(_database(database) for database in plan.databases),
        folders=tuple(_folder(tree) for tree in plan.files),
        size=plan.size,
        left_out=plan.left_out,
        losses=tuple(losses),
        unchanged=_unchanged(plan),
        places=plan.places,
    )


def _unchanged(plan: RestorePlan) -> str:
    """Say how far it was looked, of a plan that names no losses."""
    looked = []
    if plan.databases:
        looked.append("No table has gained or changed anything that the backup does not hold.")
    if plan.files:
        looked.append("No file is new or differs in size or time.")
    return " ".join(looked)


def _database(part: DatabasePart) -> DatabaseView:
    changed = sum(not table.same for table in part.tables)
    summary = f"{changed} of {count(len(part.tables), 'table')} will change, {size(part.size)} to write"
    if not part.live_found:
        summary = f"The live database is not there or cannot be read; {size(part.size)} to write"
    changing = tuple(_table(table) for table in part.tables if not table.same)
    same = tuple(_table(table) for table in part.tables if table.same)
    return DatabaseView(part.name, summary, changing, same)


def _table(table: TableEffect) -> TableView:
    text, level = _what_happens(table)
    return TableView(table.table, _rows(table.rows_now), _rows(table.rows_then), text, level)


def _what_happens(table: TableEffect) -> tuple[str, str]:
    if table.same:
        return "Stays as it is", ""
    if table.rows_then < 0:
        return "Is not in the backup and goes away", "bad"
    if table.rows_now < 0:
        return "Comes back", "ok"
    fewer = table.rows_now - table.rows_then
    if fewer > 0:
        return f"{count(fewer, 'row')} fewer", "warn"
    return (f"{count(-fewer, 'row')} more", "ok") if fewer else ("Same number of rows, other content", "warn")


def _table_losses(part: DatabasePart) -> list[str]:
    losses = []
    for table in part.tables:
        is_new = table.rows_then < 0
        if table.same or table.rows_now < 0 or (table.rows_now == 0 and not is_new):
            continue
        fewer = table.rows_now - table.rows_then
        if is_new:
            losses.append(f"{part.name}: the table {table.table} with {count(table.rows_now, 'row')}")
        elif fewer > 0:
            losses.append(f"{part.name}: {count(fewer, 'row')} more in {table.table} than in the backup")
        else:
            losses.append(f"{part.name}: what changed in {table.table} since the backup")
    return losses


def _file_losses(part: FilesPart) -> list[str]:
    losses = []
    if part.removed:
        losses.append(f"{part.name}: {count(part.removed, 'file')} made since the backup")
    if part.changed:
        losses.append(f"{part.name}: what changed in {count(part.changed, 'file')} since the backup")
    return losses


def _folder(part: FilesPart) -> FolderView:
    return FolderView(part.name, part.added, part.changed, part.removed, part.size, part.examples)


def _rows(rows: int) -> int | None:
    return None if rows < 0 else rows
