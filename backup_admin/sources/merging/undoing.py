"""Take back what a merge did, where its rows are still what it left: the same steps for every engine.

Who calls begins the transaction, and ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.errors import VerificationFailed
from backup_admin.core.shown import agree, count_of
from backup_admin.sources.merging.graph import order_tables, quote
from backup_admin.sources.merging.merge_model import TableUndo, UndoReport
from backup_admin.sources.merging.working import all_of, none_is_null

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.sources.merging.graph import Graph, Reference
    from backup_admin.sources.merging.keeping import Kept
    from backup_admin.sources.merging.merge_model import MergeEngine

# What a row that was kept is now: unknown, as the merge left it, as it was before, or neither.
_UNKNOWN, _LEFT, _ALREADY, _CHANGED = 0, 1, 2, 3
_SHOWN_ROWS = 20


def look(engine: MergeEngine, kept: Sequence[Kept]) -> UndoReport:
    """Say what an undo would do, and which rows are no longer what the merge left."""
    engine.lock([one.table for one in kept])
    for one in kept:
        if one.table.key:
            _compare_by_key(engine, one)
        else:
            _compare_counts(engine, one)
    changed = [line for one in kept for line in _changed_rows(engine, one)]
    already = sum(engine.number(f"SELECT count(*) FROM {_rows_of(one)} WHERE s = {_ALREADY}") for one in kept)
    return UndoReport(tuple(_count(engine, one) for one in kept), tuple(changed), already=already)


def undo(engine: MergeEngine, graph: Graph, kept: Sequence[Kept]) -> UndoReport:
    """Put back what was before; changes nothing when the report says that it is refused.

    Raises `RestoreRefused` and `VerificationFailed`.
    """
    found = look(engine, kept)
    refusals = tuple(_find_referring(engine, graph, kept))
    report = UndoReport(found.tables, found.changed, refusals, _notes(found, kept), found.already)
    if not report.is_refused:
        _put_back(
            engine,
            graph,
            [(one, table) for one, table in zip(kept, found.tables, strict=True) if table.changes],
        )
    return report


def _compare_by_key(engine: MergeEngine, kept: Kept) -> None:
    before, after, live = kept.before, kept.after, kept.table.reading
    digest = kept.live_digest(engine, "l")
    engine.run(f"UPDATE {before.name} AS b SET digest = {kept.own_digest(engine, 'b')}")
    engine.run(
        f"UPDATE {after.name} AS a SET state = CASE {digest} WHEN a.digest THEN {_LEFT} "
        f"ELSE {_CHANGED} END FROM {live} AS l WHERE {after.key_matches('l', 'a')}"
    )
    # A new row that is gone is as before; one that was written over is not.
    engine.run(
        f"UPDATE {after.name} SET state = CASE WHEN was = 0 THEN {_ALREADY} ELSE {_CHANGED} END "
        f"WHERE state = {_UNKNOWN}"
    )
    engine.run(
        f"UPDATE {before.name} AS b SET state = CASE WHEN {digest} = b.digest THEN {_ALREADY} "
        f"ELSE {_CHANGED} END FROM {live} AS l WHERE {before.key_matches('l', 'b')}"
    )
    # Where a trigger made what was before of a row that was written over, nothing is to be done.
    engine.run(
        f"UPDATE {after.name} AS a SET state = {_ALREADY} FROM {before.name} AS b "
        f"WHERE b.state = {_ALREADY} AND {kept.same_key('b', 'a')}"
    )
    engine.run(
        f"UPDATE {before.name} AS b SET state = a.state FROM {after.name} AS a "
        f"WHERE {kept.same_key('b', 'a')}"
    )
    engine.run(f"UPDATE {before.name} SET state = {_LEFT} WHERE state = {_UNKNOWN}")


def _compare_counts(engine: MergeEngine, kept: Kept) -> None:
    before, after = kept.before, kept.after

    def state(many: str) -> str:
        return (
            f"CASE WHEN {many} = was THEN {_ALREADY} WHEN {many} = remains THEN {_LEFT} ELSE {_CHANGED} END"
        )

    engine.run(
        f"UPDATE {after.name} AS a SET state = {state('f.many')} FROM ({kept.counted(engine)}) AS f "
        "WHERE f.d = a.digest"
    )
    engine.run(f"UPDATE {after.name} SET state = {state('0')} WHERE state = {_UNKNOWN}")
    engine.run(f"UPDATE {before.name} AS b SET digest = {kept.own_digest(engine, 'b')}")
    engine.run(
        f"UPDATE {before.name} AS b SET state = a.state FROM {after.name} AS a WHERE a.digest = b.digest"
    )


def _rows_of(kept: Kept) -> str:
    """Write a query for all rows that were kept, each once: its state, and the key where there is one."""
    after = ", ".join(["a.state AS s", *_named(kept.after.own(kept.table.key, "a"))])
    query = f"SELECT {after} FROM {kept.after.name} AS a"
    if kept.table.key:
        before = ", ".join(["b.state", *_named(kept.before.own(kept.table.key, "b"))])
        query += f" UNION ALL SELECT {before} FROM {kept.before.name} AS b WHERE {_is_deleted(kept)}"
    return f"({query}) AS r"


def _named(values: Sequence[str]) -> list[str]:
    return [f"{value} AS k{number}" for number, value in enumerate(values)]


def _is_deleted(kept: Kept) -> str:
    """Write the condition for rows before (`b`) that the merge deleted."""
    return f"NOT EXISTS (SELECT 1 FROM {kept.after.name} AS a WHERE {kept.same_key('b', 'a')})"


def _changed_rows(engine: MergeEngine, kept: Kept) -> Iterator[str]:
    name = kept.table.name
    where = f"FROM {_rows_of(kept)} WHERE s = {_CHANGED}"
    count = engine.number(f"SELECT count(*) {where}")
    if not kept.table.key:
        if count:
            yield f"{name} (rows without a key)"
        return
    keys = ", ".join(f"k{number}" for number in range(len(kept.table.key)))
    for row in list(engine.rows(f"SELECT {keys} {where} ORDER BY {keys} LIMIT {_SHOWN_ROWS}")):
        key = ",".join(map(str, row)).encode("utf-8", "backslashreplace").decode()
        yield f"{name} {key}"
    if count > _SHOWN_ROWS:
        yield f"{count - _SHOWN_ROWS:,} more of {name}"


def _count(engine: MergeEngine, kept: Kept) -> TableUndo:
    name, before, after = kept.table.name, kept.before.name, kept.after.name
    if not kept.table.key:
        deleted, back = (
            engine.number(f"SELECT coalesce(sum({one}), 0) FROM {after} WHERE state = {_LEFT} AND {one} > 0")
            for one in ("remains - was", "was - remains")
        )
        return TableUndo(name, deleted=deleted, brought_back=back)
    new = engine.number(f"SELECT count(*) FROM {after} WHERE state = {_LEFT} AND was = 0")
    over = engine.number(f"SELECT count(*) FROM {after} WHERE state = {_LEFT} AND was > 0")
    back = engine.number(f"SELECT count(*) FROM {before} WHERE state = {_LEFT}") - over
    return TableUndo(name, deleted=new, put_back=over, brought_back=back)


def _find_referring(engine: MergeEngine, graph: Graph, kept: Sequence[Kept]) -> Iterator[str]:
    """Yield a sentence for each reference to rows that would go from rows that would stay as they are.

    Whatever the key would do to those: that is never what was meant.
    """
    by_name = {one.table.name: one for one in kept if one.table.key}
    for one in graph.references:
        parent = by_name.get(one.parent)
        if parent is not None and (count := engine.number(_referring(engine, graph, kept, one, parent))):
            yield (
                f"{count_of(count, 'row')} of {one.child} {agree(count, 'refers', 'refer')} "
                f"({', '.join(one.columns)}) to rows of {one.parent} that came with the restore and would go."
            )


def _referring(engine: MergeEngine, graph: Graph, kept: Sequence[Kept], one: Reference, parent: Kept) -> str:
    columns = [f"k.{quote(name)}" for name in one.columns]
    match = all_of([f"l.{quote(name)}" for name in one.parent_columns], one.equals, columns)
    stays = ""
    child = next((other for other in kept if other.table.name == one.child), None)
    if child is not None:
        same = (
            child.after.key_matches("k", "o")
            if child.table.key
            else f"o.digest = {child.live_digest(engine, 'k')}"
        )
        stays = f" AND NOT EXISTS (SELECT 1 FROM {child.after.name} AS o WHERE o.state = {_LEFT} AND {same})"
    return (
        f"SELECT count(*) FROM {graph.tables[one.child].reading} AS k WHERE {none_is_null(columns)}{stays} "
        f"AND EXISTS (SELECT 1 FROM {parent.table.reading} AS l JOIN {parent.after.name} AS a "
        f"ON {parent.after.key_matches('l', 'a')} WHERE a.state = {_LEFT} AND a.was = 0 AND {match})"
    )


def _notes(found: UndoReport, kept: Sequence[Kept]) -> tuple[str, ...]:
    tables = list(zip(kept, found.tables, strict=True))
    fire = ", ".join(table.table for one, table in tables if table.statements & one.table.triggers)
    fired = ", ".join(table.table for one, table in tables if table.statements_before & one.table.triggers)
    notes = (
        fire and f"Triggers of the app fire for what is taken back in {fire}.",
        fired and f"What triggers of the app wrote elsewhere when {fired} was restored into stays.",
    )
    return tuple(note for note in notes if note)


def _put_back(engine: MergeEngine, graph: Graph, found: Sequence[tuple[Kept, TableUndo]]) -> None:
    """Run the statements that touch rows; triggers may fire for one that touches none."""
    by_name = {one.table.name: one for one, _ in found}
    statements = {one.table.name: table.statements for one, table in found}
    between = [one for one in graph.references if one.child in by_name and one.parent in by_name]
    order, late = order_tables(by_name, between)
    engine.prepare([by_name[name].table for name in order], late)
    # First what was written over: a row may refer to one that goes, and would go with it.
    for kind, carry_out, names in (
        ("UPDATE", _update, order),
        ("DELETE", _delete, order[::-1]),
        ("INSERT", _insert, order),
    ):
        for name in names:
            if kind in statements[name]:
                carry_out(engine, by_name[name])
    engine.check()
    for name in order:
        _verify(engine, by_name[name])


def _update(engine: MergeEngine, kept: Kept) -> None:
    table, before = kept.table, kept.before
    changed = [one for one in before.columns if one.changeable and one.name not in table.key]
    if changed and table.key:
        values = ", ".join(f"{quote(column.name)} = b.c{column.number}" for column in changed)
        engine.run(
            f"UPDATE {table.reading} AS l SET {values} FROM {before.name} AS b "
            f"WHERE b.state = {_LEFT} AND {before.key_matches('l', 'b')}"
        )


def _delete(engine: MergeEngine, kept: Kept) -> None:
    table, after = kept.table, kept.after
    if table.key:
        engine.run(
            f"DELETE FROM {table.reading} AS l WHERE EXISTS (SELECT 1 FROM {after.name} AS a "
            f"WHERE a.state = {_LEFT} AND a.was = 0 AND {after.key_matches('l', 'a')})"
        )
        return
    place, digest = engine.place_of(table, "l"), kept.live_digest(engine, "l")
    named = ", ".join(f"{part} AS p{number}" for number, part in enumerate(place))
    chosen = ", ".join(f"s.p{number}" for number in range(len(place)))
    engine.run(
        f"DELETE FROM {table.reading} AS l WHERE ({', '.join(place)}) IN (SELECT {chosen} FROM "
        f"(SELECT {named}, {digest} AS d, row_number() OVER (PARTITION BY {digest}) AS k "
        f"FROM {table.reading} AS l) AS s JOIN {after.name} AS a ON a.digest = s.d "
        f"WHERE a.state = {_LEFT} AND s.k <= a.remains - a.was)"
    )


def _insert(engine: MergeEngine, kept: Kept) -> None:
    before = kept.before
    names = ", ".join(quote(name) for name in kept.names)
    own = ", ".join(f"b.c{column.number}" for column in before.columns)
    deleted = f" AND {_is_deleted(kept)}" if kept.table.key else ""
    if own:
        engine.run(
            f"INSERT INTO {kept.table.place} ({names}){engine.overriding} "
            f"SELECT {own} FROM {before.name} AS b WHERE b.state = {_LEFT}{deleted} ORDER BY b.n"
        )


def _verify(engine: MergeEngine, kept: Kept) -> None:
    """Look whether each row is as it was before; raise `VerificationFailed`, unless triggers had a say."""
    table, before, after = kept.table, kept.before, kept.after
    if table.triggers:
        return
    if table.key:
        here = f"SELECT 1 FROM {table.reading} AS l WHERE"
        wrong = engine.number(
            f"SELECT count(*) FROM {before.name} AS b WHERE b.state = {_LEFT} AND NOT EXISTS "
            f"({here} {before.key_matches('l', 'b')} AND {kept.live_digest(engine, 'l')} = b.digest)"
        ) + engine.number(
            f"SELECT count(*) FROM {after.name} AS a WHERE a.state = {_LEFT} AND a.was = 0 AND EXISTS "
            f"({here} {after.key_matches('l', 'a')})"
        )
    else:
        wrong = engine.number(
            f"SELECT count(*) FROM {after.name} AS a WHERE a.state = {_LEFT} AND a.was <> "
            f"coalesce((SELECT f.many FROM ({kept.counted(engine)}) AS f WHERE f.d = a.digest), 0)"
        )
    if wrong:
        raise VerificationFailed(
            f"{count_of(wrong, 'row')} of {table.name} {agree(wrong, 'was', 'were')} not found again as "
            "before the restore. Everything was taken back; nothing live was changed."
        )
