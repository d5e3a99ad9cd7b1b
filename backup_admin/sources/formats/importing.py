"""Load a json export into tables that are there and empty: one transaction, read back and compared.

The two kinds of target are `sqlite_import` and `postgres.import_json`. This runs in the process that holds
the connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from backup_admin.core.errors import RestoreRefused, VerificationFailed
from backup_admin.core.shown import count_of
from backup_admin.sources.formats.imported import ImportReport, Refusal, TableResult
from backup_admin.sources.formats.json_lines import RowSum, read_export, read_head, read_rows
from backup_admin.sources.formats.matching import Pair, match_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from backup_admin.sources.formats.imported import ImportOptions
    from backup_admin.sources.formats.json_lines import Export
    from backup_admin.sources.formats.matching import TargetTable

_BATCH_ROWS = 1000
_BATCH_BYTES = 4 << 20
_LISTED = 200
_GIVE_UP = 1000


class Refused(Exception):
    """A value that the target has no place for; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A row that refers to one that is not there, or to one left out for that.

    `row` in its form for comparing, when it was taken out.
    """

    table: TargetTable
    reason: str
    row: bytes | None


class Target(Protocol):
    """A database in a transaction that rows are loaded into."""

    engine: str

    def tables(self) -> list[TargetTable]:
        """Return the tables that may take rows."""
        ...

    def caster(self, pair: Pair) -> Any:
        """Return what makes a row for `insert` of one of the export; it raises `Refused`."""
        ...

    def begin(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Set triggers aside, defer what must wait, and return the tables with parents first."""
        ...

    def has_rows(self, table: TargetTable) -> bool:
        """Say whether a table holds anything of the app's."""
        ...

    def clear(self, table: TargetTable) -> None:
        """Take out what a table of a virtual one begins with; others are left alone."""
        ...

    def insert(self, pair: Pair, rows: list[Any]) -> list[tuple[int, str]]:
        """Insert rows; return the places of those that are refused, with the reason."""
        ...

    def stored(self, pair: Pair) -> Iterator[bytes]:
        """Yield the rows of a table as `form` gives them."""
        ...

    def form(self, pair: Pair, row: Any) -> bytes:
        """Return a row for comparing."""
        ...

    def orphans(self, pairs: Sequence[Pair], *, take_out: bool) -> Iterator[Orphan]:
        """Yield the rows whose parents are missing, and those that refer to them, until there are none.

        Raises `RestoreRefused` where they cannot be taken out; without `take_out` they stay all the same.
        """
        ...

    def finish(self, export: Export, pairs: Sequence[Pair], *, commit: bool) -> list[str]:
        """Put triggers and keys back as they were, move sequences on, commit or take back; return notices."""
        ...


@dataclass(slots=True)
class _Refusals:
    listed: list[Refusal] = field(default_factory=list)
    count: int = 0

    def add(self, table: str, row: int, reason: str) -> None:
        self.count += 1
        if len(self.listed) < _LISTED:
            self.listed.append(Refusal(table, row, reason))


@dataclass(slots=True)
class _Loaded:
    pair: Pair
    expected: RowSum
    refused: int = 0
    orphans: int = 0  # of `expected`, and refused though they are still there
    already: bool = False


def import_tables(folder: Path, target: Target, options: ImportOptions) -> ImportReport:
    """Load an export; the target is in a transaction and nothing was written in it yet.

    Nothing is committed when a row is refused, unless `partial`. Raises `RestoreRefused`, `Damaged`,
    `VerificationFailed` and what the target raises; the caller then takes the transaction back.
    """
    export = read_export(folder)
    heads = [(table, read_head(folder, table)) for table in export.tables]
    pairs = match_tables(export, heads, target.tables(), target.engine)
    run = _Import(folder, target, options)
    already = run.find_loaded(pairs)
    order = target.begin([pair for pair in pairs if pair not in already])
    run.load(order)
    run.look_for_orphans(order)
    if not run.gave_up:
        run.compare()
    whole = run.refusals.count == 0 or options.partial
    commit = whole and not options.dry_run and not run.gave_up
    notices = target.finish(export, order, commit=commit)
    run.loaded += [_Loaded(pair, total, already=True) for pair, total in already.items()]
    return run.report(export, notices, committed=commit)


