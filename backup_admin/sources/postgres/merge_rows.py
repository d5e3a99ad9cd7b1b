"""Chosen rows of a captured PostgreSQL database go into a live one, in one transaction on one connection.

The parts of a capture go into temporary tables beside the live ones; no other database is needed, and no
right beyond those of the owner of the tables.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import Busy, Damaged, NewerVersion, NotPermitted, RestoreRefused, UsageError
from backup_admin.sources.merging.graph import literal, quote
from backup_admin.sources.merging.merge_model import LoadedTable
from backup_admin.sources.merging.merging import merge
from backup_admin.sources.postgres.connect import connected, explain
from backup_admin.sources.postgres.driver import psycopg
from backup_admin.sources.postgres.live_graph import read_graph, shown_name
from backup_admin.sources.postgres.parts import ARCHIVE_FORMAT, FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.sources.merging.graph import Graph, LiveColumn, LiveTable, Reference
    from backup_admin.sources.merging.merge_model import MergeReport, MergeRequest
    from backup_admin.sources.merging.merging import TellLink
    from backup_admin.sources.postgres.address import PostgresAddress

_LOCK_WAIT = "30s"
# How many rows bear a mark is in no statistics: a hundred thousand of them, taken for one, would be looked up
# one by one in a table that has no index.
_NO_LOOPS = "SET LOCAL enable_nestloop = off"
_NUMBERS = ("smallint", "integer", "bigint")
_OWN_COLUMNS = (
    "n bigint GENERATED ALWAYS AS IDENTITY",
    "part int",
    "mark smallint NOT NULL DEFAULT 0",
    "act smallint NOT NULL DEFAULT 0",
)
_OTHERS = """
SELECT n.nspname, c.relname, CASE c.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
  WHEN 'f' THEN 'a foreign table' ELSE 'a sequence' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm', 'f', 'S') AND c.relpersistence <> 't'
