"""Step 3 of a restore of rows: look into the backup for the keys of rows, by some text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.control import wizard
from backup_admin.control.restore_from import open_for_restore
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.look_rows import look_for_rows

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.sources.row_search import FoundRows


def look(  # noqa: PLR0913 - where, what for, and who
    session: Session,
    installation: Installation,
    operation_id: str,
    actor: Actor,
    *,
    database: str,
    table: str,
    text: str,
) -> FoundRows:
    """Return the first rows of a table that have the text. That somebody looked is in the audit log first."""
    operation = wizard.find_operation(session, operation_id)
    snapshot_id = SnapshotId(operation.snapshot_id)
    details = {"backup": snapshot_id, "database": database, "table": table}
    installation.audit().append(actor, "restore.look", target=operation.id, details=details)
    repository, _ = open_for_restore(session, installation)
    session.commit()  # hold no transaction while the storage is read
    return look_for_rows(repository, snapshot_id, database, table, text, state=installation.state)
