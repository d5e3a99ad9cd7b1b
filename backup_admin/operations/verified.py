"""Which snapshots were read whole and found good: notes in the state folder.

A hint that keeps the last proven snapshot from being forgotten. It is not
evidence: whoever wants that reads the snapshot again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time
from backup_admin.core.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from backup_admin.core.state import StateFolder


def note_verified(state: StateFolder, state_name: str, snapshots: Iterable[str], *, now: datetime) -> None:
    """Note that these snapshots of a repository were read whole and are as they were made."""
    notes = read_verified(state, state_name) | dict.fromkeys(snapshots, format_time(now))
    replace_file(_path(state, state_name), dump_canonical(notes))


def read_verified(state: StateFolder, state_name: str) -> dict[str, str]:
    """Return the snapshots noted, with the time of the last proof; damaged notes count as none."""
    with suppress(OSError, ValueError, AttributeError, OverflowError):
        notes = load_strict(_path(state, state_name).read_bytes())
        return {str(snapshot): str(time) for snapshot, time in notes.items()}
    return {}


def _path(state: StateFolder, state_name: str) -> Path:
    return state.heads / f"{state_name}.verified.json"
