"""Bring the control database to the state this version needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from backup_admin.core.errors import ConfigurationError
from backup_admin.core.resources import resource_dir

if TYPE_CHECKING:
    from backup_admin.records.database import Database

VERSION_TABLE = "backup_admin_alembic_version"


def upgrade(database: Database) -> str:
    """Create or migrate the tables; return the revision. Safe to repeat."""
    with database.own_engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            # One writer from here on: a second upgrade waits and finds nothing to do.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return head_revision()


def head_revision() -> str:
    """Return the revision this version needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise ConfigurationError("The migrations are missing; install the package again.")
    return head


def current_revision(database: Database) -> str:
    """Return the revision of the database; empty when it was never made."""
    file = database.file
    if file is not None and not file.exists():
        return ""
    with database.own_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision() or ""


def is_current(database: Database) -> bool:
    """Say whether the database is at the revision this version needs."""
    return current_revision(database) == head_revision()


def require_current(database: Database) -> None:
    """Raise `ConfigurationError` unless the database is at this revision."""
    found = current_revision(database)
    if found == head_revision():
        return
    state = f"is at {found}" if found else "has not been made"
    raise ConfigurationError(
        f"The control database {state}, this version needs {head_revision()}: run `flask backup upgrade`."
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resource_dir("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
