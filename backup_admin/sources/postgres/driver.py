"""The library that speaks to PostgreSQL: an extra, so whoever needs it hears in one line that it is missing.

Every module that works with a server takes it from here and never by itself. What only names such a database
(its address, its parts, a journal) loads neither: SQLite and folders are protected without it.
"""

from __future__ import annotations

from backup_admin.core.errors import ConfigurationError

try:
    import psycopg
    from psycopg import conninfo, errors, pq, sql
except ImportError as error:  # also where it is installed, and finds no libpq
    why = "is not installed" if isinstance(error, ModuleNotFoundError) else "cannot be loaded"
    raise ConfigurationError(
        f"PostgreSQL needs psycopg, which {why} here: pip install 'backup_admin[postgres]'. "
        "SQLite databases and folders need it not."
    ) from error

__all__ = ["conninfo", "errors", "pq", "psycopg", "sql"]
