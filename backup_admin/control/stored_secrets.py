"""Secrets an administrator gave, sealed in rows of the control database under the application key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from backup_admin.access.secrets_at_rest import Place, seal, seal_anew, unseal
from backup_admin.control.stored import write_value
from backup_admin.records import StoredSetting

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.core.secret import Secret


def read_secret(session: Session, installation: Installation, name: str) -> Secret | None:
    """Return a stored secret; raise `BadSecret` when the application key does not open it."""
    row = session.get(StoredSetting, name)
    return unseal(installation.key(), row.sealed, _place(name)) if row is not None and row.sealed else None


def write_secret(
    session: Session, installation: Installation, name: str, secret: Secret, *, shown: Any = None, by: str
) -> None:
    """Seal a secret into its row; `shown` may stand beside it in clear. The caller commits."""
    write_value(session, installation.clock, name, shown, by=by)
    session.flush()
    row = session.get_one(StoredSetting, name)
    row.sealed = seal(installation.key(), secret, _place(name))


def reseal_stored(session: Session, old: Secret, new: Secret) -> int:
    """Seal every stored secret under a new application key; return how many were not yet.

    The caller commits. Raises `BadSecret` when one opens with neither key.
    """
    changed = 0
    for row in session.scalars(select(StoredSetting).where(StoredSetting.sealed != "")):
        sealed = seal_anew(old, new, row.sealed, _place(row.name))
        changed += sealed != row.sealed
        row.sealed = sealed
    return changed


def _place(name: str) -> Place:
    return Place(StoredSetting.__tablename__, "sealed", name)