ORDER BY n.nspname, c.relname
"""
_BACK = "Everything was taken back; nothing live was changed."


@dataclass(frozen=True, slots=True)
class CapturedParts:
    """A captured database: what `contents.json` says, and a way to read a part piece by piece."""

    contents: bytes
    read: Callable[[str], Iterable[bytes | memoryview]]


def merge_into_postgres(
    address: PostgresAddress,
    parts: CapturedParts,
    request: MergeRequest,
    *,
    dry: bool,
    tell_link: TellLink = lambda _number, _path: None,
    record: Path | None = None,
) -> MergeReport:
    """Merge rows into a live database, or do the same and take it back.

    All or nothing, also when this process is killed. What an undo needs is in the file `record` before it is
    committed. Raises `RestoreRefused`, `Busy`, `NotPermitted`,
    `Damaged`, `VerificationFailed`, `SourceMissing` or `SourceError`; nothing live was changed then.
    """
    rows = _tables_of(parts.contents)
    with connected(address) as connection, explained(address):
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        connection.execute("SET LOCAL standard_conforming_strings = on")  # as `literal` writes them
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
        graph = read_graph(connection)
        engine = PostgresMerge(connection, graph, rows, parts, dry=dry)
        report = merge(engine, graph, request, dry=dry, tell_link=tell_link, record=record)
        connection.execute("ROLLBACK" if dry or report.is_refused else "COMMIT")
    return report


class PostgresMerge:
    """The engine of a merge (`MergeEngine`) over one connection."""

    overriding = " OVERRIDING SYSTEM VALUE"

    def __init__(
        self,
        connection: psycopg.Connection,
        graph: Graph,
        rows: list[dict[str, Any]],
        parts: CapturedParts,
        *,
        dry: bool,
    ) -> None:
        self._connection = connection
        self._graph = graph
        self._rows = rows
        self._parts = parts
        self._dry = dry
        self._altered: list[str] = []
        self.run(_NO_LOOPS)

    def run(self, statement: str) -> int:
        """Carry a statement out and return how many rows it touched."""
        return self._connection.execute(statement.encode()).rowcount

    def rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds, without holding all of it."""
        with self._connection.cursor() as cursor:
            yield from cursor.stream(statement.encode())

    def number(self, statement: str) -> int:
        """Return the one number that a query finds."""
        row = self._connection.execute(statement.encode()).fetchone()
        return 0 if row is None else int(row[0])

    def absent(self) -> list[str]:
        """Return the names of tables that only the snapshot has."""
        return [name for name in map(self._table_of, self._rows) if name not in self._graph.tables]

    def absent_below(self, tables: Iterable[str]) -> list[str]:
        """Return all of them: what was captured tells no foreign keys before it is loaded."""
        del tables
        return self.absent()

    def other_kind(self, name: str) -> str:
        """Look for relations of other kinds in the live database."""
        kinds = {shown_name(schema, relation): str(kind) for schema, relation, kind in self.rows(_OTHERS)}
        return kinds.get(name, "")

    def load(self, number: int, table: LiveTable) -> LoadedTable | None:
        """Copy the parts of a table, or of its partitions, into a temporary one."""
        found = [(place, row) for place, row in enumerate(self._rows) if self._table_of(row) == table.name]
        if not found:
            return None
        stored = {name for _, row in found for name in row["columns"]}
        common = tuple(column for column in table.columns if column.written and column.name in stored)
        names = {column.name: f"c{column.number}" for column in common}
        # What the live table does not have is read past: its text need not mean anything any more.
        left_out = sorted(stored - names.keys())
        names |= {name: f"x{place}" for place, name in enumerate(left_out)}
        columns = [f"c{column.number} {column.type}{column.collation}" for column in common]
        columns += [f"{name} text" for name in names.values() if name.startswith("x")]
        own = f"pg_temp.w{number}"
        columns = [*_OWN_COLUMNS, *columns]
        with self._connection.transaction():  # within the one there is: who need not have it goes on
            self.run(f"CREATE TEMPORARY TABLE w{number} ({', '.join(columns)}) ON COMMIT DROP")
            for place, row in found:
                self.run(f"ALTER TABLE {own} ALTER part SET DEFAULT {place}")
                self._copy_in(own, row, [names[name] for name in row["columns"]])
            self.run(f"ANALYZE {own}")
        return LoadedTable(own, common, tuple(left_out))

    def make(
        self, name: str, own: Sequence[str], columns: Sequence[LiveColumn], key: Sequence[LiveColumn]
    ) -> str:
        """Make a temporary table of ours."""
        del key  # tables are joined as wholes
        parts = ["n bigint GENERATED ALWAYS AS IDENTITY", *own]
        parts += [f"c{column.number} {column.type}{column.collation}" for column in columns]
        self.run(f"CREATE TEMPORARY TABLE {name} ({', '.join(parts)}) ON COMMIT DROP")
        return f"pg_temp.{name}"

    def fill(self, name: str, columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
        """Copy rows in."""
        if not columns:
            for _ in rows:
                self.run(f"INSERT INTO {name} (state) VALUES (0)")
            return
        statement = f"COPY {name} ({', '.join(columns)}) FROM STDIN"
        with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)
        self.run(f"ANALYZE {name}")

    def kept(self, value: str) -> str:
        """Keep the text of a value, which is exact."""
        return f"{value}::text"

    def digest(self, values: Sequence[str]) -> str:
        """Write the digest of a row as one text."""
        return f"encode(sha256(convert_to({self.whole(values)}, 'UTF8')), 'hex')"

    def place_of(self, table: LiveTable, alias: str) -> list[str]:
        """Write where a row lies; rows of two partitions may lie at the same place of each."""
        del table
        return [f"{alias}.tableoid", f"{alias}.ctid"]

    def part_of(self, partition: str) -> int:
        """Return the number that rows of a partition carry."""
        for place, row in enumerate(self._rows):
            if shown_name(row["schema"], row["name"]) == partition:
                return place
        raise RestoreRefused(f"The snapshot has no table {partition!r}. Nothing was touched.")

    def lock(self, tables: Sequence[LiveTable]) -> None:
        """Keep others from writing to tables until the end; they may read."""
        for table in tables:
            self.run(f"LOCK TABLE {table.reading} IN SHARE ROW EXCLUSIVE MODE")

    def same(self, left: str, right: str) -> str:
        """Compare values by their text, which is exact and which every type has."""
        return f'({left}::text COLLATE "C" IS NOT DISTINCT FROM {right}::text COLLATE "C")'

    def whole(self, values: Sequence[str]) -> str:
        """Write a row as one text."""
        return f"ROW({', '.join(f'{value}::text' for value in values)})::text" if values else "''"

    def matches(self, value: str, column: LiveColumn, text: str) -> str:
        """Compare with what a person wrote, in the way the type writes it; raise `UsageError`."""
        wanted = f"CAST({literal(text)} AS {column.type})::text"
        try:
            self.run(f"SELECT {wanted}")
        except psycopg.DataError as error:
            raise UsageError(
                f"{text!r} is no value of {column.name}, which is {column.type}. Nothing was touched."
            ) from error
        return f'{value}::text COLLATE "C" = {wanted} COLLATE "C"'

    def fresh(self, column: LiveColumn, table: LiveTable, own: str, *, dry: bool) -> str | None:
        """Number on from the sequence; without one, or in a dry run, from the highest value."""
        if column.type == "uuid":
            return "gen_random_uuid()"
        if column.type not in _NUMBERS:
            return None
        highest = (
            f"(SELECT coalesce(max(m), 0) FROM (SELECT max({quote(column.name)}) AS m FROM {table.reading} "
            f"UNION ALL SELECT max(c{column.number}) FROM {own}) AS b)"
        )
        if dry or not column.sequence:
            return f"{highest} + r.k"
        self._move(column.sequence, highest, "max")
        return f"nextval({literal(column.sequence)}::regclass)"

    def prepare(self, touched: Sequence[LiveTable], late: Sequence[Reference]) -> None:  # noqa: ARG002
        """Put checks off; keys that cannot wait are altered until `check`."""
        self.run("RESET enable_nestloop")  # the app's triggers run as they do elsewhere
        self.run("SET CONSTRAINTS ALL DEFERRED")
        for one in late:
            if not one.is_deferrable:
                self._alter(one)

    def check(self) -> None:
        """Check what was put off, and alter keys back."""
        self.run("SET CONSTRAINTS ALL IMMEDIATE")
        self.run(_NO_LOOPS)
        for statement in self._altered:
            self.run(statement)

    def move_sequences(self, tables: Sequence[LiveTable]) -> None:
        """Move sequences on to the highest value of their columns, never back."""
        if self._dry:  # a sequence goes back with no transaction
            return
        for table in tables:
            for column in table.columns:
                if column.sequence and column.type in _NUMBERS:
                    name = quote(column.name)
                    self._move(column.sequence, f"(SELECT max({name}) FROM {table.reading})", "max")
                    self._move(column.sequence, f"(SELECT min({name}) FROM {table.reading})", "min")

    def _alter(self, one: Reference) -> None:
        alter = f"ALTER TABLE {one.place} ALTER CONSTRAINT {quote(one.name)}"
        try:
            self.run(f"{alter} DEFERRABLE INITIALLY DEFERRED")
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotPermitted(
                f"{one.child} and {one.parent} refer to each other, so the check of {one.name} has to wait "
                f"for rows of both. Only the owner of {one.child} may do that: give the address of "
                f"that user. {_BACK}"
            ) from error
        self._altered.append(f"{alter} NOT DEFERRABLE")

    def _move(self, sequence: str, value: str, end: str) -> None:
        """Move a sequence on to a value, never back; each kind of end is for one direction."""
        direction, before = (">", "<") if end == "max" else ("<", ">")
        self.run(
            "SELECT setval(s.seqrelid::regclass, v.m) "
            f"FROM pg_sequence s, {sequence} AS l, (SELECT {value}::bigint AS m) AS v "
            f"WHERE s.seqrelid = {literal(sequence)}::regclass AND s.seqincrement {direction} 0 "
            "AND v.m BETWEEN s.seqmin AND s.seqmax "
            f"AND (l.last_value {before} v.m OR (l.last_value = v.m AND NOT l.is_called))"
        )

    def _table_of(self, row: dict[str, Any]) -> str:
        name = shown_name(row["schema"], row["name"])
        return self._graph.partitions.get(name, name)

    def _copy_in(self, own: str, row: dict[str, Any], columns: list[str]) -> None:
        if not columns:
            self.run(f"INSERT INTO {own} (part) SELECT NULL FROM generate_series(1, {int(row['rows'])})")
            return
        digest = hashlib.sha256()
        statement = f"COPY {own} ({', '.join(columns)}) FROM STDIN"
        with self._connection.cursor() as cursor:
            with cursor.copy(statement.encode()) as copy:
                for piece in self._parts.read(row["file"]):
                    digest.update(piece)
                    copy.write(piece)
            if digest.hexdigest() != row["sha256"] or cursor.rowcount != row["rows"]:
                raise Damaged(f"{row['file']} is not what was captured of {row['name']}. {_BACK}")


