"""The tables of a live database and how their rows hang together, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_SHOWN_NAMES = 12


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A column: its type as a statement names it, and whether a row may bring a value for it.

    `number` tells columns of a table apart without their names; `collation` is how text is ordered, as a
    clause; `sequence` is what fills it by itself.
    """

    number: int
    name: str
    type: str
    collation: str = ""
    written: bool = True
    changeable: bool = True
    sequence: str = ""


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """What may be there once only, beside the primary key.

    `parts` are expressions over the names of `columns`, `equals` the operators that compare them, and
    `condition` says which rows it counts for.
    """

    name: str
    columns: tuple[str, ...]
    parts: tuple[str, ...]
    equals: tuple[str, ...]
    condition: str = ""
    nulls_are_equal: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key: columns of `child` name a row of `parent`.

    `owns` says that a child does not outlive its parent: the key neither sets NULL nor a default on delete.
    `place` is the table that has the key, as a statement names it, where that is not the child.
    """

    name: str
    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    equals: tuple[str, ...]
    owns: bool
    is_deferrable: bool = True
    place: str = ""


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table that rows go into: `place` is what is written to, `reading` what is read and changed.

    The operators in `key_equals` compare the columns of the primary key. `triggers` of the app fire for these
    kinds of statements.
    """

    name: str
    place: str
    reading: str
    columns: tuple[LiveColumn, ...]
    key: tuple[str, ...]
    key_equals: tuple[str, ...]
    uniques: tuple[UniqueKey, ...] = ()
    triggers: frozenset[str] = frozenset()

    def column(self, name: str) -> LiveColumn | None:
        """Return the column of this name."""
        return next((one for one in self.columns if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Graph:
    """All tables by name, and their references. `partitions` leads from a partition to its table."""

    tables: Mapping[str, LiveTable]
    references: tuple[Reference, ...]
    partitions: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> tuple[LiveTable, str]:
        """Return a table, and the partition that was meant if it was one; raise `RestoreRefused`."""
        for known in (name, name.removeprefix("public.")):
            if known in self.tables:
                return self.tables[known], ""
            if known in self.partitions:
                return self.tables[self.partitions[known]], known
        shown = ", ".join(sorted(self.tables)[:_SHOWN_NAMES])
        more = ", …" if len(self.tables) > _SHOWN_NAMES else ""
        raise RestoreRefused(
            f"The live database has no table {name!r} to restore into; it has {shown or 'none'}{more}. "
            "Nothing was touched. Let the app's migrations make it, or restore the database with --to "
            "and take it from there."
        )

    def kept_by_copies(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield by table the columns that are unique and that a copy of a row keeps as they are.

        A copy has another key, and what refers to rows that are copied with it follows: so it clashes on
        these as long as the original is live.
        """
        follows = {(one.child, name) for one in self.references for name in one.columns}
        for table in self.tables.values():
            for unique in table.uniques:
                new = [name for name in unique.columns if name in table.key or (table.name, name) in follows]
                if unique.columns and not new:
                    yield table.name, unique.columns

    def owned_by(self, tables: Iterable[str]) -> set[str]:
        """Return these tables and all whose rows may belong to rows of them."""
        found = set(tables)
        while more := {one.child for one in self.references if one.owns and one.parent in found} - found:
            found |= more
        return found


def quote(name: str) -> str:
    """Return a name as a statement has it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """Return a text as a statement has it."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def order_tables(names: Iterable[str], references: Iterable[Reference]) -> tuple[list[str], list[Reference]]:
    """Return tables with parents before children, and the references that circles leave the wrong way."""
    left = sorted(set(names))
    between = [one for one in references if one.child != one.parent]
    order: list[str] = []
    late: list[Reference] = []
    while left:
        waiting = {
            name: [one for one in between if one.child == name and one.parent in left] for name in left
        }
        chosen = min(left, key=lambda name: (len(waiting[name]), name))
        late += waiting[chosen]
        order.append(chosen)
        left.remove(chosen)
    return order, late
