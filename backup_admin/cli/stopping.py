"""How a verb learns that it shall stop, and tells how far it is."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from backup_admin.core.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


PATIENCE_SECONDS = 8.0
"""How long work may go on after it was asked to stop: SQLite may be copying something large."""


class Stop:
    """Whether somebody asked to stop. The first signal asks, the second insists.

    Work that may be cut anywhere is ended when it does not hear the first one
    for a while; `patient` is for work on live data, which ends at its own points.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.patient = True

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to Ctrl-C and the like instead of ending at once."""
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Say whether to stop."""
        return self._asked.is_set()

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
        if not self.patient:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)

    def _insist(self, _number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt


class Display(Protocol):
    """Shows the progress of one stage after another."""

    def begin(self, stage: str, total_bytes: int, total_items: int) -> None:
        """Show a new stage."""
        ...

    def add(self, size: int, items: int, current: str) -> None:
        """Show that some of it is done."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class StoppableReporter:
    """Reports to a display, if there is one, and stops where the signal asks to.

    `stopped` is the sentence that says what stopping leaves behind.
    """

    def __init__(self, stop: Stop, stopped: str, display: Display | None) -> None:
        self._stop = stop
        self._stopped = stopped
        self._display = display

    def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
        """Show a new stage."""
        if self._display is not None:
            self._display.begin(name, total_bytes, total_items)

    def advance(self, *, size: int = 0, items: int = 0, current: str = "") -> None:
        """Show that some of it is done."""
        if self._display is not None:
            self._display.add(size, items, current)

    def warn(self, message: str) -> None:
        """Do nothing: the result says it once more, and is printed whole."""

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when somebody asked to stop."""
        if self._stop.asked:
            raise Cancelled(f"Stopped as asked. {self._stopped}")


@contextmanager
def reporting(
    stop: Stop, environment: Mapping[str, str], stopped: str, *, patient: bool = False
) -> Iterator[StoppableReporter]:
    """Give a reporter; it draws a bar when stderr is a terminal that can."""
    display = _make_display() if _can_draw(environment) else None
    stop.patient = patient
    try:
        yield StoppableReporter(stop, stopped, display)
    finally:
        stop.patient = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        if display is not None:
            display.close()


def _can_draw(environment: Mapping[str, str]) -> bool:
    return sys.stderr.isatty() and environment.get("TERM", "dumb") != "dumb"


def _make_display() -> Display:
    # rich costs more than everything else a short verb does; only a bar needs it.
    display: Display = importlib.import_module("backup_admin.cli.progress_bar").ProgressBar()
    return display
