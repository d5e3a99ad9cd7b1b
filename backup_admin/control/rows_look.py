"""Step 3 of a restore of rows: look into the backup for the keys of rows, by some text."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.control import engine, wizard
from backup_admin.control.restore_from import open_for_restore
from backup_admin.core.errors import BackupAdminError
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.look_rows import look_for_rows

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.control.rows_choice import Held
    from backup_admin.sources.row_search import FoundRows


def copy_clashes(
    session: Session, installation: Installation, held: Held
) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return by database the tables and unique columns on which a copy clashes while its original is live.

    Of servers that is left to the trial: a page waits for none.
    """
    targets = {one.name: one for one in engine.source_set(session, installation).databases}
    found = []
    for name in (one.name for one in held.databases if one.name in targets):
        with suppress(BackupAdminError):  # a database that cannot be read now: the trial says why
            found.append((name, targets[name].kept_by_copies()))
    return tuple((name, columns) for name, columns in found if columns)


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
