"""Keep what a repository needs locked: a new snapshot may need packs that were stored long ago."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.durable import make_folders, replace_file
from backup_admin.core.errors import LocalDiskFailed, ObjectMissing, RepositoryError, StorageError
from backup_admin.core.shown import count_of
from backup_admin.repository import chain, config, epochs, slots, wal
from backup_admin.repository.packs import pack_name
from backup_admin.storage.base import locking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository
    from backup_admin.storage.base import KeepsLocked

_THREADS = 6
_FAILURES = 10
_LASTING_PREFIXES = (config.NAME, slots.PREFIX, epochs.PREFIX, chain.PREFIX, wal.PREFIX)


@dataclass(frozen=True, slots=True)
class Locked:
    """Objects that were deleted and lie in the storage as old versions until their locks end."""

    objects: int = 0
    bytes: int = 0
    until: datetime | None = None

    def plus(self, size: int, until: datetime) -> Locked:
        """Return the same with one more object."""
        return Locked(self.objects + 1, self.bytes + size, max(until, self.until or until))


def keep_locked(
    repository: Repository, state: StateFolder, *, reporter: Reporter, clock: Clock
) -> tuple[str, ...]:
    """Extend the locks of all the repository needs that end soon; return what went wrong as sentences.

    An object is locked anew when less than half of the storage's `lock_days` is left, so each is
    locked for at least that half after every run. What is known of locks is kept in the state
    folder: a run asks only for new objects and for those whose time has come. Does nothing where
    the storage locks nothing.
    """
    storage = locking(repository.storage)
    if storage is None:
        return ()
    notes = state.cache / repository.repo_id[:32] / "locks.json"
    try:
        names = _needed(repository)
    except (StorageError, RepositoryError) as error:
        return (_problem(0, error),)
    known = {name: until for name, until in _read(notes).items() if name in names}
    enough = clock.now() + timedelta(days=storage.lock_days / 2)
    due = sorted(name for name in names if name not in known or known[name] <= enough)
    reporter.stage("verify", total_items=len(due))
    work = _Work(storage, enough, reporter)
    known |= work.lock_all(due)
    _write(notes, known)
    return (_problem(len(work.failed), work.failed[0]),) if work.failed else ()


class _Work:
    """Locks objects in a few threads; gives up where the storage refuses and never agrees."""

    def __init__(self, storage: KeepsLocked, enough: datetime, reporter: Reporter) -> None:
        self._storage = storage
        self._enough = enough
        self._reporter = reporter
        self._mutex = threading.Lock()
        self._done: dict[str, datetime] = {}
        self.failed: list[StorageError] = []

    def lock_all(self, names: Iterable[str]) -> Mapping[str, datetime]:
        """Lock objects; return until when those are locked that could be."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="lock") as pool:
            for _ in pool.map(self._lock, names):
                self._reporter.advance(items=1)
        return self._done

    def _lock(self, name: str) -> None:
        if len(self.failed) >= _FAILURES and not self._done:
            self.failed.append(self.failed[0])
            return
        try:
            until = self._storage.locked_until(name)
            if until is None or until <= self._enough:
                until = self._storage.extend_lock(name)
        except ObjectMissing:
            return  # a prune took it, or it is damage, which `check` tells
        except StorageError as error:
            with self._mutex:
                self.failed.append(error)
            return
        with self._mutex:
            self._done[name] = until


def _needed(repository: Repository) -> set[str]:
    """Return the names of all objects on the books."""
    storage, history = repository.storage, repository.history
    names = {info.name for prefix in _LASTING_PREFIXES for info in storage.list_objects(prefix)}
    names.difference_update(history.doomed)
    names.update(ref.name for ref in history.manifests.values())
    names.update(history.indexes)
    names.update(pack_name(pack.name) for pack in repository.index().packs())
    return names


def _problem(count: int, error: Exception) -> str:
    what = count_of(count, "object") if count else "Objects of the repository"
    return (
        f"{what} could not be locked for longer: {error} Everything is stored; the next run tries again. "
        "Until then their locks end when they were to end."
    )


def _read(notes: Path) -> dict[str, datetime]:
    """Return what was noted; damaged notes count as none, so that everything is asked for again."""
    with suppress(OSError, ValueError, AttributeError, TypeError, OverflowError):
        return {str(name): parse_time(text) for name, text in load_strict(notes.read_bytes()).items()}
    return {}


def _write(notes: Path, known: Mapping[str, datetime]) -> None:
    with suppress(LocalDiskFailed, OSError):  # without notes the next run asks for everything
        make_folders(notes.parent)
        replace_file(notes, dump_canonical({name: format_time(until) for name, until in known.items()}))
