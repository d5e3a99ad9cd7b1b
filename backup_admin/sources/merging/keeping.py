"""What a merge changes is kept: rows as they were before it, and what tells the rows that it left.

Of a table with a key that is each row; of one without, how often equal rows were there before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.sources.merging.deciding import gone_condition
from backup_admin.sources.merging.working import INSERT, OVERWRITE, WRITTEN, Work, all_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.sources.merging.graph import LiveColumn, LiveTable
    from backup_admin.sources.merging.merge_model import MergeEngine, TableMerge
    from backup_admin.sources.merging.working import Workbench

BEFORE_OWN = ("digest text", "state smallint NOT NULL DEFAULT 0")
AFTER_OWN = ("digest text", "was bigint", "remains bigint", "state smallint NOT NULL DEFAULT 0")


@dataclass(frozen=True, slots=True)
class Kept:
    """Two tables of ours about one live table.

    `before` holds whole rows as they were. `after` has the key and the digest of each row that the merge
    left, or only a digest where there is no key; `was` and `remains` count the rows of it before and after.
    """

    before: Work
    after: Work

    @property
    def table(self) -> LiveTable:
        """The live table."""
        return self.before.table

    @property
    def names(self) -> list[str]:
        """The columns of a whole row."""
        return [column.name for column in self.before.columns]

    def live_digest(self, engine: MergeEngine, alias: str) -> str:
        """Write the expression for the digest of a live row."""
        return engine.digest(self.before.live(self.names, alias))

    def own_digest(self, engine: MergeEngine, alias: str) -> str:
        """Write the expression for the digest of a row as it was before."""
        return engine.digest(self.before.own(self.names, alias))

    def same_key(self, before: str, after: str) -> str:
        """Write the condition that rows of both our tables have the same key."""
        key = self.table.key
        return all_of(self.before.own(key, before), self.table.key_equals, self.after.own(key, after))

    def counted(self, engine: MergeEngine) -> str:
        """Write the query for how often each row is live."""
        digest = self.live_digest(engine, "l")
        return (
            f"SELECT d, count(*) AS many FROM (SELECT {digest} AS d FROM {self.table.reading} AS l) AS r "
            "GROUP BY d"
        )


def make_kept(engine: MergeEngine, number: int, table: LiveTable, columns: Sequence[LiveColumn]) -> Kept:
    """Make the two tables, empty."""
    key = tuple(column for name in table.key for column in columns if column.name == name)
    before = engine.make(f"b{number}", BEFORE_OWN, columns, key)
    after = engine.make(f"a{number}", AFTER_OWN, key, key)
    return Kept(Work(table, before, tuple(columns)), Work(table, after, key))


def keep_before(bench: Workbench, tables: Sequence[TableMerge], replaced: Sequence[Work]) -> list[Kept]:
    """Keep what the rows that will be written over or deleted are now; nothing was written yet."""
    found = []
    for number, name in enumerate(one.table for one in tables if one.changes):
        work = bench.works[name]
        columns = [column for column in work.table.columns if column.written]
        kept = make_kept(bench.engine, number, work.table, columns)
        _keep_rows(bench, kept, work, is_replaced=work in replaced)
        found.append(kept)
    return found


def keep_after(bench: Workbench, kept: Sequence[Kept]) -> None:
    """Keep what tells the rows that were written, as they are now that all is written."""
    for one in kept:
        if one.table.key:
            _keep_written(bench, one, bench.works[one.table.name])
        else:
            _keep_counts(bench, one)


def _keep_rows(bench: Workbench, kept: Kept, work: Work, *, is_replaced: bool) -> None:
    engine, before = bench.engine, kept.before
    own = ", ".join(f"c{column.number}" for column in before.columns)
    rows = f"SELECT {', '.join(before.live(kept.names, 'l'))} FROM {work.table.reading} AS l"
    if is_replaced and own:
        # Of a table without a key all of it: how often rows were there is compared when all is written.
        gone = f" WHERE {gone_condition(engine, work)}" if work.table.key else ""
        engine.run(f"INSERT INTO {before.name} ({own}) {rows}{gone}")
    if not work.table.key:
        counts = f"SELECT d, many, 0 FROM ({kept.counted(engine)}) AS f"
        engine.run(f"INSERT INTO {kept.after.name} (digest, was, remains) {counts}")
        return
    engine.run(
        f"INSERT INTO {before.name} ({own}) {rows} WHERE EXISTS (SELECT 1 FROM {work.name} AS w "
        f"WHERE w.act = {OVERWRITE} AND {work.key_matches('l', 'w')})"
    )


def _keep_written(bench: Workbench, kept: Kept, work: Work) -> None:
    own = ", ".join(f"c{column.number}" for column in kept.after.columns)
    key = ", ".join(work.live(work.table.key, "l"))
    bench.engine.run(
        f"INSERT INTO {kept.after.name} (digest, was, remains, {own}) "
        f"SELECT {kept.live_digest(bench.engine, 'l')}, CASE w.act WHEN {INSERT} THEN 0 ELSE 1 END, 1, {key} "
        f"FROM {work.table.reading} AS l JOIN {work.name} AS w "
        f"ON w.{WRITTEN} AND {work.key_matches('l', 'w')}"
    )


def _keep_counts(bench: Workbench, kept: Kept) -> None:
    engine, before, after = bench.engine, kept.before.name, kept.after.name
    counted = kept.counted(engine)
    engine.run(f"UPDATE {after} AS a SET remains = f.many FROM ({counted}) AS f WHERE f.d = a.digest")
    engine.run(
        f"INSERT INTO {after} (digest, was, remains) SELECT d, 0, many FROM ({counted}) AS f "
        f"WHERE NOT EXISTS (SELECT 1 FROM {after} AS a WHERE a.digest = f.d)"
    )
    engine.run(f"DELETE FROM {after} WHERE was = remains")
    engine.run(f"UPDATE {before} AS b SET digest = {kept.own_digest(engine, 'b')}")
    engine.run(
        f"DELETE FROM {before} WHERE n NOT IN (SELECT s.n FROM (SELECT b.n, b.digest, row_number() OVER "
        f"(PARTITION BY b.digest ORDER BY b.n) AS k FROM {before} AS b) AS s "
        f"JOIN {after} AS a ON a.digest = s.digest AND s.k <= a.was - a.remains)"
    )