class _Import:
    def __init__(self, folder: Path, target: Target, options: ImportOptions) -> None:
        self._folder = folder
        self._target = target
        self._options = options
        self.refusals = _Refusals()
        self.loaded: list[_Loaded] = []

    @property
    def gave_up(self) -> bool:
        """Say whether so much is refused that looking for more makes no sense."""
        return not self._options.partial and self.refusals.count >= _GIVE_UP

    def find_loaded(self, pairs: Sequence[Pair]) -> dict[Pair, RowSum]:
        """Return the tables that hold exactly what the export does; raise `RestoreRefused` for other rows."""
        same, full = {}, []
        for pair in pairs:
            if not self._target.has_rows(pair.target):
                continue
            stored = RowSum()
            for row in self._target.stored(pair):
                stored.add(row)
            if stored == self._exported_sum(pair):
                same[pair] = stored
            else:
                full.append(f"{pair.target.shown} ({count_of(stored.rows, 'row')})")
        if full:
            raise RestoreRefused(
                f"These tables hold other rows than the export: {', '.join(full)}. Nothing was imported. "
                "Import into a database that the app's migrations just made."
            )
        return same

    def _exported_sum(self, pair: Pair) -> RowSum | None:
        total, cast = RowSum(), self._target.caster(pair)
        refused = False
        for row, _ in read_rows(self._folder, pair.exported):
            try:
                total.add(self._target.form(pair, cast(row)))
            except Refused:
                refused = True  # the rest is read for its digest
        return None if refused else total

    def load(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            if self.gave_up:
                return
            self._target.clear(pair.target)
            self.loaded.append(self._load_table(pair))

    def _load_table(self, pair: Pair) -> _Loaded:
        cast = self._target.caster(pair)
        done = _Loaded(pair, RowSum())
        batch: list[tuple[int, Any]] = []
        size = 0
        for number, (row, length) in enumerate(read_rows(self._folder, pair.exported), 1):
            try:
                batch.append((number, cast(row)))
            except Refused as error:
                self._refuse(done, number, str(error))
            size += length
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                self._insert(done, batch)
                batch, size = [], 0
                if self.gave_up:
                    return done
        self._insert(done, batch)
        return done

    def _insert(self, done: _Loaded, batch: list[tuple[int, Any]]) -> None:
        if not batch:
            return
        refused = dict(self._target.insert(done.pair, [row for _, row in batch]))
        for place, (number, row) in enumerate(batch):
            if place in refused:
                self._refuse(done, number, refused[place])
            else:
                done.expected.add(self._target.form(done.pair, row))

    def _refuse(self, done: _Loaded, number: int, reason: str) -> None:
        done.refused += 1
        self.refusals.add(done.pair.exported.shown, number, reason)

    def look_for_orphans(self, pairs: Sequence[Pair]) -> None:
        """Refuse rows that refer to rows which are not there, an own refusal's children among them."""
        if self.gave_up:
            return
        by_table = {done.pair.target: done for done in self.loaded}
        for orphan in self._target.orphans(pairs, take_out=self._options.partial):
            done = by_table.get(orphan.table)
            if done is None:
                self.refusals.add(orphan.table.shown, 0, orphan.reason)
                continue
            self._refuse(done, 0, orphan.reason)
            if orphan.row is not None:
                done.expected.remove(orphan.row)
            else:
                done.orphans += 1
            if self.gave_up:
                return

    def compare(self) -> None:
        """Read everything back."""
        for done in self.loaded:
            found = RowSum()
            for row in self._target.stored(done.pair):
                found.add(row)
            if found != done.expected:
                raise VerificationFailed(
                    f"Table {done.pair.target.shown} does not hold what was exported: of "
                    f"{done.expected.rows} rows {found.rows} were found, and values differ. All was taken "
                    "back. Compare the types of its columns with those in the first line of its file."
                )

    def report(self, export: Export, notices: list[str], *, committed: bool) -> ImportReport:
        tables = [
            TableResult(
                done.pair.exported.shown,
                done.expected.rows - done.orphans,
                done.refused,
                done.already,
            )
            for done in self.loaded
        ]
        left_out = [*export.left_out, *notices]
        if self.gave_up:
            left_out.append(f"Looking ended after {self.refusals.count} refused rows; there may be more.")
        return ImportReport(
            self._target.engine,
            tuple(sorted(tables, key=lambda row: row.table)),
            tuple(self.refusals.listed),
            self.refusals.count,
            committed,
            tuple(left_out),
        )
