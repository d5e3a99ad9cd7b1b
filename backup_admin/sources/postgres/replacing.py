"""Replacing all that is in a database within one transaction: the way without the right to make databases.

Whoever reads or writes waits meanwhile. What was there is kept as parts, as a capture writes them.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from backup_admin.core.durable import make_folders, sync_folder
from backup_admin.core.errors import (
    BackupAdminError,
    Busy,
    Damaged,
    NotExchanged,
    SourceError,
    VerificationFailed,
)
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres.alone import connected_alone, insist
from backup_admin.sources.postgres.catalog import sequences_from_json, table_parts, tables_from_json
from backup_admin.sources.postgres.clients import choose_for_restore, why
from backup_admin.sources.postgres.connect import (
    connected,
    explain,
    pin_settings,
    take_rows_as_they_are,
)
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.dropping import drop_all, make_public, schemas
from backup_admin.sources.postgres.left_out import left_of
from backup_admin.sources.postgres.load import read_contents
from backup_admin.sources.postgres.load_tables import is_as_captured
from backup_admin.sources.postgres.parts import (
    CONTENTS,
    LARGE_OBJECTS,
    POST_DATA,
    PRE_DATA,
    TablePart,
    file_of,
)
from backup_admin.sources.postgres.script import (
    run_large_objects,
    run_script,
    without_comments_on_extensions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from backup_admin.core.programs import Finished
    from backup_admin.sources.base import ReadInto
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.capture import PostgresCapture
    from backup_admin.sources.postgres.catalog import Table
    from backup_admin.sources.postgres.clients import ClientPrograms, RestoreClient
    from backup_admin.sources.postgres.source import PostgresSource

_BLOCK_BYTES = 256 << 10
_HOURS = 24 * 3600.0
_SET_LOCK_WAIT = sql.SQL("SET LOCAL lock_timeout = {}")
_LOCK_WAIT = "60s"
_OWN_WAIT = "600s"
_HOLDERS = """
SELECT DISTINCT a.pid, a.usename::text, coalesce(a.application_name, '')
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.locktype = 'relation' AND l.granted AND a.usesysid IS NOT NULL
  AND l.pid NOT IN (%s, pg_backend_pid()) ORDER BY a.pid LIMIT 5
"""
_LOCK_NUMBER = 0x6261636B75700001


def write_parts(source: PostgresSource, folder: Path) -> None:
    """Write the parts of a live database into a new folder; raise what capturing it does."""
    make_folders(folder / "tables")
    with source.capturing() as captured:
        if captured.archive_reason:
            raise SourceError(
                f"{source.name} cannot be kept as parts, since {captured.archive_reason}, and "
                "is not replaced. Let the user make databases (CREATEDB): then it is exchanged."
            )
        for name in captured.archives():
            with captured.archive(name) as read_into:
                _write(folder / name, read_into)
        tables = [_write_table(captured, table, folder) for table in captured.tables]
        with (folder / CONTENTS).open("xb") as file:
            file.write(captured.contents(tables))
            _sync(file)
    sync_folder(folder / "tables")
    sync_folder(folder)


def replace_content(
    folder: Path, address: PostgresAddress, clients: Sequence[ClientPrograms], *, mark: int
) -> None:
    """Drop what is in a database and load the parts in a folder, read back, in one transaction.

    Live is as it was when anything fails. Sessions with the same `mark` are ended first. Raises `Busy` when
    others keep what is to be dropped locked, `NotExchanged` when anything else goes wrong before the commit
    or the server says that there was none, `SourceError` when it cannot be asked, and what `read_contents`
    and `connected` do.
    """
    contents = read_contents(folder)
    transaction = ""
    with connected_alone(address, mark) as connection:
        server = connection.info.server_version // 10_000
        made_by = int(str(contents["client_version"]).partition(".")[0])
        client = choose_for_restore(clients, archive_major=made_by, server_major=server)
        run = _Replacement(folder, client, connection)
        try:
            with connection.transaction(), _before_commit(address, connection.info.backend_pid):
                transaction = _number_of(connection)
                run.run(contents)
        except psycopg.Error as error:
            _need_committed(address, mark, transaction, error)
        except NotExchanged:
            if connection.broken:
                _let_go(address, mark)
            raise
    with suppress(SourceError), connected(address) as connection:
        connection.execute("ANALYZE")  # what is not counted now, the server counts by itself later


def _number_of(connection: psycopg.Connection) -> str:
    row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    return "" if row is None else str(row[0])


def _status_of(address: PostgresAddress, mark: int, transaction: str) -> tuple[object, ...] | None:
    with connected_alone(address, mark) as connection:
        return connection.execute("SELECT pg_xact_status(%s::text::xid8)", (transaction,)).fetchone()


def _let_go(address: PostgresAddress, mark: int) -> None:
    """End a session whose connection broke: the server may not know, and keep all tables locked for it."""
    with suppress(BackupAdminError), connected_alone(address, mark):
        pass  # where the server cannot be reached, it notices by itself


def _need_committed(address: PostgresAddress, mark: int, transaction: str, error: psycopg.Error) -> None:
    """Ask how a transaction ended, of which we did not hear; raise when it was not committed."""
    said = f"{address.label}: {explain(error)}"
    try:
        row = insist(lambda: _status_of(address, mark, transaction))
    except BackupAdminError as why_not:
        raise SourceError(f"{said} Whether it was replaced could not be asked: {why_not}") from error
    if row != ("committed",):
        raise NotExchanged(f"{said} The server did not commit it, so it is as it was.") from error


@contextmanager
def _before_commit(address: PostgresAddress, own: int) -> Iterator[None]:
    """Say of what fails in the block that nothing stays of it: it can be committed no more."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        who = _holders(address, own) or explain(error)
        raise Busy(
            f"{address.label} is used by others who do not let go: {who}. It is as it was. "
            "Stop those programs or end their sessions, and restore again."
        ) from error
    except psycopg.Error as error:
        raise NotExchanged(f"{address.label}: {explain(error)} It is as it was.") from error
    except (BackupAdminError, OSError) as error:
        raise NotExchanged(f"{error} {address.label} is as it was.") from error


