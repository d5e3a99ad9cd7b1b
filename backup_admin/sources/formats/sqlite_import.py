"""Load a json export into a live SQLite database. Runs in the worker."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError
from backup_admin.sources.formats.casts_to_sqlite import sqlite_cast, without_kind
from backup_admin.sources.formats.imported import ImportOptions
from backup_admin.sources.formats.importing import Refused, import_tables
from backup_admin.sources.formats.json_lines import SQLITE
from backup_admin.sources.formats.matching import TargetTable
from backup_admin.sources.formats.sqlite_orphans import OrphanSearch
from backup_admin.sources.formats.sqlite_schema import quoted, read_tables
from backup_admin.sources.formats.sqlite_values import RawText, Value, row_line, text_of, value_from_json
from backup_admin.sources.sqlite_open import Deadline, Failure, is_busy, open_live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backup_admin.sources.formats.importing import Orphan
    from backup_admin.sources.formats.json_lines import Export
    from backup_admin.sources.formats.matching import Pair

_TAKEN = (sqlite3.IntegrityError, sqlite3.DataError)


def import_json(
    folder: str, live: str, partial: bool, dry_run: bool, deadline_seconds: float
) -> dict[str, Any]:
    """Import in one transaction; killed at any moment, the database is as it was."""
    deadline = Deadline(deadline_seconds, live)
    with closing(open_live(live, deadline)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")  # checked as a whole at the end
        connection.execute(f"PRAGMA busy_timeout={int(deadline_seconds * 1000)}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                deadline.check()
            raise
        try:
            target = SqliteTarget(connection)
            report = import_tables(Path(folder), target, ImportOptions(partial, dry_run))
        except BackupAdminError as error:
            raise Failure(_kind_of(error), str(error)) from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return report.to_json()


class SqliteTarget:
    """A live database within a transaction."""

    engine = SQLITE

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables, self._virtual = read_tables(connection)
        self._triggers: list[tuple[str, str]] = []
        self._notices: list[str] = []
        encoding = connection.execute("PRAGMA encoding").fetchone()[0]
        self._is_utf8 = encoding == "UTF-8"

    def tables(self) -> list[TargetTable]:
        """Return all that store rows."""
        return [
            TargetTable(
                "main", table.name, table.columns, table.types, table.key, table.kind, table.own_rowid
            )
            for table in self._tables
        ]

    def caster(self, pair: Pair) -> Callable[[list[Any]], list[Value]]:
        """Return what makes values of SQLite of a row."""
        if pair.across:
            casts = [sqlite_cast(*types) for types in zip(pair.source_types, pair.types, strict=True)]
            return lambda row: [cast(value) for cast, value in zip(casts, row, strict=True)]
        skip = pair.skip

        def cast(row: list[Any]) -> list[Value]:
            try:
                return [value_from_json(value) for value in row[skip:]]
            except ValueError as error:
                raise Refused(str(error)) from error

        return cast

    def begin(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Take the triggers out for a while; tables of virtual ones come last."""
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
        self._triggers = self._connection.execute(query).fetchall()
        for name, _ in self._triggers:
            self._connection.execute(f"DROP TRIGGER {quoted(name)}")
        self._connection.text_factory = text_of
        return sorted(pairs, key=lambda pair: pair.target.kind == "shadow")

    def has_rows(self, table: TargetTable) -> bool:
        """Say whether there is a row; a new virtual table has some in the tables it is made of."""
        name = table.name
        if table.kind == "shadow":
            owners = [owner for owner in self._virtual if name.lower().startswith(f"{owner.lower()}_")]
            if not owners:
                return False
            name = max(owners, key=len)
        try:
            row = self._connection.execute(f"SELECT EXISTS (SELECT 1 FROM {quoted(name)})").fetchone()  # noqa: S608
        except sqlite3.OperationalError:
            if table.kind == "shadow":  # of a virtual table that does not work
                return False
            raise
        return bool(row[0])

    def clear(self, table: TargetTable) -> None:
        """Empty what a virtual table is made of."""
        if table.kind == "shadow":
            self._connection.execute(f"DELETE FROM {quoted(table.name)}")  # noqa: S608

    def insert(self, pair: Pair, rows: list[list[Value]]) -> list[tuple[int, str]]:
        """Insert all at once; one by one when one of them is refused."""
        if not any(isinstance(value, RawText) for row in rows for value in row):
            self._connection.execute("SAVEPOINT batch")
            try:
                self._connection.executemany(self._statement(pair), rows)
            except (*_TAKEN, sqlite3.OperationalError):
                self._connection.execute("ROLLBACK TO batch")
            else:
                return []
            finally:
                self._connection.execute("RELEASE batch")
        refused = []
        for place, row in enumerate(rows):
            try:
                self._insert_one(pair, row)
            except _TAKEN as error:
                refused.append((place, str(error)))
        return refused

    def _insert_one(self, pair: Pair, row: list[Value]) -> None:
        raw = [isinstance(value, RawText) for value in row]
        if any(raw) and not self._is_utf8:
            raise sqlite3.DataError("text that is not UTF-8 has no form in UTF-16")
        values = [value.data if isinstance(value, RawText) else value for value in row]
        self._connection.execute(self._statement(pair, raw), values)

    def _statement(self, pair: Pair, raw: Sequence[bool] = ()) -> str:
        columns = ", ".join(map(quoted, pair.columns))
        marks = ["CAST(? AS TEXT)" if is_raw else "?" for is_raw in raw or (False,) * len(pair.columns)]
        return f"INSERT INTO {quoted(pair.target.name)} ({columns}) VALUES ({', '.join(marks)})"  # noqa: S608

    def stored(self, pair: Pair) -> Iterator[bytes]:
        """Yield all rows."""
        self._connection.text_factory = text_of
        query = f"SELECT {', '.join(map(quoted, pair.columns))} FROM {quoted(pair.target.name)} NOT INDEXED"  # noqa: S608
        for row in self._connection.execute(query):
            yield self.form(pair, row)

    def form(self, pair: Pair, row: Sequence[Value]) -> bytes:
        """Return the row as an export has it; of another engine, 1 and 1.0 are the same."""
        if pair.across:
            return row_line([without_kind(value) for value in row])
        return row_line([_as_read(value) for value in row])

    def orphans(self, pairs: Sequence[Pair], *, take_out: bool) -> Iterator[Orphan]:
        """Take rows out as `OrphanSearch` says, and put them back unless they are to be left out."""
        search = OrphanSearch(self._connection, self.form)
        loaded = {pair.target for pair in pairs}
        self._connection.execute("SAVEPOINT orphans")
        try:
            yield from search.of_others([table for table in self.tables() if table not in loaded])
            for orphan in search.take_out(pairs):
                yield orphan if take_out else replace(orphan, row=None)
        finally:
            if not take_out:
                self._connection.execute("ROLLBACK TO orphans")
            self._connection.execute("RELEASE orphans")
            self._notices += search.notices

    def finish(self, export: Export, pairs: Sequence[Pair], *, commit: bool) -> list[str]:
        """Put the triggers back, move the ids of AUTOINCREMENT tables on, and end the transaction."""
        self._connection.text_factory = str
        for _, statement in self._triggers:
            self._connection.execute(statement)
        self._move_ids(export, pairs)
        self._connection.execute("COMMIT" if commit else "ROLLBACK")
        return self._notices

    def _move_ids(self, export: Export, pairs: Sequence[Pair]) -> None:
        """Give no id twice, also not one whose row was deleted before the export."""
        with suppress(sqlite3.OperationalError):  # no table counts
            for sequence in export.sequences:
                names = [pair.target.name for pair in pairs if _counts(sequence.name, pair)]
                for name in names if sequence.is_called else ():
                    values = {"name": name, "seq": sequence.last_value}
                    update = "UPDATE sqlite_sequence SET seq = max(seq, :seq) WHERE name = :name"
                    if self._connection.execute(update, values).rowcount == 0 and _is_counted(
                        self._connection, name
                    ):
                        insert = "INSERT INTO sqlite_sequence VALUES (:name, :seq)"
                        self._connection.execute(insert, values)


def _counts(sequence: str, pair: Pair) -> bool:
    """Say whether a sequence of the export counts the ids of a table."""
    if not pair.across:
        return sequence == pair.exported.name
    return len(pair.target.key) == 1 and sequence == f"{pair.exported.name}_{pair.target.key[0]}_seq"


def _is_counted(connection: sqlite3.Connection, table: str) -> bool:
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
    (statement,) = connection.execute(query, (table,)).fetchone()
    return "AUTOINCREMENT" in str(statement).upper()


def _as_read(value: Value) -> Value:
    """Return text with NUL as it is read back."""
    return RawText(value.encode()) if isinstance(value, str) and "\0" in value else value


def _kind_of(error: BackupAdminError) -> str:
    kinds = {"restore_refused": "refused", "verification_failed": "unverified"}
    same = ("damaged", "newer_version")
    return error.code if error.code in same else kinds.get(error.code, "failed")
