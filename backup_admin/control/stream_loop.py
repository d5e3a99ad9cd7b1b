"""The process that keeps the app's streams running, beside a worker, and notes how they do."""

from __future__ import annotations

import logging
import shutil
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from backup_admin.control import app_streams
from backup_admin.control.app_streams import StreamState
from backup_admin.control.journals import is_closed
from backup_admin.control.perform import failure
from backup_admin.core.clock import format_time
from backup_admin.core.durable import replace_file
from backup_admin.core.errors import BackupAdminError, Busy, Cancelled
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.journal import last_swaps
from backup_admin.operations.stream_run import LOOK_SECONDS, BackOff, StreamPlaces, pause, stop
from backup_admin.sources.litestream import find_litestream, need_wal_mode, newest_change, written_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path
    from types import FrameType

    from backup_admin.control.installation import Installation
    from backup_admin.core.progress import Reporter
    from backup_admin.sources.litestream import Streamed

logger = logging.getLogger(__name__)

_NOTE_SECONDS = 10.0
_RETRY_SECONDS = 30.0
_TAKE_OVER_SECONDS = 5.0
# One that ends at once, again and again, must not count as running in between.
_STEADY_SECONDS = 5.0
_LAG = timedelta(seconds=30)
# It looks each second, and takes the time before it looks.
_LOOKS = timedelta(seconds=2)
_BEFORE = ".before-"
_KEPT_AFTER = timedelta(days=1)


class StopOnSignal(QuietReporter):
    """Cancels once the process was told to end."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._hear)

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when a signal came."""
        if self._asked:
            raise Cancelled("The streams end with their worker.")

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True


def keep_streaming(installation: Installation, reporter: Reporter) -> None:
    """Keep the streams of an app running until the reporter cancels.

    Any number of processes may be told to: one does, and another takes over when that ends.
    """
    while True:
        try:
            with StreamPlaces.of(installation.state).held() as kept:
                _Streaming(installation, reporter, kept).run()
        except Cancelled:
            return
        except Busy:
            logger.debug("another process keeps the streams")
        except Exception as error:  # noqa: BLE001 - the loop must outlive what nobody foresaw
            failure(installation, error, "streams")
        try:
            pause(_TAKE_OVER_SECONDS, reporter, installation.clock)
        except Cancelled:
            return


