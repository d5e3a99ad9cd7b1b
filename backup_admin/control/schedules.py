"""When runs start by themselves: rows, edited on a page, claimed by whoever ticks first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from backup_admin.control.runs import NOBODY, NewRun, create_run, hand_on
from backup_admin.core import parsing
from backup_admin.core.errors import Busy, FieldMistake, UsageError
from backup_admin.records import BackupSchedule, RunKind, Trigger

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation

PRESETS = (
    ("every night", "30 2 * * *"),
    ("every 6 hours", "15 */6 * * *"),
    ("every hour", "5 * * * *"),
    ("every 15 minutes", "*/15 * * * *"),
    ("every 5 minutes", "*/5 * * * *"),
    ("every week", "30 3 * * 0"),
)


class ScheduleChanged(Busy):
    """Another person changed the schedule meanwhile; look at it again."""

    code = "schedule_changed"


@dataclass(frozen=True, slots=True)
class ScheduleForm:
    """What a person enters."""

    name: str
    cron: str
    timezone: str
    kind: RunKind = RunKind.BACKUP
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class _Due:
    """A schedule as it was when it was due.

    Its row, read again, may have been claimed meanwhile; then its next slot
    would start now.
    """

    id: int
    version: int
    name: str
    kind: RunKind
    cron: str
    timezone: str
    next_run_at: datetime

    @classmethod
    def of(cls, row: BackupSchedule) -> _Due:
        when = row.next_run_at
        assert when is not None  # noqa: S101 - the query asked for it
        return cls(row.id, row.version, row.name, row.kind, row.cron, row.timezone, when)


def next_times(cron: str, timezone: str, after: datetime, *, count: int = 5) -> tuple[datetime, ...]:
    """Return the next times of an expression, in UTC; raise `UsageError` when it is none.

    A time that the clock jumps over in spring is moved behind the gap; one that
    it passes twice in autumn counts once.
    """
    try:
        local = after.astimezone(ZoneInfo(parsing.zone(timezone)))
        times = CronSim(cron, local)
        return tuple(next(times).astimezone(UTC) for _ in range(count))
    except CronSimError as error:
        raise FieldMistake(f"{cron!r} is no cron expression of five parts: {error}.", "cron") from error
    except ValueError as error:
        raise FieldMistake(f"The time zone {error}.", "timezone") from error
    except StopIteration as error:
        raise FieldMistake(f"{cron!r} never comes due.", "cron") from error


def list_schedules(session: Session) -> tuple[BackupSchedule, ...]:
    """Return all schedules in the order of their names."""
    return tuple(session.scalars(select(BackupSchedule).order_by(BackupSchedule.name)))


def find_schedule(session: Session, schedule_id: int) -> BackupSchedule:
    """Return a schedule by its id; raise `UsageError` when there is none."""
    schedule = session.get(BackupSchedule, schedule_id)
    if schedule is None:
        raise UsageError(f"There is no schedule {schedule_id}.")
    return schedule


def create_schedule(
    session: Session, installation: Installation, form: ScheduleForm, actor: Actor
) -> BackupSchedule:
    """Make a schedule; raise `UsageError` when its name is taken or its time is wrong."""
    installation.require_writable()
    now = installation.clock.now()
    schedule = BackupSchedule(created_at=now, updated_at=now, updated_by=actor.name, **_values(form, now))
    session.add(schedule)
    try:
        session.flush()
    except IntegrityError as error:
        session.rollback()
        raise FieldMistake(f"There is a schedule named {form.name!r} already.", "name") from error
    installation.audit().append(actor, "schedule.create", target=schedule.name, details=_told(form))
    session.commit()
    return schedule


def update_schedule(
    session: Session,
    installation: Installation,
    schedule_id: int,
    version: int,
    form: ScheduleForm,
    actor: Actor,
) -> BackupSchedule:
    """Change a schedule; `version` is the one the person saw. Raises `ScheduleChanged`."""
    installation.require_writable()
    schedule = find_schedule(session, schedule_id)
    changed = ScheduleChanged(f"{schedule.name} was changed or came due meanwhile; look at it again.")
    if schedule.version != version:
        raise changed
    now = installation.clock.now()
    values = {**_values(form, now), "updated_at": now, "updated_by": actor.name}
    installation.audit().append(actor, "schedule.update", target=schedule.name, details=_told(form))
    try:
        won = _claim(session, schedule_id, version, values)
    except IntegrityError as error:
        session.rollback()
        raise FieldMistake(f"There is a schedule named {form.name!r} already.", "name") from error
    if not won:
        raise changed
    session.refresh(schedule)
    return schedule


def delete_schedule(session: Session, installation: Installation, schedule_id: int, actor: Actor) -> None:
    """Remove a schedule; its runs stay."""
    installation.require_writable()
    schedule = find_schedule(session, schedule_id)
    installation.audit().append(actor, "schedule.delete", target=schedule.name)
    session.execute(delete(BackupSchedule).where(BackupSchedule.id == schedule_id))
    session.commit()


def tick(session: Session, installation: Installation) -> tuple[str, ...]:
    """Start what is due; return the ids of the runs. Any number may tick at once.

    Of the slots that were missed only the newest runs.
    """
    if installation.settings.read_only:
        return ()
    now = installation.clock.now()
    due = select(BackupSchedule).where(BackupSchedule.enabled.is_(True), BackupSchedule.next_run_at <= now)
    found = [_Due.of(schedule) for schedule in session.scalars(due).all()]
    started = [_start_due(session, installation, one) for one in found]
    return tuple(run_id for run_id in started if run_id)


def slot_of(moment: datetime) -> str:
    """Return the name of a slot: its minute in UTC."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%MZ}"


