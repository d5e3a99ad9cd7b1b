"""Reading what `COPY` writes: many rows at once, and ahead of who takes them."""

from __future__ import annotations

import hashlib
import os
import queue
import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.sources.postgres.driver import errors, pq, psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg import sql
    from psycopg.pq.abc import PGconn, PGresult

# What is taken out of the buffer of the library at once, and how much of that waits for who takes it: while
# a window of 8 MiB is hashed and compressed, the server goes on.
BLOCK_BYTES = 256 << 10
_BLOCKS_AHEAD = 16
# A server sends 8 KiB at a time. Woken for each, both sides take half as much CPU again.
_GATHER_SECONDS = 0.000_3
_PATIENCE_SECONDS = 0.05
_SUM_BYTES = 32

Block = bytes | memoryview
"""Whole rows as text."""


def copied_rows(connection: psycopg.Connection, statement: sql.Composed) -> Iterator[list[memoryview]]:
    """Yield the rows that a `COPY … TO STDOUT` writes, many at once; raises `psycopg.Error`.

    The library hands on one at a time, with as many steps for each as there are here for a block. Whoever
    stops before the end has to close the connection.
    """
    link = connection.pgconn
    # Not in the encoding of the connection: where that is none, psycopg takes names for ASCII.
    link.send_query(statement.as_bytes())
    while link.flush():
        select.select([], [link.socket], [])
    _expect(_result(link), pq.ExecStatus.COPY_OUT)
    is_open = True
    while is_open:
        rows, is_open = _rows_of_a_block(link)
        yield rows
    _expect(_result(link), pq.ExecStatus.COMMAND_OK)
    while _next_result(link) is not None:
        pass  # nothing more comes; only then the connection takes another statement


def _rows_of_a_block(link: PGconn) -> tuple[list[memoryview], bool]:
    """Return as many rows as make a block, and whether there may be more."""
    rows: list[memoryview] = []
    append, take = rows.append, link.get_copy_data
    poll = select.poll()
    poll.register(link.socket, select.POLLIN)
    size = 0
    while size < BLOCK_BYTES:
        count, row = take(1)
        if count > 0:
            append(row)
            size += count
        elif count == 0:
            if not poll.poll(0):
                select.select([], [], [], _GATHER_SECONDS)
                poll.poll()
            link.consume_input()
        else:
            return rows, False
    return rows, True


def _next_result(link: PGconn) -> PGresult | None:
    while link.is_busy():
        select.select([link.socket], [], [])
        link.consume_input()
    return link.get_result()


def _result(link: PGconn) -> PGresult:
    result = _next_result(link)
    if result is None:
        raise psycopg.OperationalError("the server ended a statement without a word")
    return result


def _expect(result: PGresult, status: pq.ExecStatus) -> None:
    if result.status != status:
        raise errors.error_from_result(result)


class RowSum:
    """A number that is the same for the same rows in any order; equal rows count as often as they come."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, rows: Iterable[bytes | memoryview]) -> None:
        """Count more rows in."""
        for row in rows:
            self._total += int.from_bytes(hashlib.blake2b(row, digest_size=_SUM_BYTES).digest(), "big")

    def hexdigest(self) -> str:
        """Return the number as text."""
        return f"{self._total % (1 << 8 * _SUM_BYTES):0{2 * _SUM_BYTES}x}"


class TableReader:
    """The text of one table; `rows` counts what was handed on so far. A thread of its own reads ahead."""

    def __init__(self, connection: psycopg.Connection, statement: sql.Composed) -> None:
        self.rows = 0
        self._left = memoryview(b"")
        self._blocks: queue.SimpleQueue[tuple[int, Block] | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_BLOCKS_AHEAD)
        self._socket = connection.pgconn.socket
        self._is_whole = False
        self._thread = threading.Thread(target=self._read, args=(connection, statement), daemon=True)
        self._thread.start()

    def read_into(self, view: memoryview) -> int:
        """Fill a view as far as there is something; 0 at the end. Raises `psycopg.Error`."""
        if not self._left:
            self._left = memoryview(self.next_block())
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def next_block(self) -> Block:
        """Return the next rows, whole ones; empty at the end. Raises `psycopg.Error`."""
        if self._is_whole:
            return b""
        found = self._blocks.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            self._is_whole = True
            return b""
        rows, block = found
        self._room.release(_weight(block))
        self.rows += rows
        return block

    def close(self) -> bool:
        """Stop reading, and say whether the end was reached: if not, the connection is of no more use."""
        if not self._is_whole:
            self._hang_up()
        self._thread.join()
        return self._is_whole

    def _read(self, connection: psycopg.Connection, statement: sql.Composed) -> None:
        try:
            for rows in copied_rows(connection, statement):
                if rows:
                    # A row may be as large as all that waits otherwise, and is not copied once more.
                    block = rows[0] if len(rows) == 1 else b"".join(rows)
                    for _ in range(_weight(block)):
                        self._room.acquire()
                    self._blocks.put((len(rows), block))
            self._blocks.put(None)
        except BaseException as error:  # noqa: BLE001 - raised to who reads
            self._blocks.put(error)

    def _hang_up(self) -> None:
        """Wake the thread, whatever it waits for."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._socket)) as link:
            link.shutdown(socket.SHUT_RDWR)
        while self._thread.is_alive():
            self._room.release(_BLOCKS_AHEAD)
            self._thread.join(_PATIENCE_SECONDS)


def _weight(block: Block) -> int:
    """Return how many usual blocks a block counts for; a very large one waits alone."""
    return max(1, min(_BLOCKS_AHEAD, len(block) // BLOCK_BYTES))
