"""New keys for rows that come back as copies beside the live ones; references among them follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.merging.working import OWNED, all_of

if TYPE_CHECKING:
    from backup_admin.sources.merging.graph import Reference
    from backup_admin.sources.merging.working import Work, Workbench

_Place = tuple[str, str]
"""A table and a column."""


def renumber(bench: Workbench, *, dry: bool) -> None:
    """Give marked rows new keys; raise `RestoreRefused` when no table has a key that can be made anew.

    A dry run takes no number from any sequence: it would be gone afterwards.
    """
    works = {work.table.name: work for work in bench.works.values() if bench.count(work, f"mark = {OWNED}")}
    between = [
        one
        for one, _ in bench.references()
        if one.child in works and one.parent in works and works[one.parent].has(one.parent_columns)
    ]
    fresh = [
        (work, work.table.key[0])
        for work in works.values()
        if _stands_alone(work, between) and work.table.key
    ]
    changed = {(work.table.name, name) for work, name in fresh if _give_new(bench, work, name, dry=dry)}
    if not changed:
        raise RestoreRefused(
            "None of these rows has a key that can be made anew (a number or a uuid), so there can be no "
            "copy beside the live ones. Nothing was touched."
        )
    _follow(bench, works, between, changed)
    for name, work in works.items():
        numbers = [one.number for one in work.columns if (name, one.name) in changed]
        if numbers:
            new = ", ".join(f"c{number} = coalesce(f{number}, c{number})" for number in numbers)
            bench.engine.run(f"UPDATE {work.name} SET {new} WHERE mark = {OWNED}")


def _stands_alone(work: Work, between: list[Reference]) -> bool:
    """Say whether the key of a table is one column that names no other row."""
    key = work.table.key
    return len(key) == 1 and not any(
        one.child == work.table.name and one.columns == key and one.parent != one.child for one in between
    )


def _give_new(bench: Workbench, work: Work, name: str, *, dry: bool) -> bool:
    column = work.table.column(name)
    if column is None:
        return False
    value = bench.engine.fresh(column, work.table, work.name, dry=dry)
    if value is None:
        return False
    _add_column(bench, work, name)
    bench.engine.run(
        f"UPDATE {work.name} AS w SET f{column.number} = {value} FROM "
        f"(SELECT n, row_number() OVER (ORDER BY n) AS k FROM {work.name} WHERE mark = {OWNED}) AS r "
        "WHERE r.n = w.n"
    )
    return True


def _follow(bench: Workbench, works: dict[str, Work], between: list[Reference], changed: set[_Place]) -> None:
    """Carry new keys along references, also those that are part of a key themselves."""
    found = True
    while found:
        found = False
        for one in between:
            child, parent = works[one.child], works[one.parent]
            match = all_of(parent.own(one.parent_columns, "p"), one.equals, child.own(one.columns, "w"))
            for name, parent_name in zip(one.columns, one.parent_columns, strict=True):
                if (one.parent, parent_name) not in changed:
                    continue
                if (one.child, name) not in changed:
                    _add_column(bench, child, name)
                    changed.add((one.child, name))
                new, theirs = f"f{child.column(name)[1:]}", f"p.f{parent.column(parent_name)[1:]}"
                count = bench.engine.run(
                    f"UPDATE {child.name} AS w SET {new} = {theirs} FROM {parent.name} AS p WHERE "
                    f"w.mark = {OWNED} AND p.mark = {OWNED} AND w.{new} IS NULL AND {theirs} IS NOT NULL "
                    f"AND {match}"
                )
                found = found or count > 0


def _add_column(bench: Workbench, work: Work, name: str) -> None:
    column = work.table.column(name)
    if column is not None:
        bench.engine.run(
            f"ALTER TABLE {work.name} ADD COLUMN f{column.number} {column.type}{column.collation}"
        )
