"""Which rows of a snapshot are meant: those that were named, and what belongs to them."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused, UsageError
from backup_admin.core.shown import count_of
from backup_admin.sources.merging.merge_model import OnConflict
from backup_admin.sources.merging.working import OWNED, all_of

if TYPE_CHECKING:
    from backup_admin.sources.merging.graph import LiveTable
    from backup_admin.sources.merging.merge_model import MergeRequest
    from backup_admin.sources.merging.working import Work, Workbench

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_SHOWN_NAMES = 12
_NEAR_NAMES = 3


@dataclass(frozen=True, slots=True)
class Selected:
    """A whole table, or a row of it by the text of its key; of one partition only if one was named."""

    table: LiveTable
    partition: str
    key: str | None


def select(bench: Workbench, request: MergeRequest) -> list[Selected]:
    """Find what was named; raise `RestoreRefused` or `UsageError`."""
    found = [Selected(*find_table(bench, name), None) for name in request.tables]
    found += [Selected(*find_table(bench, name), key) for name, key in request.rows]
    for one in found:
        _refuse_senseless(one, request.on_conflict)
    return found


def find_table(bench: Workbench, name: str) -> tuple[LiveTable, str]:
    """Return a table, and the partition that was meant if it was one; raise `RestoreRefused`.

    A name that is nowhere is misspelt: nobody has to make that table.
    """
    graph = bench.graph
    short = name.removeprefix("public.")
    live = {*graph.tables, *graph.partitions}
    absent = bench.engine.absent() if live.isdisjoint((name, short)) else []
    if live.isdisjoint((name, short)) and short not in absent and name not in absent:
        _refuse_other_kind(bench, name, short)
        near = get_close_matches(short, sorted({*live, *absent}), n=_NEAR_NAMES)
        known = ", ".join(near or sorted({*live, *absent})[:_SHOWN_NAMES]) or "none"
        raise RestoreRefused(
            f"Neither the snapshot nor the live database has a table {name!r}; "
            f"{'the nearest names are' if near else 'they have'} {known}. Nothing was touched."
        )
    return graph.find(name)


def _refuse_other_kind(bench: Workbench, name: str, short: str) -> None:
    """Raise `RestoreRefused` for what is there and is no table of rows of its own."""
    if kind := bench.engine.other_kind(short):
        raise RestoreRefused(
            f"{name} is {kind}, which cannot be restored alone. Nothing was touched. Restore the database as "
            "a whole, or write it elsewhere with restore --to and take from there what you need."
        )


def _refuse_senseless(one: Selected, policy: OnConflict) -> None:
    name = one.partition or one.table.name
    if one.key is not None and not one.table.key:
        raise RestoreRefused(
            f"{name} has no primary key, so no row of it can be named. Nothing was touched. "
            "Restore the whole table."
        )
    if one.key is not None and policy is OnConflict.REPLACE:
        raise UsageError("--on-conflict replace makes a whole table what it was: it goes with --table only.")
    if one.key is None and policy is OnConflict.COPY:
        raise UsageError("--on-conflict copy makes new rows beside the live ones: it goes with --rows only.")
    if one.partition and policy is OnConflict.REPLACE:
        raise UsageError(f"{name} is a partition of {one.table.name}: only the whole table can be replaced.")


def load_tables(bench: Workbench, selected: list[Selected]) -> None:
    """Bring in the snapshot's rows of all tables that the selected rows may own rows in."""
    for one in selected:
        bench.need(one.table.name)
    with_children = [one.table.name for one in selected if one.key is not None]
    owned = bench.graph.owned_by(with_children)
    for name in sorted(owned):
        if bench.get(name) is None:
            bench.notes.append(f"{name}: the snapshot does not have this table, so nothing of it comes back.")
    if with_children and (absent := bench.engine.absent_below(owned)):
        names = ", ".join(absent[:_SHOWN_NAMES]) + (", …" if len(absent) > _SHOWN_NAMES else "")
        bench.notes.append(
            f"The live database does not have {names}: what belongs to these rows there does not come back."
        )
    bench.engine.lock([work.table for work in bench.works.values()])


def mark_selected(bench: Workbench, selected: list[Selected]) -> None:
    """Mark what was named; raise `RestoreRefused` for a row that the snapshot does not have."""
    for one in selected:
        work = bench.need(one.table.name)
        conditions = [f"part = {bench.engine.part_of(one.partition)}"] if one.partition else []
        if one.key is not None:
            conditions += _key_conditions(bench, work, one.key)
        where = " AND ".join(conditions) or "TRUE"
        count = bench.engine.run(f"UPDATE {work.name} SET mark = {OWNED} WHERE {where}")
        if one.key is not None and count == 0:
            raise RestoreRefused(
                f"The snapshot has no row of {one.partition or one.table.name} with the key {one.key!r} "
                f"({', '.join(one.table.key)}). Nothing was touched."
            )


def mark_owned(bench: Workbench, selected: list[Selected]) -> None:
    """Mark all that belongs to marked rows, through as many tables as it takes."""
    with_children = bench.graph.owned_by(one.table.name for one in selected if one.key is not None)
    ways = []
    for one, child in bench.references():
        parent = bench.works.get(one.parent)
        if one.owns and one.parent in with_children and parent is not None and parent.has(one.parent_columns):
            match = all_of(parent.own(one.parent_columns, "p"), one.equals, child.own(one.columns, "c"))
            ways.append(
                f"UPDATE {child.name} AS c SET mark = {OWNED} FROM {parent.name} AS p "
                f"WHERE c.mark = 0 AND p.mark = {OWNED} AND {match}"
            )
    while sum(bench.engine.run(statement) for statement in ways):
        pass


def _key_conditions(bench: Workbench, work: Work, key: str) -> list[str]:
    names = work.table.key
    values = [_without_quotes(key)] if len(names) == 1 else _split_key(key)
    if len(values) != len(names):
        raise UsageError(
            f"The key of {work.table.name} has {len(names)} columns, and {key!r} has "
            f"{count_of(len(values), 'value')}. Nothing was touched. Write a value of each, in this order "
            f"and with commas between: {','.join(names)}; a value with a comma in double quotes."
        )
    conditions = []
    for name, value in zip(names, values, strict=True):
        column = work.table.column(name)
        if column is not None:
            conditions.append(bench.engine.matches(work.column(name), column, value))
    return conditions


def _without_quotes(key: str) -> str:
    """Return the one value of a key; what is no value in double quotes is taken as it stands."""
    matched = _QUOTED.fullmatch(key)
    return key if matched is None else matched[1].replace('""', '"')


def _split_key(key: str) -> list[str]:
    try:
        return next(csv.reader([key], strict=True))
    except (csv.Error, StopIteration) as error:
        raise UsageError(
            f"The key {key!r} cannot be read: {error}. Nothing was touched. Write its values with commas "
            "between, a value with a comma in double quotes."
        ) from error
