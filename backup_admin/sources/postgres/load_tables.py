"""Filling the tables of a database side by side, and proving that they hold what was captured."""

from __future__ import annotations

import hashlib
import queue
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from backup_admin.core.errors import Damaged, SourceError
from backup_admin.sources.postgres.connect import connected, take_rows_as_they_are
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.rows import BLOCK_BYTES, RowSum, copied_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from contextlib import ExitStack
    from pathlib import Path

    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.parts import TablePart

Item = TypeVar("Item")
Result = TypeVar("Result")
_CANCEL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Filled:
    """A table that was filled; all its rows were written by one transaction."""

    part: TablePart
    transaction: str


class Crew:
    """Threads with a connection each, which work side by side; all stop when one fails."""

    def __init__(self, address: PostgresAddress, count: int, stack: ExitStack) -> None:
        self._all = [stack.enter_context(connected(address)) for _ in range(count)]
        self._free: queue.SimpleQueue[psycopg.Connection] = queue.SimpleQueue()
        for connection in self._all:
            take_rows_as_they_are(connection)
            self._free.put(connection)
        self._pool = ThreadPoolExecutor(count)
        stack.push(self._leave)

    def start(self, act: Callable[[psycopg.Connection, Item], Result], item: Item) -> Future[Result]:
        """Do something with a connection after all that was started before."""

        def run() -> Result:
            connection = self._free.get()
            try:
                return act(connection, item)
            finally:
                self._free.put(connection)

        return self._pool.submit(run)

    def _leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """End what is under way when something failed: nobody waits for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for connection in self._all if kind is not None else ():
            with suppress(psycopg.Error):  # it ends by itself, only later
                connection.cancel_safe(timeout=_CANCEL_SECONDS)
        self._pool.shutdown(wait=True)


def results(futures: Sequence[Future[Result]]) -> tuple[Result, ...]:
    """Return what came out of each, or raise the first error at once."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return tuple(future.result() for future in futures)


def copy_in(connection: psycopg.Connection, folder: Path, part: TablePart) -> Filled:
    """Copy the rows of a part into its table, which is empty.

    Raises `Damaged` for a part that is not what was captured; then none of its rows stay.
    """
    table, digest = part.table, hashlib.sha256()
    with (
        (folder / part.file).open("rb") as file,
        connection.transaction(),
        connection.cursor() as cursor,
    ):
        row = cursor.execute("SELECT pg_current_xact_id()::xid::text::bigint").fetchone()
        # Only rows of a table that is emptied here can be written as ones that all have seen: nobody
        # needs to write them again.
        cursor.execute(sql.SQL("TRUNCATE {}").format(table.rows()).as_bytes())
        with cursor.copy(table.copy_in(frozen=True).as_bytes()) as copy:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                copy.write(block)
        # Raised within the transaction.
        if digest.hexdigest() != part.sha256:
            raise Damaged(f"{part.file} is not what was captured of table {table.shown}.")
        if cursor.rowcount != part.rows:
            raise Damaged(f"Table {table.shown} took {cursor.rowcount} rows instead of {part.rows}.")
    return Filled(part, "" if row is None else str(row[0]))


def read_back(connection: psycopg.Connection, folder: Path, part: TablePart) -> None:
    """Raise `SourceError` unless a table holds the rows of its part."""
    if not is_as_captured(connection, folder, part):
        raise SourceError(f"Table {part.table.shown} does not hold what was captured.")


def is_as_captured(connection: psycopg.Connection, folder: Path, part: TablePart) -> bool:
    """Say whether a table holds the rows of its part.

    It is read as it lies, which is how it was written; where that is another order, each row counts.
    """
    statement, digest = part.table.copy_out(in_order=False), hashlib.sha256()
    for rows in copied_rows(connection, statement):
        digest.update(b"".join(rows))
    if digest.hexdigest() == part.sha256:
        return True
    found, captured = RowSum(), RowSum()
    for rows in copied_rows(connection, statement):
        found.add(rows)
    with (folder / part.file).open("rb") as file:
        captured.add(file)
    return found.hexdigest() == captured.hexdigest()


def compare_restored(connection: psycopg.Connection, part: TablePart) -> None:
    """Raise `SourceError` unless a table that came out of an archive holds what was captured."""
    digest, total, count = hashlib.sha256(), RowSum(), 0
    for rows in copied_rows(connection, part.table.copy_out()):
        count += len(rows)
        digest.update(b"".join(rows))
        if part.row_sum:
            total.add(rows)
    same = total.hexdigest() == part.row_sum if part.row_sum else digest.hexdigest() == part.sha256
    if not same or count != part.rows:
        raise SourceError(f"Table {part.table.shown} does not hold what was captured.")


def prove_and_analyze(connection: psycopg.Connection, filled: Filled) -> None:
    """Raise `SourceError` unless a table still has the rows that were read back, and no others; analyze it.

    Each row says which transaction wrote it: a change is another row.
    """
    query = sql.SQL("SELECT count(*), count(*) FILTER (WHERE xmin = {}::xid) FROM {}").format(
        filled.transaction, filled.part.table.rows()
    )
    rows = filled.part.rows
    if connection.execute(query.as_bytes()).fetchone() != (rows, rows):
        raise SourceError(
            f"Table {filled.part.table.shown} does not hold what was captured: it was changed meanwhile."
        )
    connection.execute(sql.SQL("ANALYZE {}").format(filled.part.table.quoted()).as_bytes())