def _holders(address: PostgresAddress, own: int) -> str:
    """Name who has something of a database locked."""
    try:
        with connected(address) as connection:
            found = connection.execute(_HOLDERS, (own,)).fetchall()
    except BackupAdminError:
        return ""  # what they are called is not what went wrong
    return ", ".join(f"{user} ({app or 'no name'}, process {pid} of the server)" for pid, user, app in found)


class _Replacement:
    def __init__(self, folder: Path, client: RestoreClient, connection: psycopg.Connection) -> None:
        self._folder = folder
        self._client = client
        self._connection = connection

    def run(self, contents: dict[str, Any]) -> None:
        connection = self._connection
        # The session of a killed process may still be at the same work, and even commit it.
        connection.execute(_SET_LOCK_WAIT.format(sql.Literal(_OWN_WAIT)))
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_NUMBER,))
        connection.execute(_SET_LOCK_WAIT.format(sql.Literal(_LOCK_WAIT)))
        drop_all(connection)
        self._run(PRE_DATA)
        tables = tables_from_json(contents["tables"])
        take_rows_as_they_are(connection)
        for table, row in zip(tables, contents["tables"], strict=True):
            self._copy_in(table, row)
        pin_settings(connection)
        for sequence in sequences_from_json(contents["sequences"]):
            name = sql.Identifier(sequence.schema, sequence.name).as_string(connection)
            values = (name, sequence.last_value, sequence.is_called)
            connection.execute("SELECT setval(%s::regclass, %s, %s)", values)
        if int(contents["large_objects"]):
            script = self._folder / f"{LARGE_OBJECTS}.sql"
            self._script_of(LARGE_OBJECTS, script)
            run_large_objects(connection, script)
            script.unlink()
        self._run(POST_DATA)
        take_rows_as_they_are(connection)
        for part in table_parts(contents["tables"]):
            if not is_as_captured(connection, self._folder, part):
                raise VerificationFailed(
                    f"Table {part.table.shown} does not hold what was captured; nothing stays."
                )

    def _run(self, name: str) -> None:
        script = self._folder / f"{name}.sql"
        self._script_of(name, script)
        run_script(self._connection, without_comments_on_extensions(script.read_bytes()))
        script.unlink()

    def _script_of(self, name: str, script: Path) -> None:
        listed = self._pg_restore(name, ["--list"]).output
        make_public(self._connection, listed)
        chosen = self._folder / f"{name}.list"
        chosen.write_bytes(left_of(listed, self._connection, there=schemas(self._connection)))
        self._pg_restore(name, ["--exit-on-error", f"--use-list={chosen}", f"--file={script}"])
        chosen.unlink()

    def _pg_restore(self, name: str, options: list[str]) -> Finished:
        command = [self._client.programs.restore, "--no-password", *options, str(self._folder / name)]
        done = run_program(command, timeout_seconds=_HOURS)
        if done.status != 0:
            raise SourceError(f"pg_restore of {name} {why(done)}.")
        return done

    def _copy_in(self, table: Table, row: dict[str, Any]) -> None:
        digest = hashlib.sha256()
        with (self._folder / str(row["file"])).open("rb") as file, self._connection.cursor() as cursor:
            with cursor.copy(table.copy_in().as_bytes()) as copy:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    copy.write(block)
            if digest.hexdigest() != row["sha256"] or cursor.rowcount != row["rows"]:
                raise Damaged(f"{row['file']} is not what was captured of table {table.shown}.")


def _write_table(captured: PostgresCapture, table: Table, folder: Path) -> TablePart:
    file = file_of(table.schema, table.name)
    with captured.table(table) as reader:
        size, digest = _write(folder / file, reader.read_into)
    return TablePart(table, file, reader.rows, size, digest)


def _write(path: Path, read_into: ReadInto) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as file:
        path.chmod(0o600)
        for block in _blocks(read_into):
            digest.update(block)
            size += len(block)
            file.write(block)
        _sync(file)
    return size, digest.hexdigest()


def _sync(file: IO[bytes]) -> None:
    # What was live is dropped next, and a crash of the machine would leave these empty.
    file.flush()
    os.fsync(file.fileno())


def _blocks(read_into: ReadInto) -> Iterator[memoryview]:
    view = memoryview(bytearray(_BLOCK_BYTES))
    while count := read_into(view):
        yield view[:count]
