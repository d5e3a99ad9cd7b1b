"""Chosen rows of a copy go into a live SQLite database. Part of the worker (`sqlite_worker`).

The copy lies beside the live database as `snap`, tables of our own in a file of their own as `work`. Only the
live database is journalled, so the one transaction is as atomic as any.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quote_address

from backup_admin.core.errors import BackupAdminError, Damaged, RestoreRefused, UsageError, VerificationFailed
from backup_admin.sources.merging.graph import literal, quote
from backup_admin.sources.merging.merge_model import LoadedTable, request_from_json
from backup_admin.sources.merging.merging import merge
from backup_admin.sources.sqlite_graph import KEYS_THAT_LET_GO, read_columns, read_graph
from backup_admin.sources.sqlite_open import Deadline, Failure, is_busy, need_database, open_live

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from backup_admin.sources.merging.graph import LiveColumn, LiveTable, Reference
    from backup_admin.sources.merging.merge_model import MergeReport, MergeRequest
    from backup_admin.sources.merging.merging import TellLink

_OTHER_KINDS = {
    "view": "a view",
    "virtual": "a virtual table",
    "shadow": "a table in which a virtual table keeps what it has",
}
_PAUSE_SECONDS = 0.005
_BACK = "Everything was taken back; nothing live was changed."


def merge_copy(  # noqa: PLR0913 - what the caller asks by name
    *,
    copy: str,
    live: str,
    work: str,
    links: str,
    request: dict[str, Any],
    dry: bool,
    record: str | None,
    deadline_seconds: float,
) -> dict[str, Any]:
    """Merge rows of a copy into a live database, or do the same and take it back.

    Paths that rows hold go to the file `links`, a line of JSON each; what an undo needs goes to `record`.
    """
    need_database(copy)
    need_database(live)
    deadline = Deadline(deadline_seconds, live)
    with (
        explained(),
        closing(open_live(live, deadline)) as connection,
        Path(links).open("x", encoding="ascii") as told,
    ):
        address = f"file:{quote_address(os.fsencode(copy))}?mode=ro&immutable=1"
        prepare(connection, work)
        connection.execute("ATTACH ? AS snap", (address,))

        def tell_link(number: int, path: str) -> None:
            told.write(json.dumps([number, path]) + "\n")

        kept = None if record is None else Path(record)
        asked = request_from_json(request)
        return asdict(_merge(connection, asked, deadline, dry=dry, tell_link=tell_link, record=kept))


@contextmanager
def explained() -> Iterator[None]:
    """Translate what the live database refuses, and what we raise, for who asked."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Failure("refused", f"The live database refuses a row: {error}. {_BACK}") from error
    except BackupAdminError as error:
        kinds = {UsageError: "usage", VerificationFailed: "unverified", Damaged: "damaged"}
        raise Failure(kinds.get(type(error), "refused"), str(error)) from error


