"""Rows of a snapshot beside the live ones, with a mark for why each is wanted and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused
from backup_admin.sources.merging.graph import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.sources.merging.graph import Graph, LiveColumn, LiveTable, Reference
    from backup_admin.sources.merging.merge_model import MergeEngine

# Marks: why a row is wanted.
OWNED, REQUIRED = 1, 2
# Acts: what becomes of it.
UNDECIDED, INSERT, EQUAL, OVERWRITE, SKIP = 0, 1, 2, 3, 4
WRITTEN = f"act IN ({INSERT}, {OVERWRITE})"


@dataclass(frozen=True, slots=True)
class Work:
    """The rows that the snapshot has of one table, under the name of our table."""

    table: LiveTable
    name: str
    columns: tuple[LiveColumn, ...]

    def has(self, names: Sequence[str]) -> bool:
        """Say whether the snapshot has these columns too."""
        known = {column.name for column in self.columns}
        return all(name in known for name in names)

    def column(self, name: str) -> str:
        """Return our name of a column."""
        return next(f"c{column.number}" for column in self.columns if column.name == name)

    def own(self, names: Sequence[str], alias: str) -> list[str]:
        """Return our names of columns, for a query that calls the table by an alias."""
        return [f"{alias}.{self.column(name)}" for name in names]

    def live(self, names: Sequence[str], alias: str) -> list[str]:
        """Return the live names of columns, for a query that calls the live table by an alias."""
        return [f"{alias}.{quote(name)}" for name in names]

    def key_matches(self, live: str, own: str) -> str:
        """Write the condition that a live row and one of ours have the same primary key."""
        key = self.table.key
        return all_of(self.live(key, live), self.table.key_equals, self.own(key, own))

    def as_live(self, where: str) -> str:
        """Write a query for our rows with the names of the live columns, and our own columns beside."""
        named = [f"c{column.number} AS {quote(column.name)}" for column in self.columns]
        # A number goes first: a table may have no column at all.
        columns = ", ".join(['n AS "  n"', *named])
        return f"SELECT {columns} FROM {self.name} WHERE {where}"


class Workbench:
    """The tables of ours that were made so far; each is filled when it is first needed."""

    def __init__(self, engine: MergeEngine, graph: Graph) -> None:
        self.engine = engine
        self.graph = graph
        self.works: dict[str, Work] = {}
        self.lacking: set[str] = set()
        self.notes: list[str] = []

    def need(self, name: str) -> Work:
        """Return the rows of a table that was asked for by name; raise `RestoreRefused` if there are none."""
        work = self.get(name)
        if work is None:
            raise RestoreRefused(f"The snapshot has no table {name!r}. Nothing was touched.")
        return work

    def get(self, name: str) -> Work | None:
        """Return the rows of a table; None when the snapshot has no such table."""
        if name in self.works:
            return self.works[name]
        if name in self.lacking:
            return None
        table = self.graph.tables[name]
        loaded = self.engine.load(len(self.works), table)
        if loaded is None:
            self.lacking.add(name)
            return None
        work = Work(table, loaded.name, loaded.columns)
        if table.key and not work.has(table.key):
            raise RestoreRefused(
                f"The primary key of {name} has a column that the snapshot does not have, so no row can be "
                "told from another. Nothing was touched."
            )
        self.works[name] = work
        self._tell_columns(work, loaded.left_out)
        return work

    def references(self) -> Iterator[tuple[Reference, Work]]:
        """Yield every reference whose columns the snapshot has, with the table that it starts from."""
        for one in self.graph.references:
            child = self.works.get(one.child)
            if child is not None and child.has(one.columns):
                yield one, child

    def count(self, work: Work, where: str) -> int:
        """Return how many of our rows fulfil a condition."""
        return self.engine.number(f"SELECT count(*) FROM {work.name} WHERE {where}")

    def _tell_columns(self, work: Work, left_out: Sequence[str]) -> None:
        if left_out:
            names = ", ".join(left_out)
            self.notes.append(
                f"{work.table.name}: live takes no value for {names}; what the snapshot has is left out."
            )
        known = {column.name for column in work.columns}
        new = [one.name for one in work.table.columns if one.written and one.name not in known]
        if new:
            self.notes.append(
                f"{work.table.name}: the snapshot does not have {', '.join(new)}; new rows get the default."
            )


def all_of(left: Sequence[str], operators: Sequence[str], right: Sequence[str]) -> str:
    """Write the condition that expressions compare pair by pair."""
    pairs = zip(left, operators, right, strict=True)
    return " AND ".join(f"{one} {operator} {other}" for one, operator, other in pairs)


def none_is_null(values: Sequence[str]) -> str:
    """Write the condition that no value is NULL."""
    return " AND ".join(f"{value} IS NOT NULL" for value in values)
