"""The programs that come with a PostgreSQL server: base backups need those of exactly its version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.sources.postgres.clients import ClientPrograms, NoClient, find_clients

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("pg_basebackup", "pg_verifybackup", "pg_waldump", "pg_ctl")


def server_programs(major: int, folder: Path | None) -> ClientPrograms:
    """Return the programs of exactly one version of the server; raise `NoClient`."""
    found = [one for one in find_clients(folder) if one.major == major and _has_all(one.folder)]
    if not found:
        raise NoClient(
            f"Base backups of PostgreSQL {major} need {', '.join(PROGRAMS)} of that version, which are not "
            f"installed. Nothing was written. Install postgresql-{major}, or name the folder with them."
        )
    return max(found, key=lambda one: one.minor)


def _has_all(folder: Path) -> bool:
    return all((folder / name).exists() for name in PROGRAMS)
