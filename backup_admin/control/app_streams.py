"""Streams of the app's SQLite databases: where they go, how they do, and what of them is in a backup."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from backup_admin.control import engine, skipping
from backup_admin.control.stored import read_value, write_value
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.durable import make_folders
from backup_admin.core.settings import STREAMS_ROOT
from backup_admin.operations.stream_run import StreamPlaces
from backup_admin.operations.streams import SETTLED
from backup_admin.records import BackupManifest
from backup_admin.sources.files import FileSource
from backup_admin.sources.litestream import Streamed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation

STATE_KEY = "streams.state"
ALERT_AFTER = timedelta(minutes=2)
"""How long a stream may do nothing, or lag, before that is said to put the app at risk."""
_SILENT_AFTER = timedelta(seconds=60)
_NOBODY = "nothing keeps it running; `flask backup worker` does"


@dataclass(frozen=True, slots=True)
class StreamState:
    """How one stream does, as the process that keeps it running last noted it.

    `good_at` is when it last ran and had everything; `newest` is its last change, `began_at` its first.
    """

    name: str
    noted_at: datetime
    good_at: datetime | None = None
    began_at: datetime | None = None
    newest: datetime | None = None
    problem: str = ""

    def as_plain(self) -> dict[str, str]:
        """Return it as it is kept."""
        times = {"good_at": self.good_at, "began_at": self.began_at, "newest": self.newest}
        kept = {name: format_time(time) for name, time in times.items() if time is not None}
        return {"name": self.name, "noted_at": format_time(self.noted_at), "problem": self.problem, **kept}


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream for a page: how it does now, and up to when a backup holds it."""

    name: str
    problem: str
    newest: datetime | None
    sealed_to: datetime | None


def streamed(installation: Installation) -> tuple[Streamed, ...]:
    """Return the databases to stream, and where to; makes the folder of all streams."""
    spool = StreamPlaces.of(installation.state).folder / "spool"
    make_folders(spool)
    names = set(installation.settings.streams)
    sources = engine.sqlite_sources(installation.settings)
    return tuple(Streamed(one.name, one.path, spool / one.name) for one in sources if one.name in names)


def stream_sources(installation: Installation) -> tuple[FileSource, ...]:
    """Return what a backup reads of the streams; a restore never writes there.

    The folder lies in the state folder, which no other source may touch: what is in it is in clear.
    """
    if not installation.settings.streams:
        return ()
    spool = StreamPlaces.of(installation.state).folder / "spool"
    make_folders(spool)
    return (FileSource(STREAMS_ROOT, spool, ("*.tmp",)),)


def read_states(session: Session) -> dict[str, StreamState]:
    """Return what was noted of each stream; what cannot be read counts as not noted."""
    found = {}
    rows = read_value(session, STATE_KEY, [])
    for row in rows if isinstance(rows, list) else ():
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            state = _from_plain(row)
            found[state.name] = state
    return found


def write_states(session: Session, installation: Installation, states: Sequence[StreamState]) -> None:
    """Note how the streams do."""
    write_value(session, installation.clock, STATE_KEY, [state.as_plain() for state in states])
    session.commit()


def views(session: Session, installation: Installation) -> tuple[StreamView, ...]:
    """Return the streams that are set, in that order, as they are now."""
    names = installation.settings.streams
    if not names:
        return ()
    states, read_at = read_states(session), _read_at(session)
    now = installation.clock.now()
    return tuple(_view(name, states.get(name), read_at, now) for name in names)


def risks(session: Session, installation: Installation) -> Iterator[str]:
    """Say which streams do nothing, or lag, for so long that somebody must know."""
    if not installation.settings.streams:
        return
    states, now = read_states(session), installation.clock.now()
    for name in installation.settings.streams:
        state = states.get(name)
        problem = _problem(state, now)
        since = state.good_at if state is not None else None
        if problem and since is None:
            yield f"the changes of {name} are not streamed: {problem}."
        elif problem and since is not None and now - since > ALERT_AFTER:
            yield f"the changes of {name} are not streamed since {since:%Y-%m-%d %H:%M:%S} UTC: {problem}."


def _view(name: str, state: StreamState | None, read_at: datetime | None, now: datetime) -> StreamView:
    sealed_to = None
    if state is not None and state.began_at is not None and read_at is not None:
        until = read_at - SETTLED
        sealed_to = until if until >= state.began_at else None
    return StreamView(name, _problem(state, now), state.newest if state is not None else None, sealed_to)


def _problem(state: StreamState | None, now: datetime) -> str:
    """Return why a stream does not follow now; empty when it does."""
    if state is None or now - state.noted_at > _SILENT_AFTER:
        return _NOBODY
    return state.problem


def _read_at(session: Session) -> datetime | None:
    """Return when the newest good backup read the streams, or one that was skipped found them as in it."""
    row = BackupManifest
    good = session.scalar(select(row).where(*skipping.is_good()).order_by(row.created_at.desc()).limit(1))
    held = None if good is None else good.files_manifest.get(STREAMS_ROOT, {}).get("read_at")
    if good is None or not held:
        return None
    read_at = parse_time(str(held))
    return max(read_at, skipping.unchanged_at(session, good.snapshot_id) or read_at)


def _from_plain(row: dict[str, Any]) -> StreamState:
    times = {name: parse_time(str(row[name])) for name in ("good_at", "began_at", "newest") if row.get(name)}
    return StreamState(
        str(row["name"]), parse_time(str(row["noted_at"])), problem=str(row["problem"]), **times
    )
