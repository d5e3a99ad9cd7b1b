"""Progress into a row: cheap for the work, written by one small thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from backup_admin.core.errors import Cancelled
from backup_admin.records import BackupRun, RestoreOperation, RestoreStatus, RunStatus

if TYPE_CHECKING:
    from backup_admin.core.clock import Clock
    from backup_admin.records import Database

WRITE_SECONDS = 0.5
_MAX_LOG_LINES = 500
_RUNNING = {BackupRun: RunStatus.RUNNING, RestoreOperation: RestoreStatus.RUNNING}


@dataclass(slots=True)
class _Counts:
    stage: str = ""
    stage_index: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    items_done: int = 0
    items_total: int = 0
    current: str = ""


@dataclass(slots=True)
class _Notes:
    warnings: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class RowReporter:
    """A reporter whose thread writes the row, says "alive" and reads the cancel flag.

    `status` is what the row has meanwhile, if not that it runs. The work itself never waits for the
    database. The heartbeat comes from the process that does the work: it ends when that process does.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        table: type[BackupRun | RestoreOperation],
        row_id: str,
        *,
        heartbeat_seconds: float,
        status: RunStatus | RestoreStatus | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._table = table
        self._row_id = row_id
        self._heartbeat_seconds = heartbeat_seconds
        self._status = _RUNNING[table] if status is None else status
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._notes = _Notes()
        self._changed = False
        self._cancel = False
        self.given_up = False
        """Others took this process for dead and ended its row."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_until_stopped, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_about: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(SQLAlchemyError):
            self._write()

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
        """Begin a named stage."""
        with self._lock:
            self._counts = _Counts(
                stage=name,
                stage_index=self._counts.stage_index + 1,
                bytes_total=total_bytes,
                items_total=total_items,
            )
            self._changed = True
        self._log(name)

    def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:
        """Add bytes and items to the stage."""
        with self._lock:
            self._counts.bytes_done += size
            self._counts.items_done += items
            self._counts.current = current or self._counts.current
            self._changed = True

    def warn(self, message: str) -> None:
        """Keep a warning for the row."""
        with self._lock:
            self._notes.warnings.append(message)
        self._log(f"warning: {message}")

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when a person asked to stop, or others gave this process up."""
        if self.given_up:
            raise Cancelled("Others took this process for dead, so it stopped at a safe place.")
        if self._cancel:
            raise Cancelled("Stopped because a person asked for it; nothing half done is left.")

    @property
    def warnings(self) -> list[str]:
        """Return the warnings so far."""
        with self._lock:
            return list(self._notes.warnings)

    @property
    def log(self) -> str:
        """Return the log so far, one line for each event."""
        with self._lock:
            return "\n".join(self._notes.log)

    def _log(self, text: str) -> None:
        line = f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ} {' '.join(text.split())[:500]}"
        with self._lock:
            if len(self._notes.log) < _MAX_LOG_LINES:
                self._notes.log.append(line)

    def _write_until_stopped(self) -> None:
        written = self._clock.monotonic()
        while not self._stop.wait(WRITE_SECONDS):
            due = self._clock.monotonic() - written >= self._heartbeat_seconds
            if not (self._changed or due or self._cancel_may_wait()):
                continue
            # A database that does not answer costs a heartbeat, not the work.
            with suppress(SQLAlchemyError):
                self._write()
                written = self._clock.monotonic()

    def _cancel_may_wait(self) -> bool:
        with suppress(SQLAlchemyError), self._database.new_session() as session:
            wish = select(self._table.cancel_requested).where(self._table.id == self._row_id)
            return bool(session.scalar(wish)) and not self._cancel
        return False

    def _write(self) -> None:
        with self._lock:
            counts, self._changed = self._counts, False
            values = {name: getattr(counts, name) for name in _Counts.__dataclass_fields__}
        now = self._clock.now()
        change = (
            update(self._table)
            .where(self._table.id == self._row_id, self._table.status == self._status)
            .values(**values, heartbeat_at=now, updated_at=now)
            .returning(self._table.cancel_requested)
        )
        with self._database.new_session() as session:
            rows = session.execute(change).all()
            session.commit()
        self.given_up = not rows
        self._cancel = self._cancel or any(row[0] for row in rows)