def _start_due(session: Session, installation: Installation, schedule: _Due) -> str:
    now = installation.clock.now()
    slot = _newest_slot(schedule, now)
    following = next_times(schedule.cron, schedule.timezone, now, count=1)[0]
    values = {"next_run_at": following, "last_claimed_at": now, "last_note": ""}
    if not _claim(session, schedule.id, schedule.version, values):
        return ""
    new = NewRun(
        kind=schedule.kind,
        trigger=Trigger.SCHEDULED,
        label=schedule.name,
        schedule_id=schedule.id,
        slot=slot_of(slot),
        if_changed=schedule.kind is RunKind.BACKUP,
    )
    try:
        run = create_run(session, installation, new, NOBODY)
    except Busy as error:
        _note(session, schedule.id, f"{slot:%Y-%m-%d %H:%M} UTC did not start: {error}")
        return ""
    hand_on(session, installation, run)
    return run.id


def _newest_slot(schedule: _Due, now: datetime) -> datetime:
    """Return the newest time that has come due; the ones before it are let go."""
    slot = schedule.next_run_at
    # After a long pause look at the last days only: a slot a minute for a year
    # would be half a million steps.
    start = max(slot, now - timedelta(days=8))
    times = CronSim(schedule.cron, start.astimezone(ZoneInfo(schedule.timezone)))
    for moment in times:
        if moment.astimezone(UTC) > now:
            return slot
        slot = moment.astimezone(UTC)
    return slot


def _claim(session: Session, schedule_id: int, version: int, values: dict[str, object]) -> bool:
    row = BackupSchedule
    change = update(row).where(row.id == schedule_id, row.version == version)
    change = change.values({**values, "version": version + 1}).returning(row.id)
    won = bool(session.execute(change, execution_options={"synchronize_session": False}).all())
    session.commit()
    session.expire_all()
    return won


def _note(session: Session, schedule_id: int, text: str) -> None:
    session.execute(update(BackupSchedule).where(BackupSchedule.id == schedule_id).values(last_note=text))
    session.commit()


def _values(form: ScheduleForm, now: datetime) -> dict[str, object]:
    name = form.name.strip()
    if not name or len(name) > 120 or not name.isprintable():
        raise FieldMistake("A schedule needs a name of at most 120 characters.", "name")
    cron = " ".join(form.cron.split())
    upcoming = next_times(cron, form.timezone, now, count=1)[0]
    return {
        "name": name,
        "kind": form.kind,
        "cron": cron,
        "timezone": form.timezone,
        "enabled": form.enabled,
        "next_run_at": upcoming if form.enabled else None,
    }


def _told(form: ScheduleForm) -> dict[str, str]:
    return {"cron": form.cron, "timezone": form.timezone, "enabled": str(form.enabled), "kind": form.kind}
