"""Being the only session at work on a restore: what a dead process left on the server is ended first.

A killed process, or a connection that broke, leaves a session that may go on and even commit. Whoever wants
to know what was done has to end it before asking.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from backup_admin.core.errors import Busy, SourceMissing
from backup_admin.sources.postgres.connect import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import psycopg

    from backup_admin.sources.postgres.address import PostgresAddress

# Locks count in one database, but all are listed: a session of ours may be in another than we are.
_HOLDERS = """
SELECT l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
AND (l.classid::bigint << 32) | l.objid::bigint = %s AND EXISTS (
  SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid = (
    SELECT oid FROM pg_roles WHERE rolname = session_user))
"""
# Without it a server keeps what is locked for hours after the network went away.
_NOTICE_LOSS = """
SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
  set_config('tcp_keepalives_count', '6', false)
"""
_ROUNDS = 300
_ROUND_SECONDS = 0.1
_START_SECONDS = 60.0
_STARTS = ("starting up", "in recovery mode", "not yet accepting", "shutting down")


def mark_of(name: str) -> int:
    """Return the number of the lock that all sessions of one restore hold, from a name only it uses."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big", signed=True)


def be_alone(connection: psycopg.Connection, mark: int) -> None:
    """Hold a mark until the connection ends, after every other session with it was ended.

    What those did is then either committed or undone. Raises `Busy` when one does not end.
    """
    connection.execute(_NOTICE_LOSS)
    connection.execute("SELECT pg_advisory_lock_shared(%s)", (mark,))
    for _ in range(_ROUNDS):
        pids = [pid for (pid,) in connection.execute(_HOLDERS, (mark,))]
        if not pids:
            return
        for pid in pids:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        connection.execute("SELECT pg_sleep(%s)", (_ROUND_SECONDS,))
    raise Busy(
        f"A session of the same restore, process {pids[0]} of the server, does not end. Try again later."
    )


@contextmanager
def connected_alone(address: PostgresAddress, mark: int) -> Iterator[psycopg.Connection]:
    """Give a connection as `connected` does, alone with a mark, and wait for a server that is starting."""
    wait_until_started(lambda: connected(address))
    with connected(address) as connection:
        be_alone(connection, mark)
        yield connection


def wait_until_started(enter: Callable[[], AbstractContextManager[psycopg.Connection]]) -> None:
    """Wait while a server says that it starts: after one of its processes was killed it does so by itself.

    Raises what `enter` does.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with enter():
                return
        except SourceMissing as error:
            if time.monotonic() > deadline or not any(sign in str(error) for sign in _STARTS):
                raise
            time.sleep(_ROUND_SECONDS)
