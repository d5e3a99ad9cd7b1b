"""Alembic's environment for the control database; run through `records.upgrade` only."""

from alembic import context

from backup_admin.records.base import Base
from backup_admin.records.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
