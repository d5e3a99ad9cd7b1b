"""Being the only session at work on a restore: what a dead process left on the server is ended first.

A killed process, or a connection that broke, leaves a session that may go on and even commit. Whoever wants
to know what was done has to end it before asking.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from backup_admin.core.errors import Busy, NotExchanged, SourceError, SourceMissing
from backup_admin.sources.postgres.connect import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import psycopg

    from backup_admin.sources.postgres.address import PostgresAddress

    Enter: TypeAlias = Callable[[], AbstractContextManager[psycopg.Connection]]

Result = TypeVar("Result")
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
_PAUSE_SECONDS = 0.5
_LOSSES = 5
_ENDED = "closed the connection"
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


def insist(work: Callable[[], Result]) -> Result:
    """Call what may be repeated once more, and again, when it is not known what came of it.

    A server that lost a process ends all others, those too that only ask what was done.
    """
    for _ in range(_LOSSES):
        try:
            return work()
        except (SourceMissing, NotExchanged):
            raise
        except SourceError:
            time.sleep(_PAUSE_SECONDS)
    return work()


@contextmanager
def connected_alone(address: PostgresAddress, mark: int) -> Iterator[psycopg.Connection]:
    """Give a connection as `connected` does, alone with a mark (`alone`)."""
    with alone(lambda: connected(address), mark) as connection:
        yield connection


@contextmanager
def alone(enter: Enter, mark: int) -> Iterator[psycopg.Connection]:
    """Give a connection that is alone with a mark (`be_alone`), and wait for a server that is starting.

    After one of its processes was killed a server ends all others and starts anew by itself. Raises what
    `enter` and `be_alone` do.
    """
    deadline = time.monotonic() + _START_SECONDS
    losses = 0
    while True:
        try:
            with ExitStack() as entering:
                connection = entering.enter_context(enter())
                be_alone(connection, mark)
                entered = entering.pop_all()
            break
        except SourceError as error:
            losses += _is_loss(error)
            is_missing = isinstance(error, SourceMissing) and not (_is_loss(error) or _is_starting(error))
            if is_missing or losses > _LOSSES or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)
    with entered:
        yield connection


def _is_starting(error: SourceError) -> bool:
    return any(sign in str(error) for sign in _STARTS)


def _is_loss(error: SourceError) -> bool:
    """Say whether a connection was ended, also while it was being made."""
    return not isinstance(error, SourceMissing) or _ENDED in str(error)
