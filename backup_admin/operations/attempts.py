"""Restores that failed before they had a journal: an undo must not take an older one for the newest."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.durable import replace_file
from backup_admin.core.errors import BackupAdminError, Cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.core.state import StateFolder


@contextmanager
def attempting(state: StateFolder, clock: Clock) -> Iterator[None]:
    """Note when the restore within is refused or fails; who changed their mind attempted nothing."""
    try:
        yield
    except Cancelled:
        raise
    except BackupAdminError:
        note_attempt(state, clock)
        raise


def note_attempt(state: StateFolder, clock: Clock) -> None:
    """Keep that a restore just changed nothing, where its journal does not say so."""
    # How the restore failed matters more than that this could not be kept.
    with suppress(BackupAdminError, OSError):
        replace_file(_path(state), dump_canonical({"time": format_time(clock.now())}) + b"\n")


def newest_attempt(state: StateFolder) -> datetime | None:
    """Return when a restore last failed without a journal, as far as that is known."""
    try:
        return parse_time(str(load_strict(_path(state).read_bytes())["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(state: StateFolder) -> Path:
    return state.restores / "failed.json"
