"""Signals that were read after a snapshot and proven to tell the same state: a cache, which may be dropped.

Without it, a database in which nothing but other databases' work was seen would be read whole each time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import make_folders, replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backup_admin.core.state import StateFolder

_NAME = "unchanged.json"


def read_notes(state: StateFolder, repository_id: str, snapshot_id: str) -> dict[str, Any]:
    """Return the signals noted for a snapshot, by name of the database; none for another snapshot."""
    try:
        value = json.loads(_file(state, repository_id).read_bytes())
        return dict(value["databases"]) if value["snapshot"] == snapshot_id else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # what is not known is looked at more closely


def write_notes(
    state: StateFolder, repository_id: str, snapshot_id: str, databases: Mapping[str, Any]
) -> None:
    """Note signals that tell the same state as a snapshot."""
    path = _file(state, repository_id)
    make_folders(path.parent)
    value = {"snapshot": snapshot_id, "databases": dict(databases)}
    replace_file(path, json.dumps(value).encode())


def _file(state: StateFolder, repository_id: str) -> Path:
    return state.cache / repository_id[:32] / _NAME
