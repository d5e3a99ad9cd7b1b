"""What is asked of a merge and what came of it, and the engine that carries its statements out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from backup_admin.sources.merging.graph import LiveColumn, LiveTable, Reference


class OnConflict(StrEnum):
    """What becomes of a row that is live already, and different."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    COPY = "copy"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """Which rows of a snapshot go into a live database.

    `tables` are whole tables; `rows` are tables with the text of a primary key, and bring what they own.
    `links` are tables and columns that hold paths.
    """

    tables: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    on_conflict: OnConflict = OnConflict.SKIP
    links: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "on_conflict": self.on_conflict.value}


def _kinds(inserted: int, updated: int, deleted: int) -> frozenset[str]:
    counts = {"INSERT": inserted, "UPDATE": updated, "DELETE": deleted}
    return frozenset(kind for kind, count in counts.items() if count)


@dataclass(frozen=True, slots=True)
class TableMerge:
    """Rows of one table. `parents` are missing ones that other rows need; they are not in `insert`."""

    table: str
    insert: int = 0
    overwrite: int = 0
    skip: int = 0
    equal: int = 0
    parents: int = 0
    delete: int = 0

    @property
    def changes(self) -> int:
        """How many rows of the live table are touched."""
        return self.insert + self.overwrite + self.parents + self.delete

    @property
    def statements(self) -> frozenset[str]:
        """The kinds of statements that touch the live table: what triggers go by."""
        return _kinds(self.insert + self.parents, self.overwrite, self.delete)


@dataclass(frozen=True, slots=True)
class Clash:
    """A row that cannot go in, since a live row with another key has what may be there once only."""

    table: str
    unique: str
    row: str
    live_row: str


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was done, or would be. With `refusals` or `clashes` nothing was."""

    tables: tuple[TableMerge, ...]
    clashes: tuple[Clash, ...] = ()
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether something keeps it from being carried out."""
        return bool(self.clashes or self.refusals)

    @property
    def changes(self) -> int:
        """How many live rows are touched."""
        return sum(table.changes for table in self.tables)


def request_from_json(value: Mapping[str, Any]) -> MergeRequest:
    """Read a request; raise `KeyError` or `ValueError`."""
    return MergeRequest(
        tuple(map(str, value["tables"])),
        tuple((str(table), str(key)) for table, key in value["rows"]),
        OnConflict(value["on_conflict"]),
        tuple((str(table), str(column)) for table, column in value["links"]),
    )


def report_from_json(value: Mapping[str, Any]) -> MergeReport:
    """Read a report; raise `KeyError` or `TypeError`."""
    return MergeReport(
        tuple(TableMerge(**row) for row in value["tables"]),
        tuple(Clash(**row) for row in value["clashes"]),
        tuple(map(str, value["refusals"])),
        tuple(map(str, value["notes"])),
    )


@dataclass(frozen=True, slots=True)
class TableUndo:
    """Rows of one table that an undo deleted, put back as they were, or brought back."""

    table: str
    deleted: int = 0
    put_back: int = 0
    brought_back: int = 0

    @property
    def changes(self) -> int:
        """How many rows of the live table are touched."""
        return self.deleted + self.put_back + self.brought_back

    @property
    def statements(self) -> frozenset[str]:
        """The kinds of statements that touch the live table: what triggers go by."""
        return _kinds(self.brought_back, self.put_back, self.deleted)

    @property
    def statements_before(self) -> frozenset[str]:
        """The kinds of statements that did at the restore what is taken back."""
        return _kinds(self.deleted, self.put_back, self.brought_back)


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What an undo did, or would do. With `changed` or `refusals` it did nothing.

    `changed` names rows that are no longer what the restore left, `already` counts those that are as they
    were before it.
    """

    tables: tuple[TableUndo, ...]
    changed: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    already: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether something keeps it from being carried out."""
        return bool(self.changed or self.refusals)

    @property
    def left(self) -> int:
        """How many rows are still what the restore left."""
        return sum(table.changes for table in self.tables)


def undo_report_from_json(value: Mapping[str, Any]) -> UndoReport:
    """Read a report; raise `KeyError` or `TypeError`."""
    return UndoReport(
        tuple(TableUndo(**row) for row in value["tables"]),
        tuple(map(str, value["changed"])),
        tuple(map(str, value["refusals"])),
        tuple(map(str, value["notes"])),
        int(value["already"]),
    )


class LoadedTable(NamedTuple):
    """A table of ours: its name, the columns that both sides have, and those that only the snapshot has."""

    name: str
    columns: tuple[LiveColumn, ...]
    left_out: tuple[str, ...]


class MergeEngine(Protocol):
    """One database in one transaction, with rows of the snapshot beside it in tables of our own.

    Such a table has the columns `n` (a number), `part` (the partition the row came from), `mark`, `act`, and
    `c0`, `c1` and so on for the columns that both the snapshot and the live table have.
    """

    overriding: str
    """What an INSERT says so that numbers of its own go into columns that number by themselves."""

    def run(self, statement: str) -> int:
        """Carry a statement out and return how many rows it touched."""

    def rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds; all of it is to be taken, before anything else is asked."""

    def number(self, statement: str) -> int:
        """Return the one number that a query finds."""

    def absent(self) -> list[str]:
        """Return the names of tables that the snapshot has and the live database does not."""

    def absent_below(self, tables: Iterable[str]) -> list[str]:
        """Return those of them whose rows may belong to rows of these, as far as the snapshot tells."""

    def other_kind(self, name: str) -> str:
        """Say what a name is that no table of rows has, such as "a view"; nothing when it is not known."""

    def load(self, number: int, table: LiveTable) -> LoadedTable | None:
        """Make a table of the snapshot's rows; None if the snapshot does not have it."""

    def make(
        self, name: str, own: Sequence[str], columns: Sequence[LiveColumn], key: Sequence[LiveColumn]
    ) -> str:
        """Make an empty table of ours with columns of these definitions beside; return what it is called.

        It has the column `n` as well, and is quickly searched by `key`.
        """

    def fill(self, name: str, columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
        """Put rows into a table of ours, with values as `kept` gave them."""

    def kept(self, value: str) -> str:
        """Write the expression for a value in the form in which it is kept outside of the database."""

    def digest(self, values: Sequence[str]) -> str:
        """Write the expression for a digest of all values of a row."""

    def place_of(self, table: LiveTable, alias: str) -> list[str]:
        """Write what tells one row of a table without a key from another, for as long as it stays there."""

    def part_of(self, partition: str) -> int:
        """Return the number that rows of a partition carry in `part`."""

    def lock(self, tables: Sequence[LiveTable]) -> None:
        """Keep others from writing to tables until the end."""

    def same(self, left: str, right: str) -> str:
        """Write the condition that two values are the same to the last bit, or both NULL."""

    def whole(self, values: Sequence[str]) -> str:
        """Write the expression for all values of a row as one text."""

    def matches(self, value: str, column: LiveColumn, text: str) -> str:
        """Write the condition that a column has a value that a person wrote."""

    def fresh(self, column: LiveColumn, table: LiveTable, own: str, *, dry: bool) -> str | None:
        """Write the expression for new values of a key, for rows that `r.k` counts; None without any.

        `own` is our table of the rows.
        """

    def prepare(self, touched: Sequence[LiveTable], late: Sequence[Reference]) -> None:
        """Get ready to write to tables, and put the check of some references off to `check`."""

    def check(self) -> None:
        """Check what was put off; raise when rows lack their parents."""

    def move_sequences(self, tables: Sequence[LiveTable]) -> None:
        """See to it that what numbers rows by itself is past all rows."""
