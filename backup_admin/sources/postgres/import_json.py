"""Load a json export into a PostgreSQL database whose tables are there: one transaction."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.sources.formats.importing import Orphan, Refused, import_tables
from backup_admin.sources.formats.json_lines import POSTGRES
from backup_admin.sources.postgres.casts import postgres_cast, same_form
from backup_admin.sources.postgres.connect import connected, explain
from backup_admin.sources.postgres.copy_text import copy_line, values_of
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.foreign_keys import ForeignKey, read_links, sort_tables
from backup_admin.sources.postgres.orphans import OrphanSearch
from backup_admin.sources.postgres.target_tables import Trigger, read_triggers, table_name, target_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.sources.formats.imported import ImportOptions, ImportReport
    from backup_admin.sources.formats.json_lines import Export
    from backup_admin.sources.formats.matching import Pair, TargetTable
    from backup_admin.sources.postgres.address import PostgresAddress

_TAKEN = (psycopg.IntegrityError, psycopg.DataError)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as `COPY` reads it, and in the form for comparing."""

    line: bytes
    same: bytes


def import_json(folder: Path, address: PostgresAddress, options: ImportOptions) -> ImportReport:
    """Import in one transaction; raises what `import_tables` does, and nothing stays then."""
    with connected(address) as connection, _in_transaction(connection):
        target = PostgresTarget(connection)
        return import_tables(folder, target, options)


