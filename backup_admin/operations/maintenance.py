"""Keeping writers out while live data is exchanged.

The flag file in the state folder is what counts: it survives a crash, and the
app answers 503 while it is there. The host's hook may do more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.durable import replace_file, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from backup_admin.core.state import StateFolder


def close(state: StateFolder, restore_id: str, maintenance: Callable[[bool], None]) -> None:
    """Keep writers out; safe to repeat."""
    replace_file(state.maintenance_flag, restore_id.encode())
    maintenance(True)


def reopen(state: StateFolder, maintenance: Callable[[bool], None]) -> None:
    """Let writers in again; safe to repeat."""
    maintenance(False)
    flag = state.maintenance_flag
    flag.unlink(missing_ok=True)
    sync_folder(flag.parent)
