"""Who is alive: workers and schedulers say so in rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from backup_admin.records import Heartbeat

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.core.clock import Clock

_FORGOTTEN_AFTER = timedelta(days=2)


class ProcessRole(StrEnum):
    """What a process does for us."""

    WORKER = "worker"
    SCHEDULER = "scheduler"


# A scheduler may be a command that cron starts each minute.
SILENT_AFTER = {
    ProcessRole.WORKER: timedelta(seconds=60),
    ProcessRole.SCHEDULER: timedelta(minutes=3),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """When any process of a role was last alive; None when none ever was."""

    at: datetime | None
    alive: bool


def say_alive(session: Session, clock: Clock, role: ProcessRole, process: str) -> None:
    """Note that a process is alive."""
    now = clock.now()
    name = f"{role.value}:{process}"
    row = session.get(Heartbeat, name)
    if row is None:
        session.execute(delete(Heartbeat).where(Heartbeat.seen_at < now - _FORGOTTEN_AFTER))
        row = Heartbeat(name=name, role=role.value, started_at=now)
        session.add(row)
    row.seen_at = now
    session.commit()


def say_gone(session: Session, role: ProcessRole, process: str) -> None:
    """Note that a process ends as it should."""
    session.execute(delete(Heartbeat).where(Heartbeat.name == f"{role.value}:{process}"))
    session.commit()


def last_seen(session: Session, clock: Clock, role: ProcessRole) -> Seen:
    """Return when any process of a role was last alive."""
    at = session.scalar(select(func.max(Heartbeat.seen_at)).where(Heartbeat.role == role.value))
    return Seen(at, at is not None and clock.now() - at < SILENT_AFTER[role])