@contextmanager
def _in_transaction(connection: psycopg.Connection) -> Iterator[None]:
    """Begin a transaction; what the block has not committed is taken back."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.execute("ROLLBACK")


@dataclass(frozen=True, slots=True)
class _Deferred:
    key: ForeignKey
    altered: bool


class PostgresTarget:
    """A database within a transaction."""

    engine = POSTGRES

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._tables = target_tables(connection)
        self._triggers: list[Trigger] = []
        self._deferred: list[_Deferred] = []
        self._forms: dict[TargetTable, list[Callable[[str], str] | None]] = {}

    def tables(self) -> list[TargetTable]:
        """Return all tables that rows can be written to."""
        return self._tables

    def caster(self, pair: Pair) -> Callable[[list[Any]], _Row]:
        """Return what makes texts of a row, as `COPY` reads them."""
        if not pair.across:
            return _plain_row
        casts = [postgres_cast(kind) for kind in pair.types]
        skip = pair.skip

        def cast_row(row: list[Any]) -> _Row:
            values = [cast(value) for cast, value in zip(casts, row[skip:], strict=True)]
            return _Row(copy_line(values), self._same(pair, values))

        return cast_row

    def begin(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Turn the app's triggers off, and let keys wait that parents loaded first do not satisfy."""
        wanted = {(pair.target.schema, pair.target.name) for pair in pairs}
        self._triggers = [one for one in read_triggers(self._connection) if one.table in wanted]
        for trigger in self._triggers:
            self._connection.execute(trigger.off())
        links = read_links(self._connection, sorted(wanted))
        order = sort_tables(sorted(wanted), links)
        places = {table: place for place, table in enumerate(order)}
        # As a dictionary: a key is deferred once, in the same order each time.
        waiting = {link.key: None for link in links if places[link.parent] >= places[link.child]}
        waiting |= {link.key: None for link in links if link.key.initially_deferred}
        for key in waiting:
            self._defer(key)
        by_name = {(pair.target.schema, pair.target.name): pair for pair in pairs}
        return [by_name[name] for name in order]

    def _defer(self, key: ForeignKey) -> None:
        if not key.initially_deferred:
            self._connection.execute(key.alter("DEFERRABLE INITIALLY DEFERRED"))
        self._deferred.append(_Deferred(key, altered=not key.initially_deferred))

    def has_rows(self, table: TargetTable) -> bool:
        """Say whether there is a row."""
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table_name(table))
        row = self._connection.execute(query).fetchone()
        return row is not None and bool(row[0])

    def clear(self, table: TargetTable) -> None:
        """Do nothing: an empty table is empty here."""

    def insert(self, pair: Pair, rows: list[_Row]) -> list[tuple[int, str]]:
        """Copy all at once; in halves, and so on, when one of them is refused."""
        return list(self._insert(_copy_in(pair), [row.line for row in rows], 0))

    def _insert(self, statement: sql.Composed, lines: list[bytes], first: int) -> Iterator[tuple[int, str]]:
        try:
            with (
                self._connection.transaction(),
                self._connection.cursor() as cursor,
                cursor.copy(statement) as copy,
            ):
                copy.write(b"".join(lines))
        except _TAKEN as error:
            if len(lines) == 1:
                yield first, explain(error)
                return
            half = len(lines) // 2
            yield from self._insert(statement, lines[:half], first)
            yield from self._insert(statement, lines[half:], first + half)

    def stored(self, pair: Pair) -> Iterator[bytes]:
        """Yield all rows, as `COPY` writes them."""
        query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
            _names(pair.columns), table_name(pair.target)
        )
        with self._connection.cursor() as cursor, cursor.copy(query) as copy:
            for row in copy:
                yield self._read_form(pair, bytes(row))

    def _read_form(self, pair: Pair, row: bytes) -> bytes:
        return self._same(pair, values_of(row)) if pair.across else row

    def form(self, _pair: Pair, row: _Row) -> bytes:
        """Return the row as `COPY` writes it; of another engine, equal numbers and documents alike."""
        return row.same

    def _same(self, pair: Pair, row: list[str | None]) -> bytes:
        forms = self._forms.get(pair.target)
        if forms is None:
            forms = self._forms[pair.target] = [same_form(kind) for kind in pair.types]
        return copy_line(
            [
                value if value is None or form is None else form(value)
                for form, value in zip(forms, row, strict=True)
            ]
        )

    def orphans(self, pairs: Sequence[Pair], *, take_out: bool) -> Iterator[Orphan]:
        """Let the keys that waited be checked; where one is broken, look through all of them."""
        try:
            with self._connection.transaction():
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.IntegrityError as error:
            names = {(table.schema, table.name): table_name(table) for table in self._tables}
            with self._connection.transaction() as attempt:
                search = OrphanSearch(self._connection, pairs, names)
                for pair, row, reason in search.take_out(because=explain(error)):
                    yield Orphan(pair.target, reason, self._read_form(pair, row) if take_out else None)
                if not take_out:
                    raise psycopg.Rollback(attempt) from None

    def finish(self, export: Export, pairs: Sequence[Pair], *, commit: bool) -> list[str]:
        """Put keys and triggers back as they were, move sequences on, and end the transaction."""
        if not commit:
            self._connection.execute("ROLLBACK")
            return []
        for deferred in self._deferred:
            if deferred.altered:
                self._connection.execute(deferred.key.alter(deferred.key.flags))
        for trigger in self._triggers:
            self._connection.execute(trigger.on())
        notices = self._move_sequences(export, pairs)
        self._connection.execute("COMMIT")
        return notices

    def _move_sequences(self, export: Export, pairs: Sequence[Pair]) -> list[str]:
        """Set the sequences of the export, then move on what still lies behind the rows.

        Last of all: a sequence does not come back with a transaction.
        """
        notices = []
        if export.engine == POSTGRES:
            for one in export.sequences:
                name = sql.Identifier(one.schema, one.name).as_string()
                values = {"name": name, "value": one.last_value, "called": one.is_called}
                known = "SELECT setval(to_regclass(%(name)s), %(value)s, %(called)s)"
                row = self._connection.execute(known, values).fetchone()
                if row is None or row[0] is None:
                    notices.append(f"There is no sequence {one.name}.")
        given = {} if export.engine == POSTGRES else {one.name: one.last_value for one in export.sequences}
        for pair in pairs:
            for column in pair.target.columns:
                self._move_on(pair, column, given.get(pair.exported.name, 0))
        return notices

    def _move_on(self, pair: Pair, column: str, least: int) -> None:
        name = sql.Identifier(pair.target.schema, pair.target.name).as_string()
        row = self._connection.execute("SELECT pg_get_serial_sequence(%s, %s)", (name, column)).fetchone()
        if row is None or row[0] is None:
            return
        least = least if (column,) == pair.target.key else 0
        query = sql.SQL(
            "SELECT setval({sequence}, m) FROM (SELECT greatest(max({column}), {least}) m FROM {table}) x, "
            "pg_sequences s WHERE m >= s.min_value AND m > COALESCE(s.last_value, s.min_value - 1) "
            "AND {sequence}::regclass = format('%I.%I', s.schemaname, s.sequencename)::regclass "
            "AND s.increment_by > 0"
        )
        parts = {
            "sequence": sql.Literal(row[0]),
            "column": sql.Identifier(column),
            "least": sql.Literal(least),
        }
        self._connection.execute(query.format(**parts, table=table_name(pair.target)))


def _plain_row(row: list[Any]) -> _Row:
    try:
        line = copy_line(row)
    except (AttributeError, TypeError) as error:
        raise Refused("a value is neither text nor null") from error
    return _Row(line, line)


def _copy_in(pair: Pair) -> sql.Composed:
    name = sql.Identifier(pair.target.schema, pair.target.name)
    columns = sql.SQL(" ({})").format(_names(pair.columns)) if pair.columns else sql.SQL("")
    return sql.SQL("COPY {}{} FROM STDIN").format(name, columns)


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(name) for name in columns)
