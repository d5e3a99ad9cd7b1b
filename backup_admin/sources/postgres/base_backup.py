"""Base backups: `pg_basebackup` of the server's version copies a cluster, `pg_verifybackup` reads it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.canonical import load_strict
from backup_admin.core.clock import parse_time
from backup_admin.core.errors import SourceError, SourceInvalid
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres.clients import why
from backup_admin.sources.postgres.cluster import BaseFacts
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.server_programs import server_programs
from backup_admin.sources.postgres.wal_files import parse_lsn, read_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    import psycopg

    from backup_admin.sources.postgres.address import PostgresAddress

MANIFEST = "backup_manifest"
# Nothing is said while a large cluster is copied.
_COPY_SECONDS = 7 * 86_400.0
_FACTS = """
SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
       (SELECT setting FROM pg_settings WHERE name = 'archive_mode'),
       (SELECT string_agg(spcname, ', ') FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))
"""
_TIME = "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM')"


@dataclass(frozen=True, slots=True)
class _Server:
    major: int
    version: str
    segment_bytes: int
    notices: tuple[str, ...]


def check_cluster(address: PostgresAddress, programs: Path | None) -> None:
    """Raise when no base backup could be taken: no such server, no programs, or tablespaces."""
    with connected(address) as connection:
        server = _look_at(address, connection)
    server_programs(server.major, programs)


def take_base_backup(address: PostgresAddress, programs: Path | None, folder: Path) -> BaseFacts:
    """Copy a cluster that is in use into a new folder, with the WAL that makes it consistent.

    Raises `SourceMissing`, `SourceError` or `NoClient`; what was copied so far is worth nothing then.
    """
    with connected(address) as connection:
        server = _look_at(address, connection)
    client = server_programs(server.major, programs)
    _run(
        address,
        [
            *(str(client.folder / "pg_basebackup"), "--no-password", "--no-sync", "--format=plain"),
            *("--wal-method=stream", "--checkpoint=fast", "--manifest-checksums=SHA256"),
            *("--label=backup_admin", f"--pgdata={folder}", f"--dbname={address.conninfo()}"),
        ],
    )
    with connected(address) as connection:
        finished_at = _server_time(connection)
    _run(address, [str(client.folder / "pg_verifybackup"), "--quiet", "--exit-on-error", str(folder)])
    first, last = _wal_range(folder)
    return BaseFacts(
        system=read_system(folder),
        timeline=int(last["Timeline"]),
        start=parse_lsn(first["Start-LSN"]),
        end=parse_lsn(last["End-LSN"]),
        segment_bytes=server.segment_bytes,
        finished_at=finished_at,
        server_version=server.version,
        verified_by=f"pg_verifybackup {client.version}",
        notices=server.notices,
    )


def _look_at(address: PostgresAddress, connection: psycopg.Connection) -> _Server:
    row = connection.execute(_FACTS).fetchone()
    if row is None:
        raise SourceError(f"{address.label}: the server does not tell its settings.")
    segment_bytes, archives, tablespaces = row
    if tablespaces:
        raise SourceError(
            f"{address.label} has tablespaces ({tablespaces}), which base backups here cannot hold yet. "
            "Nothing was written."
        )
    number = connection.info.server_version
    notices: tuple[str, ...] = ()
    if archives == "off":
        notices = (
            "The server does not archive its WAL (archive_mode is off): only the state at the end of this "
            "base backup can be restored, no time after it.",
        )
    return _Server(number // 10_000, f"{number // 10_000}.{number % 10_000}", int(segment_bytes), notices)


def _server_time(connection: psycopg.Connection) -> datetime:
    row = connection.execute(_TIME).fetchone()
    return parse_time(str(row[0]) if row else "")


def _run(address: PostgresAddress, command: list[str]) -> None:
    done = run_program(command, timeout_seconds=_COPY_SECONDS, environment=address.environment())
    if done.status != 0:
        program = command[0].rpartition("/")[2]
        raise SourceError(f"{address.label}: {program} {why(done)}. Nothing of it is kept.")


def _wal_range(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first and the last range of the WAL that the backup needs."""
    try:
        ranges = list(_ranges(load_strict((folder / MANIFEST).read_bytes())))
        return ranges[0], ranges[-1]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SourceInvalid(f"The manifest that pg_basebackup wrote cannot be read: {error}.") from error


def _ranges(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = sorted(manifest["WAL-Ranges"], key=lambda one: parse_lsn(one["Start-LSN"]))
    for one in found:
        yield {"Timeline": one["Timeline"], "Start-LSN": one["Start-LSN"], "End-LSN": one["End-LSN"]}
