"""What becomes of each marked row, which parents it needs, and what keeps it from going in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backup_admin.core.shown import agree, count_of
from backup_admin.sources.merging.graph import quote
from backup_admin.sources.merging.merge_model import Clash, OnConflict
from backup_admin.sources.merging.working import (
    EQUAL,
    INSERT,
    OVERWRITE,
    OWNED,
    REQUIRED,
    SKIP,
    UNDECIDED,
    WRITTEN,
    all_of,
    none_is_null,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.sources.merging.graph import Reference, UniqueKey
    from backup_admin.sources.merging.merge_model import MergeEngine
    from backup_admin.sources.merging.working import Work, Workbench

_SHOWN_CLASHES = 20


def decide(bench: Workbench, work: Work, policy: OnConflict) -> None:
    """Decide about the marked rows of a table that nothing was decided about yet."""
    engine = bench.engine
    if policy is not OnConflict.COPY:
        if work.table.key:
            _compare_by_key(bench, work, policy)
        else:
            _compare_whole(bench, work)
    engine.run(f"UPDATE {work.name} SET act = {INSERT} WHERE mark > 0 AND act = {UNDECIDED}")


def _compare_by_key(bench: Workbench, work: Work, policy: OnConflict) -> None:
    compared = [column.name for column in work.columns if column.name not in work.table.key]
    own, live = work.own(compared, "w"), work.live(compared, "l")
    same = [bench.engine.same(*pair) for pair in zip(own, live, strict=True)]
    differs = SKIP if policy is OnConflict.SKIP else OVERWRITE
    bench.engine.run(
        f"UPDATE {work.name} AS w SET act = CASE "
        f"WHEN {' AND '.join(same) or 'TRUE'} THEN {EQUAL} WHEN w.mark = {REQUIRED} THEN {SKIP} "
        f"ELSE {differs} END FROM {work.table.reading} AS l "
        f"WHERE w.mark > 0 AND w.act = {UNDECIDED} AND {work.key_matches('l', 'w')}"
    )


def _compare_whole(bench: Workbench, work: Work) -> None:
    """Compare rows without a key as wholes; of equal ones only as many are new as live lacks."""
    names = [column.name for column in work.columns]
    own, live = bench.engine.whole(work.own(names, "w")), bench.engine.whole(work.live(names, "l"))
    bench.engine.run(
        f"UPDATE {work.name} SET act = {EQUAL} WHERE n IN (SELECT s.n FROM "
        f"(SELECT n, t, row_number() OVER (PARTITION BY t ORDER BY n) AS k FROM "
        f"(SELECT w.n, {own} AS t FROM {work.name} AS w WHERE w.mark > 0) AS r) AS s JOIN "
        f"(SELECT t, count(*) AS many FROM (SELECT {live} AS t FROM {work.table.reading} AS l) AS r "
        f"GROUP BY t) AS f ON f.t = s.t AND s.k <= f.many)"
    )


def require_parents(bench: Workbench, policy: OnConflict) -> None:
    """Mark the parents that rows to be written lack, and theirs: only what is not live."""
    while sum(_require(bench, *way, policy) for way in list(bench.references())):
        pass


def _require(bench: Workbench, one: Reference, child: Work, policy: OnConflict) -> bool:
    lacks = _lacks_live_parent(bench, one, child)
    if one.parent not in bench.works:
        if not bench.count(child, lacks):
            return False
        if bench.get(one.parent) is not None:
            bench.engine.lock([bench.works[one.parent].table])
    parent = bench.works.get(one.parent)
    if parent is None or not parent.has(one.parent_columns):
        return False
    wanted = ", ".join(f"{own} AS k{number}" for number, own in enumerate(child.own(one.columns, child.name)))
    keys = [f"k.k{number}" for number in range(len(one.columns))]
    found = bench.engine.run(
        f"UPDATE {parent.name} AS p SET mark = {REQUIRED} "
        f"FROM (SELECT DISTINCT {wanted} FROM {child.name} WHERE {lacks}) AS k "
        f"WHERE p.mark = 0 AND {all_of(parent.own(one.parent_columns, 'p'), one.equals, keys)}"
    )
    if found:
        # What is brought along is never written over what is there, whatever the policy.
        decide(bench, parent, OnConflict.SKIP if policy is OnConflict.COPY else policy)
    return found > 0


def _lacks_live_parent(bench: Workbench, one: Reference, child: Work) -> str:
    """Write the condition for rows to be written whose parent is not live."""
    parent = bench.graph.tables[one.parent]
    own = child.own(one.columns, child.name)
    live = [f"lp.{quote(name)}" for name in one.parent_columns]
    return (
        f"{WRITTEN} AND {none_is_null(own)} AND NOT EXISTS "
        f"(SELECT 1 FROM {parent.reading} AS lp WHERE {all_of(live, one.equals, own)})"
    )


def find_orphans(bench: Workbench) -> Iterator[str]:
    """Yield a sentence for each reference that rows to be written would break."""
    for one, child in bench.references():
        lacks = _lacks_live_parent(bench, one, child)
        parent = bench.works.get(one.parent)
        if parent is not None and parent.has(one.parent_columns):
            own = child.own(one.columns, child.name)
            match = all_of(parent.own(one.parent_columns, "p"), one.equals, own)
            lacks += f" AND NOT EXISTS (SELECT 1 FROM {parent.name} AS p WHERE p.{WRITTEN} AND {match})"
        if count := bench.count(child, lacks):
            yield (
                f"{count_of(count, 'row')} of {one.child} {agree(count, 'refers', 'refer')} "
                f"({', '.join(one.columns)}) to rows of {one.parent} that are not live and cannot come along."
            )


def gone_condition(engine: MergeEngine, work: Work, alias: str = "l") -> str:
    """Write the condition for live rows that the snapshot does not have."""
    if not work.table.key:
        return _place_in(engine, work, alias, "s.k > coalesce(f.many, 0)")
    return f"NOT {_is_in_snapshot(work, alias)}"


def _stays_condition(engine: MergeEngine, work: Work, alias: str) -> str:
    """Write the condition for live rows that the snapshot has, so that a server can join by it."""
    if not work.table.key:
        return _place_in(engine, work, alias, "s.k <= f.many")
    return _is_in_snapshot(work, alias)


def _is_in_snapshot(work: Work, alias: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM {work.name} AS w WHERE w.mark = {OWNED} AND {work.key_matches(alias, 'w')})"
    )


def _place_in(engine: MergeEngine, work: Work, alias: str, which: str) -> str:
    """Write the condition that a row without a key is one of some: `s.k` numbers live ones that are equal.

    `f.many` is how many of those the snapshot has too; which of equal ones go is settled by where they lie.
    """
    names = [column.name for column in work.columns]
    own, live = engine.whole(work.own(names, "w")), engine.whole(work.live(names, "g"))
    place, there = engine.place_of(work.table, "g"), engine.place_of(work.table, alias)
    named = ", ".join(f"{part} AS p{number}" for number, part in enumerate(place))
    chosen = ", ".join(f"s.p{number}" for number in range(len(place)))
    return (
        f"({', '.join(there)}) IN (SELECT {chosen} FROM (SELECT {named}, {live} AS t, row_number() OVER "
        f"(PARTITION BY {live} ORDER BY {', '.join(place)}) AS k FROM {work.table.reading} AS g) AS s "
        f"LEFT JOIN (SELECT t, count(*) AS many FROM (SELECT {own} AS t FROM {work.name} AS w "
        f"WHERE w.mark = {OWNED} AND w.act = {EQUAL}) AS r GROUP BY t) AS f ON f.t = s.t WHERE {which})"
    )


def find_referred(bench: Workbench, replaced: list[Work]) -> Iterator[str]:
    """Yield a sentence for each reference to rows that would go from tables that are replaced."""
    works = {work.table.name: work for work in replaced}
    for one in bench.graph.references:
        parent = works.get(one.parent)
        if parent is None:
            continue
        child = bench.graph.tables[one.child]
        columns = [f"k.{quote(name)}" for name in one.columns]
        match = all_of([f"l.{quote(name)}" for name in one.parent_columns], one.equals, columns)
        stays = ""
        if one.child in works:
            stays = f" AND {_stays_condition(bench.engine, works[one.child], 'k')}"
        gone = gone_condition(bench.engine, parent)
        query = (
            f"SELECT count(*) FROM {child.reading} AS k WHERE {none_is_null(columns)}{stays} AND EXISTS "
            f"(SELECT 1 FROM {parent.table.reading} AS l WHERE {match} AND {gone})"
        )
        if count := bench.engine.number(query):
            yield (
                f"{count_of(count, 'live row')} of {one.child} {agree(count, 'refers', 'refer')} "
                f"({', '.join(one.columns)}) to rows of {one.parent} that would go."
            )


def find_clashes(bench: Workbench, policy: OnConflict, replaced: list[Work]) -> Iterator[Clash]:
    """Yield rows that cannot go in since another live row has their unique values; not all of many.

    A copy may also meet a live row of the same key, where its key is none that can be made anew.
    """
    for work in bench.works.values():
        if policy is OnConflict.COPY and work.table.key:
            yield from _taken_keys(bench, work)
        for unique in work.table.uniques:
            if work.has(unique.columns):
                stays = _stays_condition(bench.engine, work, "t") if work in replaced else ""
                for row in bench.engine.rows(_clash_query(work, unique, stays)):
                    keys = len(work.table.key)
                    yield Clash(
                        work.table.name, _unique_words(unique), _shown(row[:keys]), _shown(row[keys:])
                    )


def _unique_words(unique: UniqueKey) -> str:
    """Name the columns, and the index where it is called otherwise."""
    columns = ", ".join(unique.columns)
    return columns if unique.name == columns else f"{columns} ({unique.name})"


def _taken_keys(bench: Workbench, work: Work) -> Iterator[Clash]:
    shown = ", ".join(work.live(work.table.key, "l"))
    query = (
        f"SELECT {shown} FROM {work.table.reading} AS l JOIN {work.name} AS w "
        f"ON {work.key_matches('l', 'w')} AND w.act = {INSERT} LIMIT {_SHOWN_CLASHES}"
    )
    for row in bench.engine.rows(query):
        yield Clash(work.table.name, "the primary key", _shown(row), _shown(row))


def _clash_query(work: Work, unique: UniqueKey, stays: str) -> str:
    """Write the query for our keys and live keys of rows that clash."""
    parts = [f"{part} AS u{number}" for number, part in enumerate(unique.parts)]
    conditions = [f"({unique.condition})"] if unique.condition else []
    ours = f"SELECT *, {', '.join(parts)} FROM ({work.as_live(WRITTEN)}) AS t{_where(conditions)}"
    conditions += [stays] if stays else []
    theirs = f"SELECT *, {', '.join(parts)} FROM {work.table.reading} AS t{_where(conditions)}"
    pairs = [(f"l.u{number}", equal, f"s.u{number}") for number, equal in enumerate(unique.equals)]
    if unique.nulls_are_equal:
        same = [f"({a} {equal} {b} OR ({a} IS NULL AND {b} IS NULL))" for a, equal, b in pairs]
    else:
        same = [f"{a} {equal} {b}" for a, equal, b in pairs]
    key = work.table.key
    other, shown = "", "'', ''"
    if key:
        other = (
            f" AND NOT ({all_of(work.live(key, 'l'), work.table.key_equals, work.live(key, 's'))})"
            f" AND NOT EXISTS (SELECT 1 FROM {work.name} AS w WHERE w.{WRITTEN} "
            f"AND {work.key_matches('l', 'w')})"
        )
        shown = ", ".join([*work.live(key, "s"), *work.live(key, "l")])
    return (
        f"SELECT {shown} FROM ({ours}) AS s JOIN ({theirs}) AS l ON {' AND '.join(same)}{other} "
        f"LIMIT {_SHOWN_CLASHES}"
    )


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _shown(values: tuple[Any, ...]) -> str:
    return ",".join(map(str, values)).encode("utf-8", "backslashreplace").decode()