class _Streaming:
    """The streams while this process keeps them; `problems` are those that cannot run now, by name."""

    def __init__(self, installation: Installation, reporter: Reporter, kept: int) -> None:
        self._installation = installation
        self._clock = installation.clock
        self._reporter = reporter
        self._kept = kept
        self._places = StreamPlaces.of(installation.state)
        self._wanted = app_streams.streamed(installation)
        self._problems: dict[str, str] = {}
        with installation.database.new_session() as session:
            self._states = app_streams.read_states(session)

    def run(self) -> None:
        """Stream what can be, and look again when something changed."""
        back_off = BackOff()
        while True:
            self._wait_while_closed()
            able = self._look()
            if not able:
                self._idle(_RETRY_SECONDS)
                continue
            began = self._clock.monotonic()
            ended = self._stream(able)
            if ended:
                logger.warning("streams ended", extra={"why": ended})
                self._problems |= {one.name: ended for one in able}
                self._idle(back_off.after(self._clock.monotonic() - began))

    def _wait_while_closed(self) -> None:
        """Do not follow a restore: its database is begun anew when it has ended."""
        while is_closed(self._installation):
            self._problems = {one.name: "a restore is under way" for one in self._wanted}
            self._idle(LOOK_SECONDS)

    def _look(self) -> tuple[Streamed, ...]:
        """Return the databases that can be streamed now; of the others it is kept why not."""
        self._problems = {}
        able = []
        for one in self._wanted:
            try:
                need_wal_mode(one.path)
                if not self._is_the_same(one):
                    self._begin_anew(one)
                able.append(one)
            except (BackupAdminError, OSError) as error:
                self._problems[one.name] = _plain(error)
        return tuple(able)

    def _stream(self, able: Sequence[Streamed]) -> str:
        """Run the program for these; return why it ended, or nothing when all is to be looked at anew."""
        try:
            child = self._places.start(find_litestream(), able, self._kept)
        except BackupAdminError as error:
            return _plain(error)
        began = self._clock.monotonic()
        noted = float("-inf")
        try:
            while (status := child.status()) is None:
                self._reporter.check_cancelled()
                now = self._clock.monotonic()
                if is_closed(self._installation):
                    return ""
                if now - noted >= _NOTE_SECONDS:
                    if self._has_changed(able, now - began):
                        return ""
                    self._note(able, steady=now - began >= _STEADY_SECONDS)
                    noted = now
                self._clock.sleep(LOOK_SECONDS)
        finally:
            stop(child)
        return f"litestream ended with status {status}; {self._places.log} says more"

    def _has_changed(self, able: Sequence[Streamed], lived: float) -> bool:
        """Say whether a database was replaced, or one that could not be streamed now can."""
        try:
            if not all(self._is_the_same(one) for one in able):
                return True
        except (BackupAdminError, OSError):
            return True
        return bool(self._problems) and lived >= _RETRY_SECONDS and self._look() != tuple(able)

    def _is_the_same(self, one: Streamed) -> bool:
        noted = self._noted(one)
        return noted.is_file() and noted.read_text() == self._mark(one)

    def _mark(self, one: Streamed) -> str:
        """Return what changes when another database takes the place of this one."""
        swapped = last_swaps(self._installation.state, self._clock).get(one.name)
        return f"{one.path.stat().st_ino} {format_time(swapped) if swapped else ''}"

    def _noted(self, one: Streamed) -> Path:
        return self._places.folder / f"{one.name}.of"

    def _begin_anew(self, one: Streamed) -> None:
        """Let a stream begin with a copy of the whole database: what it goes on from was replaced.

        What was streamed before stays for a day under a name of its own, so that a backup can take it.
        """
        self._remove_old(one, now=None)
        if one.spool.is_dir():
            one.spool.rename(one.spool.with_name(f"{one.name}{_BEFORE}{self._clock.now():%Y%m%dT%H%M%SZ}"))
        shutil.rmtree(self._places.meta / one.name, ignore_errors=True)
        self._states.pop(one.name, None)
        replace_file(self._noted(one), self._mark(one).encode())

    def _remove_old(self, one: Streamed, *, now: datetime | None) -> None:
        """Remove what was streamed before a database was replaced; with a time, only what is a day old."""
        last = "" if now is None else f"{now - _KEPT_AFTER:%Y%m%dT%H%M%SZ}"
        for folder in one.spool.parent.glob(f"{one.name}{_BEFORE}*"):
            if not last or folder.name.rpartition(_BEFORE)[2] < last:
                shutil.rmtree(folder, ignore_errors=True)

    def _idle(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        self._note((), steady=False)
        while (left := until - self._clock.monotonic()) > 0:
            pause(min(left, _NOTE_SECONDS), self._reporter, self._clock)
            self._note((), steady=False)

    def _note(self, able: Sequence[Streamed], *, steady: bool) -> None:
        """Write down how each stream does, for the pages and the verdict."""
        now = self._clock.now()
        for one in self._wanted:
            self._states[one.name] = self._state(one, now, is_good=steady and one in able)
            self._remove_old(one, now=now)
        wanted = [self._states[one.name] for one in self._wanted]
        try:
            with self._installation.database.new_session() as session:
                app_streams.write_states(session, self._installation, wanted)
        except SQLAlchemyError:
            # The streams matter more than the note; that it grows old is a risk of its own.
            logger.exception("the state of the streams was not noted")

    def _state(self, one: Streamed, now: datetime, *, is_good: bool) -> StreamState:
        before = self._states.get(one.name) or StreamState(one.name, now)
        newest = newest_change(one.spool)
        problem = self._problems.get(one.name, "")
        if not problem:
            problem = _lag(one, newest, now) if is_good else before.problem
        return StreamState(
            one.name,
            noted_at=now,
            good_at=now if is_good and newest is not None and not problem else before.good_at,
            began_at=before.began_at or newest,
            newest=newest,
            problem=problem,
        )


def _lag(one: Streamed, newest: datetime | None, now: datetime) -> str:
    """Say that a stream lacks what was written; empty when it has all, or may have it in a moment.

    A large transaction that was taken back writes too, and nothing of it ever comes: then this is said
    until the next change.
    """
    written = written_at(one.path)
    if written is None or now - written < _LAG or (newest is not None and written - newest < _LOOKS):
        return ""
    return "litestream runs, but what was written to the database since then has not come"


def _plain(error: Exception) -> str:
    return str(error).removesuffix(" Nothing was started.").removesuffix(".")
