"""Snapshots in the form that programs read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backup_admin.core.clock import format_time

if TYPE_CHECKING:
    from backup_admin.repository.types import Snapshot


def describe_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """Return the header of a snapshot as plain data; times are in UTC."""
    return {
        "id": snapshot.id,
        "created_at": format_time(snapshot.created_at),
        "kind": snapshot.kind,
        "label": snapshot.label,
        "outcome": snapshot.outcome,
        "parent": snapshot.parent or None,
        "files": snapshot.file_count,
        "file_bytes": snapshot.file_bytes,
        "databases": snapshot.database_count,
        "database_bytes": snapshot.database_bytes,
        "new_bytes": snapshot.new_bytes,
        "warnings": snapshot.warning_count,
    }