def _tables_of(contents: bytes) -> list[dict[str, Any]]:
    try:
        value = json.loads(contents)
        if value["format"] == ARCHIVE_FORMAT:
            raise RestoreRefused(
                f"The database is stored as one archive, since {value['archive_reason']}: no table can be "
                "taken out of it. Nothing was touched. Write it with restore --to, load it into a new "
                "database, and take the rows from there."
            )
        if value["format"] != FORMAT:
            raise NewerVersion("The database was captured by a newer version. Nothing was touched.")
        return [
            {
                "schema": str(row["schema"]),
                "name": str(row["name"]),
                "columns": list(map(str, row["columns"])),
                "file": str(row["file"]),
                "rows": int(row["rows"]),
                "sha256": str(row["sha256"]),
            }
            for row in value["tables"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"What the snapshot says of the database cannot be read: {error}.") from error


@contextmanager
def explained(address: PostgresAddress) -> Iterator[None]:
    """Translate what the server refuses into what it means for a merge."""
    try:
        yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Busy(
            f"{address.label}: others kept the tables locked for {_LOCK_WAIT}; try again. {_BACK}"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermitted(f"{address.label}: {explain(error)} {_BACK}") from error
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        raise RestoreRefused(f"{address.label}: {explain(error)} {_BACK}") from error
