"""Writing the rows that were decided about: deletes, parents before children, and a look at the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import VerificationFailed
from backup_admin.core.shown import agree, count_of
from backup_admin.sources.merging.deciding import gone_condition
from backup_admin.sources.merging.graph import order_tables, quote
from backup_admin.sources.merging.merge_model import TableMerge
from backup_admin.sources.merging.working import (
    EQUAL,
    INSERT,
    OVERWRITE,
    OWNED,
    REQUIRED,
    SKIP,
    WRITTEN,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.sources.merging.working import Work, Workbench


def count_rows(bench: Workbench, replaced: Sequence[Work]) -> tuple[TableMerge, ...]:
    """Count by table what becomes of the rows; tables of which nothing was wanted are left out."""
    found = []
    for work in sorted(bench.works.values(), key=lambda work: work.table.name):
        query = f"SELECT mark, act, count(*) FROM {work.name} WHERE mark > 0 GROUP BY mark, act"
        counts = {(mark, act): int(count) for mark, act, count in bench.engine.rows(query)}
        gone = 0
        if work in replaced:
            where = gone_condition(bench.engine, work)
            gone = bench.engine.number(f"SELECT count(*) FROM {work.table.reading} AS l WHERE {where}")
        if counts or gone:
            found.append(
                TableMerge(
                    work.table.name,
                    insert=counts.get((OWNED, INSERT), 0),
                    overwrite=counts.get((OWNED, OVERWRITE), 0),
                    skip=counts.get((OWNED, SKIP), 0),
                    equal=counts.get((OWNED, EQUAL), 0),
                    parents=counts.get((REQUIRED, INSERT), 0),
                    delete=gone,
                )
            )
    return tuple(found)


def write(bench: Workbench, tables: Sequence[TableMerge], replaced: Sequence[Work]) -> None:
    """Write all rows to their tables and check them; raise `VerificationFailed`.

    No statement runs for no row: triggers may fire for it all the same. What triggers of the app made of the
    rows is told, and stays.
    """
    touched = {table.table: table.statements for table in tables if table.changes}
    between = [one for one in bench.graph.references if one.child in touched and one.parent in touched]
    order, late = order_tables(touched, between)
    bench.engine.prepare([bench.works[name].table for name in order], late)
    for name in reversed(order):
        if bench.works[name] in replaced and "DELETE" in touched[name]:
            work = bench.works[name]
            gone = gone_condition(bench.engine, work)
            bench.engine.run(f"DELETE FROM {work.table.reading} AS l WHERE {gone}")
    for name in order:
        _write_table(bench, bench.works[name], touched[name])
    bench.engine.check()
    for name in order:
        _compare(bench, bench.works[name])
    bench.engine.move_sequences([bench.works[name].table for name in order])


def _write_table(bench: Workbench, work: Work, statements: frozenset[str]) -> None:
    columns = list(work.columns)
    if columns and "INSERT" in statements:
        names = ", ".join(quote(column.name) for column in columns)
        own = ", ".join(f"c{column.number}" for column in columns)
        bench.engine.run(
            f"INSERT INTO {work.table.place} ({names}){bench.engine.overriding} "
            f"SELECT {own} FROM {work.name} WHERE act = {INSERT} ORDER BY n"
        )
    changed = [one for one in columns if one.changeable and one.name not in work.table.key]
    if changed and work.table.key and "UPDATE" in statements:
        values = ", ".join(f"{quote(column.name)} = w.c{column.number}" for column in changed)
        bench.engine.run(
            f"UPDATE {work.table.reading} AS l SET {values} FROM {work.name} AS w "
            f"WHERE w.act = {OVERWRITE} AND {work.key_matches('l', 'w')}"
        )


def _compare(bench: Workbench, work: Work) -> None:
    """Look whether each row that was written is there as the snapshot has it."""
    if not work.table.key:
        return
    names = [column.name for column in work.columns if column.changeable or column.name in work.table.key]
    pairs = zip(work.own(names, work.name), work.live(names, "l"), strict=True)
    same = " AND ".join(bench.engine.same(*pair) for pair in pairs)
    wrong = bench.count(
        work,
        f"{WRITTEN} AND NOT EXISTS (SELECT 1 FROM {work.table.reading} AS l "
        f"WHERE {work.key_matches('l', work.name)} AND {same})",
    )
    if wrong and not work.table.triggers:
        raise VerificationFailed(
            f"{count_of(wrong, 'row')} of {work.table.name} {agree(wrong, 'was', 'were')} not found again "
            "as in the snapshot. Everything was taken back; nothing live was changed."
        )
    if wrong:
        bench.notes.append(
            f"{work.table.name}: triggers of the app changed {wrong} of the rows that were written."
        )