def prepare(connection: sqlite3.Connection, work: str) -> None:
    """Set up a connection to the live database, with an empty file for tables of ours beside it."""
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    connection.create_function("backup_admin_digest", 1, _digest, deterministic=True)
    # Keys are checked by us: so no key changes or deletes a row that was not decided about.
    for pragma in ("foreign_keys=OFF", "trusted_schema=OFF", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("ATTACH ? AS work", (f"file:{quote_address(os.fsencode(work))}",))
    for pragma in ("journal_mode=OFF", "synchronous=OFF"):
        connection.execute(f"PRAGMA work.{pragma}").fetchall()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _merge(
    connection: sqlite3.Connection,
    request: MergeRequest,
    deadline: Deadline,
    *,
    dry: bool,
    tell_link: TellLink,
    record: Path | None,
) -> MergeReport:
    engine = SqliteMerge(connection, deadline)
    made = _missing_tables(connection, request)
    if made:
        engine.begin()
        for statement in made.values():
            connection.execute(statement)
    try:
        graph = read_graph(connection)
        tables = [name for name in made if name in graph.tables]
        report = merge(engine, graph, request, dry=dry, tell_link=tell_link, record=record, made=tables)
        engine.end("ROLLBACK" if dry or report.is_refused else "COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return report


class SqliteMerge:
    """The engine of a merge (`MergeEngine`) over one connection."""

    overriding = ""

    def __init__(self, connection: sqlite3.Connection, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline
        self._touched: Sequence[LiveTable] = ()
        self._orphans: dict[tuple[str, int], int] = {}

    def begin(self) -> None:
        """Begin to write, waiting for locks of others."""
        if not self._connection.in_transaction:
            self._wait("BEGIN IMMEDIATE")

    def end(self, statement: str) -> None:
        """Commit or roll back, waiting for readers."""
        if self._connection.in_transaction:
            self._wait(statement)

    def run(self, statement: str) -> int:
        """Carry a statement out and return how many rows it touched."""
        return self._connection.execute(statement).rowcount

    def rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds."""
        yield from self._connection.execute(statement)

    def number(self, statement: str) -> int:
        """Return the one number that a query finds."""
        return int(self._connection.execute(statement).fetchone()[0])

    def absent(self) -> list[str]:
        """Return the names of tables that only the snapshot has."""
        query = (
            "SELECT name FROM snap.sqlite_master WHERE type = 'table' "
            "AND name NOT LIKE 'sqlite@_%' ESCAPE '@' "
            "AND lower(name) NOT IN (SELECT lower(name) FROM main.sqlite_master) ORDER BY name"
        )
        return [name for (name,) in self.rows(query)]

    def absent_below(self, tables: Iterable[str]) -> list[str]:
        """Follow the foreign keys that the snapshot has."""
        absent, found = self.absent(), {name.lower() for name in tables}
        while more := [name for name in absent if name.lower() not in found and self._belongs(name, found)]:
            found |= {name.lower() for name in more}
        return [name for name in absent if name.lower() in found]

    def other_kind(self, name: str) -> str:
        """Look for views and virtual tables, and what those keep, live and in the snapshot."""
        query = (
            "SELECT type FROM pragma_table_list WHERE schema IN ('main', 'snap') "
            f"AND lower(name) = lower({literal(name)})"
        )
        return next((_OTHER_KINDS[kind] for (kind,) in list(self.rows(query)) if kind in _OTHER_KINDS), "")

    def load(self, number: int, table: LiveTable) -> LoadedTable | None:
        """Copy the rows of a table into one of ours."""
        query = "SELECT name FROM snap.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        found = self._connection.execute(query, (table.name,)).fetchone()
        if found is None:
            return None
        has = read_columns(self._connection, "snap", found[0])
        stored = {one.name.lower() for one in has}
        common = tuple(one for one in table.columns if one.written and one.name.lower() in stored)
        taken = {one.name.lower() for one in common}
        left_out = tuple(one.name for one in has if one.written and one.name.lower() not in taken)
        columns = [f"c{one.number} {one.type}{one.collation}" for one in common]
        own = [
            "n INTEGER PRIMARY KEY",
            "part INT",
            "mark INT NOT NULL DEFAULT 0",
            "act INT NOT NULL DEFAULT 0",
        ]
        self.run(f"CREATE TABLE work.w{number} ({', '.join([*own, *columns])})")
        if common:
            ours = ", ".join(f"c{one.number}" for one in common)
            theirs = ", ".join(quote(one.name) for one in common)
            self.run(f"INSERT INTO work.w{number} ({ours}) SELECT {theirs} FROM snap.{quote(found[0])}")
        for place, names in enumerate([table.key, *(unique.columns for unique in table.uniques)]):
            own_names = [f"c{one.number}" for name in names for one in common if one.name == name]
            if names and len(own_names) == len(names):  # what others refer to
                self.run(f"CREATE INDEX work.w{number}_{place} ON w{number} ({', '.join(own_names)})")
        return LoadedTable(f"work.w{number}", common, left_out)

    def make(
        self, name: str, own: Sequence[str], columns: Sequence[LiveColumn], key: Sequence[LiveColumn]
    ) -> str:
        """Make a table of ours in the file for them."""
        parts = ["n INTEGER PRIMARY KEY", *own]
        parts += [f"c{column.number} {column.type}{column.collation}" for column in columns]
        self.run(f"CREATE TABLE work.{name} ({', '.join(parts)})")
        searched = ", ".join(f"c{column.number}" for column in key) or "digest"
        self.run(f"CREATE INDEX work.{name}_key ON {name} ({searched})")
        return f"work.{name}"

    def fill(self, name: str, columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
        """Insert rows; text that is no UTF-8 goes in by its bytes."""
        for row in rows:
            values = [_bound(value) for value in row]
            marks = ", ".join(mark for mark, _ in values)
            if marks:
                statement = f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})"
                self._connection.execute(statement, [value for _, value in values])

    def kept(self, value: str) -> str:
        """Keep a value as it is: each has its own type."""
        return value

    def digest(self, values: Sequence[str]) -> str:
        """Write the digest of a row as one text."""
        return f"backup_admin_digest({self.whole(values)})"

    def place_of(self, table: LiveTable, alias: str) -> list[str]:
        """Write the number of a row, under a name of it that no column has."""
        taken = {column.name.lower() for column in table.columns}
        return [f"{alias}.{next(name for name in ('_rowid_', 'rowid', 'oid') if name not in taken)}"]

    def part_of(self, partition: str) -> int:
        """Refuse: there are no partitions."""
        raise RestoreRefused(f"{partition} is no table. Nothing was touched.")

    def lock(self, tables: Sequence[LiveTable]) -> None:  # noqa: ARG002 - there is one lock for all
        """Keep others from writing until the end; they may read."""
        self.begin()

    def same(self, left: str, right: str) -> str:
        """Compare value and storage class, byte by byte."""
        return f"({left} IS {right} COLLATE BINARY AND typeof({left}) = typeof({right}))"

    def whole(self, values: Sequence[str]) -> str:
        """Write a row as one text."""
        parts = [
            f"CASE typeof({value}) WHEN 'real' THEN quote({value}) "
            f"ELSE typeof({value}) || ':' || hex({value}) END"
            for value in values
        ]
        return " || '|' || ".join(parts) or "''"

    def matches(self, value: str, column: LiveColumn, text: str) -> str:  # noqa: ARG002
        """Compare with what a person wrote: a number, a text, or the digits of a blob."""
        wanted = literal(text)
        digits = f"upper(replace({wanted}, '-', ''))"
        return (
            f"({value} = {wanted} OR CAST({value} AS TEXT) = {wanted} "
            f"OR (typeof({value}) = 'blob' AND hex({value}) = {digits}))"
        )

    def fresh(self, column: LiveColumn, table: LiveTable, own: str, *, dry: bool) -> str | None:  # noqa: ARG002
        """Number on from the highest value that there is, or ever was."""
        if column.type != "INTEGER":
            return None
        highest = [
            f"SELECT max({quote(column.name)}) AS m FROM {table.reading}",
            f"SELECT max(c{column.number}) FROM {own}",
        ]
        if column.sequence:
            highest.append(f"SELECT seq FROM main.sqlite_sequence WHERE name = {literal(column.sequence)}")
        return f"(SELECT coalesce(max(m), 0) FROM ({' UNION ALL '.join(highest)})) + r.k"

    def prepare(self, touched: Sequence[LiveTable], late: Sequence[Reference]) -> None:  # noqa: ARG002
        """Count the rows that lack their parents before anything is written."""
        self._touched = touched
        self._orphans = self._count_orphans()

    def check(self) -> None:
        """Compare with the rows that lacked their parents before; raise `RestoreRefused`."""
        for (name, key), count in self._count_orphans().items():
            if count > self._orphans.get((name, key), 0):
                raise RestoreRefused(f"Rows of {name} would refer to rows that are not there. {_BACK}")

    def move_sequences(self, tables: Sequence[LiveTable]) -> None:
        """Do nothing: SQLite does it with every row."""

    def _belongs(self, child: str, parents: set[str]) -> bool:
        """Say whether the snapshot has a key of a table that makes its rows go with theirs."""
        keys = self.rows(f"PRAGMA snap.foreign_key_list({quote(child)})")
        return any(row[2].lower() in parents and row[6].upper() not in KEYS_THAT_LET_GO for row in keys)

    def _count_orphans(self) -> dict[tuple[str, int], int]:
        names = {table.name for table in self._touched}
        query = (
            "SELECT m.name FROM main.sqlite_master AS m WHERE m.type = 'table' AND EXISTS (SELECT 1 FROM "
            "pragma_foreign_key_list(m.name, 'main') AS k WHERE lower(k.\"table\") = lower(?))"
        )
        for name in list(names):
            names |= {child for (child,) in self._connection.execute(query, (name,))}
        counts: dict[tuple[str, int], int] = {}
        for name in sorted(names):
            query = "SELECT fkid, count(*) FROM pragma_foreign_key_check(?, 'main') GROUP BY fkid"
            counts |= {(name, key): count for key, count in self._connection.execute(query, (name,))}
        return counts

    def _wait(self, statement: str) -> None:
        while True:
            try:
                self._connection.execute(statement)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            else:
                return
            self._deadline.check()
            time.sleep(_PAUSE_SECONDS)


def _bound(value: Any) -> tuple[str, Any]:
    """Return how a value is written into a statement, and what is bound there."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "CAST(? AS TEXT)", value.encode("utf-8", "surrogateescape")
    return "?", value


def _missing_tables(connection: sqlite3.Connection, request: MergeRequest) -> dict[str, str]:
    """Return the statements that make whole tables which were asked for and are not live."""
    known = {name.lower() for (name,) in connection.execute("SELECT name FROM main.sqlite_master")}
    found: dict[str, str] = {}
    for name in request.tables:
        if name.lower() not in known:
            query = (
                "SELECT name, sql FROM snap.sqlite_master WHERE lower(tbl_name) = lower(?) "
                "AND sql IS NOT NULL AND type IN ('table', 'index') AND sql NOT LIKE 'CREATE VIRTUAL%' "
                "ORDER BY type = 'index'"
            )
            found |= dict(connection.execute(query, (name,)).fetchall())
    return found
