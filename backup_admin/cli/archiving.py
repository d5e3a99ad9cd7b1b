"""The commands a PostgreSQL server calls: `archive_command` and `restore_command`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from backup_admin.cli.opening import Surroundings, open_given, repository_options
from backup_admin.core.errors import BackupAdminError, UsageError
from backup_admin.operations.answers import Answer
from backup_admin.operations.wal_archive import NotArchived, archive_file, fetch_file, read_wal_file
from backup_admin.repository.wal import is_wal_file
from backup_admin.sources.postgres.wal_files import read_system


class ArchiveFailed(BackupAdminError):
    """The archive could not be asked, so nobody knows whether it has the file.

    A server takes a status up to 125 for "there is no such file": it would end its recovery too early.
    """

    code = "archive_failed"
    exit_code = 126


@click.command("archive-push")
@click.argument("storage")
@click.argument("path", type=click.Path(path_type=Path))
@repository_options
@click.pass_obj
def archive_push_verb(
    surroundings: Surroundings, *, storage: str, path: Path, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """Put a WAL file of a PostgreSQL server into the archive: its archive_command.

    PATH is what the server gives (%p). Ends with 0 only when the file is stored durably and was read
    back, or was there with the same bytes; never replaces other bytes.
    """
    data = read_wal_file(path, system := read_system(_data_folder(path)))
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    archived = archive_file(repository, system, path.name, data, clock=surroundings.clock)
    return Answer(
        {
            "system": archived.system,
            "file": archived.file,
            "bytes": archived.size,
            "stored_bytes": archived.stored,
            "was_there": archived.was_there,
        }
    )


@click.command("archive-get")
@click.argument("storage")
@click.argument("file")
@click.argument("target", type=click.Path(path_type=Path))
@repository_options
@click.pass_obj
def archive_get_verb(
    surroundings: Surroundings,
    *,
    storage: str,
    file: str,
    target: Path,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Write a WAL file out of the archive: the restore_command of a PostgreSQL server.

    FILE and TARGET are what the server gives (%f, %p). Ends with 1 when the archive has no such file,
    and with 126 when that cannot be told, so that a server never takes a failure for the end.
    """
    if not is_wal_file(file):
        raise UsageError(f"{file!r} is no file of a WAL archive. Nothing was written.")
    try:
        system = read_system(_data_folder(target))
        repository, _ = open_given(surroundings, storage, key_file, state_dir)
        head = fetch_file(repository, system, file, target)
    except NotArchived:
        raise
    except (BackupAdminError, OSError) as error:
        raise ArchiveFailed(f"It is not known whether the archive has {file}: {error}") from error
    return Answer({"system": system, "file": file, "bytes": head.size})


def _data_folder(path: Path) -> Path:
    """Return the data directory: the one the file lies in, else the current one, as for the server."""
    beside = path.parent.parent
    return beside if os.path.exists(beside / "global/pg_control") else Path()  # noqa: PTH110 - never raises
