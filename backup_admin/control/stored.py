"""Values an administrator set, as rows of the control database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backup_admin.records import StoredSetting

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.core.clock import Clock


def read_value(session: Session, name: str, default: Any = None) -> Any:
    """Return a stored value, or the default where none was set."""
    row = session.get(StoredSetting, name)
    return default if row is None else row.value


def write_value(session: Session, clock: Clock, name: str, value: Any, *, by: str = "") -> None:
    """Store a value; the caller commits."""
    row = session.get(StoredSetting, name)
    if row is None:
        row = StoredSetting(name=name)
        session.add(row)
    row.value = value
    row.updated_at = clock.now()
    row.updated_by = by
