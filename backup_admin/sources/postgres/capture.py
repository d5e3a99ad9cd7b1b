"""Capturing a PostgreSQL database in use: one exported snapshot serves every connection and program.

The parts of a capture are files: the schema in two archives of `pg_dump` (what rows need, and what needs
rows), each table as the text of `COPY`, large objects as an archive, and `contents.json`, which tells what
the others are. `load` makes a database of them.
"""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from backup_admin.core.errors import ProgramFailed, SourceError
from backup_admin.core.programs import stream_program
from backup_admin.sources.postgres.catalog import catalog_to_json, read_catalog
from backup_admin.sources.postgres.clients import choose_for_dump, why
from backup_admin.sources.postgres.connect import connected, explain
from backup_admin.sources.postgres.parts import FORMAT, LARGE_OBJECTS, POST_DATA, PRE_DATA
from backup_admin.sources.postgres.rows import TableReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backup_admin.core.programs import ProgramOutput
    from backup_admin.sources.base import ReadInto
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.catalog import Catalog, Table
    from backup_admin.sources.postgres.clients import ClientPrograms
    from backup_admin.sources.postgres.parts import TablePart

_MAGIC = b"PGDMP"
_LOCK_WAIT = "60s"
_SILENCE_SECONDS = 1800.0
_SECTIONS = {
    PRE_DATA: ("--section=pre-data",),
    POST_DATA: ("--section=post-data",),
    # Rows and places of sequences are in parts of their own.
    LARGE_OBJECTS: ("--section=data", "--blobs", "--exclude-table-data=*.*"),
}


@contextmanager
def capturing(address: PostgresAddress, clients: Sequence[ClientPrograms]) -> Iterator[PostgresCapture]:
    """Begin a snapshot of a database and keep it for the block.

    Raises `SourceMissing`, `SourceError` or `NoClient`.
    """
    with connected(address) as connection, ExitStack() as stack:
        client = choose_for_dump(clients, connection.info.server_version // 10_000)
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        snapshot = "" if row is None else str(row[0])
        yield PostgresCapture(address, client, connection, snapshot, stack)


class PostgresCapture:
    """A database as it was when the capture began. Tables may be read from several threads."""

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
        self.catalog: Catalog = read_catalog(connection)
        if self.catalog.tables:
            # As pg_dump does: nobody changes or drops a table before it was read.
            names = sql.SQL(", ONLY ").join(table.quoted() for table in self.catalog.tables)
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT)))
            connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(names))

    def archives(self) -> tuple[str, ...]:
        """Return the names of the archives that `pg_dump` makes."""
        return (PRE_DATA, *((LARGE_OBJECTS,) if self.catalog.large_objects else ()), POST_DATA)

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
        connection = self._own_connection()
        reader = TableReader(connection, table.copy_out())
        try:
            yield reader
        except psycopg.Error as error:
            raise SourceError(f"{self._address.label}: table {table.shown}: {explain(error)}") from error
        finally:
            if not reader.close():
                self._local.connection = None
                connection.close()

    def contents(self, tables: Sequence[TablePart]) -> bytes:
        """Return what tells `load` about all other parts."""
        value: dict[str, Any] = {
            "format": FORMAT,
            "server_version": self.server_version,
            "client_version": self.client.version,
            **catalog_to_json(self.catalog),
        }
        read = {(part.table.schema, part.table.name): part for part in tables}
        for row in value["tables"]:
            part = read[row["schema"], row["name"]]
            row |= {"file": part.file, "rows": part.rows, "bytes": part.size, "sha256": part.sha256}
        return json.dumps(value, ensure_ascii=False, indent=1).encode()

    def _own_connection(self) -> psycopg.Connection:
        """Return the connection of this thread, in the one snapshot."""
        connection: psycopg.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                connection = self._stack.enter_context(connected(self._address))
            connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self._snapshot)))
            self._local.connection = connection
        return connection


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
