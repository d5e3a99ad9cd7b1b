"""What this machine has for PostgreSQL: the library, and the programs of which versions."""

from __future__ import annotations

from backup_admin.core.errors import ConfigurationError
from backup_admin.sources.postgres.clients import NoClient, find_clients


def driver_version() -> str:
    """Return the version of the library; raise `ConfigurationError` without it."""
    from backup_admin.sources.postgres.driver import psycopg  # noqa: PLC0415 - an extra, and slow to load

    return str(psycopg.__version__)


def has_driver() -> bool:
    """Say whether the library can be loaded."""
    try:
        driver_version()
    except ConfigurationError:
        return False
    return True


def program_versions() -> str:
    """Return the versions of `pg_dump` and `pg_restore` that are installed; raise `NoClient` without any."""
    found = ", ".join(one.version for one in find_clients())
    if not found:
        raise NoClient(
            "pg_dump and pg_restore are not installed: install postgresql-client-N, N being the version of "
            "the server. PostgreSQL databases cannot be captured or restored without them."
        )
    return found
