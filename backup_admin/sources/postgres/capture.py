"""Capturing a PostgreSQL database in use: one exported snapshot serves every connection and program.

The parts of a capture are files: the schema in two archives of `pg_dump` (what rows need, and what needs
rows), each table as the text of `COPY`, large objects as an archive, and `contents.json`, which tells what
the others are. Where that cannot carry all there is, one archive holds everything, and the rows of each
table are only counted and digested. `load` makes a database of either.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import ProgramFailed, SourceError
from backup_admin.core.programs import stream_program
from backup_admin.sources.postgres.catalog import catalog_to_json, read_catalog
from backup_admin.sources.postgres.clients import choose_for_dump, why
from backup_admin.sources.postgres.connect import connected, explain, take_rows_as_they_are
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.needs import needs_to_json, read_needs
from backup_admin.sources.postgres.parts import (
    ARCHIVE_FORMAT,
    FORMAT,
    LARGE_OBJECTS,
    POST_DATA,
    PRE_DATA,
    WHOLE,
    TablePart,
)
from backup_admin.sources.postgres.rows import RowSum, TableReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.core.programs import ProgramOutput
    from backup_admin.sources.base import ReadInto
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.catalog import Catalog, Table
    from backup_admin.sources.postgres.clients import ClientPrograms

_MAGIC = b"PGDMP"
_LOCK_WAIT = "60s"
_SET_LOCK_WAIT = sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT))
_SILENCE_SECONDS = 1800.0
_SECTIONS = {
    PRE_DATA: ("--section=pre-data",),
    POST_DATA: ("--section=post-data",),
    # Rows and places of sequences are in parts of their own.
    LARGE_OBJECTS: ("--section=data", "--blobs", "--exclude-table-data=*.*"),
    WHOLE: (),
}


@contextmanager
def capturing(
    address: PostgresAddress, clients: Sequence[ClientPrograms], *, archive: bool = False
) -> Iterator[PostgresCapture]:
    """Begin a snapshot of a database and keep it for the block; `archive` asks for one whatever is in it.

    Raises `SourceMissing`, `SourceError` or `NoClient`.
    """
    with connected(address) as connection, ExitStack() as stack:
        client = choose_for_dump(clients, connection.info.server_version // 10_000)
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        snapshot = "" if row is None else str(row[0])
        captured = PostgresCapture(address, client, connection, snapshot, stack)
        if archive and not captured.archive_reason:
            captured.archive_reason = "it was asked for"
        yield captured


class PostgresCapture:
    """A database as it was when the capture began. Tables may be read from several threads.

    `archive_reason` says why it is written as one archive; empty when it is not.
    """

    def __init__(
        self,
        address: PostgresAddress,
        client: ClientPrograms,
        connection: psycopg.Connection,
        snapshot: str,
        stack: ExitStack,
    ) -> None:
        self.client = client
        self.server_version = _version(connection.info.server_version)
        self._address = address
        self._snapshot = snapshot
        self._stack = stack
        self._lock = threading.Lock()
        self._local = threading.local()
        self._first = connection
        self._first_in_use = threading.Lock()
        self.catalog: Catalog = read_catalog(connection)
        self.needs = read_needs(connection)
        self.archive_reason = "; ".join(self.catalog.reasons)
        if self.catalog.tables:
            # As pg_dump does: nobody changes or drops a table before it was read.
            names = sql.SQL(", ").join(table.rows() for table in self.catalog.tables)
            connection.execute(_SET_LOCK_WAIT)
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))

    def archives(self) -> tuple[str, ...]:
        """Return the names of the archives that `pg_dump` makes."""
        if self.archive_reason:
            return (WHOLE,)
        return (PRE_DATA, *((LARGE_OBJECTS,) if self.catalog.large_objects else ()), POST_DATA)

    @property
    def tables(self) -> tuple[Table, ...]:
        """Return all tables that have rows in what is written."""
        return (*self.catalog.tables, *(self.catalog.configured if self.archive_reason else ()))

    @contextmanager
    def archive(self, name: str) -> Iterator[ReadInto]:
        """Give the bytes of an archive; the read that would find its end raises when it is not whole."""
        command = [
            *(self.client.dump, "--no-password", "--format=custom", "--compress=0"),
            *(f"--snapshot={self._snapshot}", f"--lock-wait-timeout={_LOCK_WAIT}", *_SECTIONS[name]),
            f"--dbname={self._address.conninfo()}",
        ]
        environment = self._address.environment()
        try:
            with stream_program(command, silence_seconds=_SILENCE_SECONDS, environment=environment) as output:
                yield _Archive(name, output).read_into
        except ProgramFailed as error:
            raise SourceError(f"{self._address.label}: {error}") from error

    @contextmanager
    def table(self, table: Table) -> Iterator[TableReader]:
        """Give the rows of a table as text, in the order of its primary key."""
        with self._connection_for(table) as connection:
            reader = TableReader(connection, table.copy_out())
            try:
                yield reader
            except psycopg.Error as error:
                raise SourceError(f"{self._address.label}: table {table.shown}: {explain(error)}") from error
            finally:
                if not reader.close():
                    self._local.connection = None
                    connection.close()

    def digest(self, table: Table) -> TablePart:
        """Read a table without keeping it: what an archive holds is compared with that."""
        digest, total = hashlib.sha256(), RowSum()
        rows = size = 0
        with self.table(table) as reader:
            while block := reader.next_block():
                digest.update(block)
                size += len(block)
                if not table.key:
                    total.add(io.BytesIO(block))
            rows = reader.rows
        row_sum = "" if table.key else total.hexdigest()
        return TablePart(table, "", rows, size, digest.hexdigest(), row_sum)

    def contents(self, tables: Sequence[TablePart]) -> bytes:
        """Return what tells `load` about all other parts."""
        value: dict[str, Any] = {
            "format": ARCHIVE_FORMAT if self.archive_reason else FORMAT,
            "server_version": self.server_version,
            "client_version": self.client.version,
            "needs": needs_to_json(self.needs),
            **catalog_to_json(self.catalog, self.tables),
        }
        if self.archive_reason:
            value["archive_reason"] = self.archive_reason
        read = {(part.table.schema, part.table.name): part for part in tables}
        for row in value["tables"]:
            part = read[row["schema"], row["name"]]
            row.update({"file": part.file, "rows": part.rows, "bytes": part.size, "sha256": part.sha256})
            if part.row_sum:
                row["row_sum"] = part.row_sum
        return json.dumps(value, ensure_ascii=False, indent=1).encode()

    @contextmanager
    def _connection_for(self, table: Table) -> Iterator[psycopg.Connection]:
        """Give a connection that reads a table at once: the first one has locked it.

        Who wants to drop or change the table waits for that one, and any other would wait behind him: for
        ever, since the server does not see that they all belong together.
        """
        connection = self._own_connection()
        if _locks_at_once(connection, table):
            yield connection
            return
        with self._first_in_use:
            take_rows_as_they_are(self._first)
            yield self._first

    def _own_connection(self) -> psycopg.Connection:
        """Return the connection of this thread, in the one snapshot."""
        connection: psycopg.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                connection = self._stack.enter_context(connected(self._address))
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self._snapshot)))
            connection.execute(_SET_LOCK_WAIT)
            take_rows_as_they_are(connection)
            self._local.connection = connection
        return connection


def _locks_at_once(connection: psycopg.Connection, table: Table) -> bool:
    """Lock a table as reading it does, unless one would have to wait for that."""
    lock = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT").format(table.rows())
    try:
        with connection.transaction():
            connection.execute(lock.as_bytes(None))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


class _Archive:
    """What `pg_dump` writes; that it ended well is known only at the end."""

    def __init__(self, name: str, output: ProgramOutput) -> None:
        self._name = name
        self._output = output
        self._begin = b""

    def read_into(self, view: memoryview) -> int:
        count = self._output.readinto(view)
        if len(self._begin) < len(_MAGIC):
            self._begin += bytes(view[: min(count, len(_MAGIC) - len(self._begin))])
        if count == 0:
            done = self._output.finished()
            if done.status != 0:
                raise SourceError(f"pg_dump {why(done)} while it wrote {self._name}. Nothing of it is kept.")
            if self._begin != _MAGIC:
                raise SourceError(f"pg_dump wrote no archive for {self._name}, and did not say why.")
        return count


def _version(number: int) -> str:
    return f"{number // 10_000}.{number % 10_000}"
