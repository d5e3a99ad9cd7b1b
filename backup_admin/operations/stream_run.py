"""Streams of SQLite databases, kept running: one program beside us, started again when it ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders
from backup_admin.core.errors import Busy
from backup_admin.core.programs import Companion
from backup_admin.sources.litestream import find_litestream, need_wal_mode, replicate_command, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.sources.litestream import Streamed

LOOK_SECONDS = 0.5
_STOP_SECONDS = 20.0
_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_STEADY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class StreamPlaces:
    """Where the streams of one state folder keep what is not in any backup."""

    folder: Path

    @classmethod
    def of(cls, state: StateFolder) -> StreamPlaces:
        """Return the places, and make their folder."""
        folder = state.root / "streams"
        make_folders(folder)
        return cls(folder)

    @property
    def log(self) -> Path:
        """What the program says."""
        return self.folder / "litestream.log"

    @property
    def meta(self) -> Path:
        """What the program keeps for itself, a folder for each database."""
        return self.folder / "meta"

    def start(self, program: Path, databases: Sequence[Streamed], kept: int) -> Companion:
        """Start the program for these databases; it holds the descriptor `kept`."""
        config = self.folder / "litestream.json"
        write_config(config, databases, self.meta)
        return Companion(replicate_command(program, config), log=self.log, kept=kept)

    @contextmanager
    def held(self) -> Iterator[int]:
        """Hold a lock that the program inherits: it lasts as long as one of the two lives. Raises `Busy`."""
        path = self.folder / "lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise Busy(
                f"Databases are streamed with this state folder already, or litestream outlived who started "
                f"it: look for it with `fuser {path}`, and end it. Nothing was started."
            ) from error
        try:
            yield handle
        finally:
            os.close(handle)


class BackOff:
    """How long to wait before something that ended is started again; longer each time it ends soon."""

    def __init__(self) -> None:
        self._next = _SHORTEST_WAIT

    def after(self, lived_seconds: float) -> float:
        """Return the seconds to wait after it lived so long."""
        if lived_seconds > _STEADY_SECONDS:
            self._next = _SHORTEST_WAIT
        wait, self._next = self._next, min(self._next * 2, _LONGEST_WAIT)
        return wait


def supervise(
    databases: Sequence[Streamed],
    *,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
    tell: Callable[[str], None],
) -> None:
    """Keep the program running until the reporter cancels; it is started again when it ends.

    Raises `ConfigurationError`, `SourceInvalid` or `Busy`, also while another call streams.
    """
    program = find_litestream()
    for database in databases:
        need_wal_mode(database.path)
    places, back_off = StreamPlaces.of(state), BackOff()
    with places.held() as kept:
        while True:
            child = places.start(program, databases, kept)
            tell(f"litestream streams {', '.join(one.name for one in databases)} (process {child.pid}).")
            began = clock.monotonic()
            status = _watch(child, reporter, clock)
            wait = back_off.after(clock.monotonic() - began)
            tell(
                f"litestream ended with status {status}; it is started again in {wait:.0f} s. "
                f"See {places.log}."
            )
            pause(wait, reporter, clock)


def stop(child: Companion) -> None:
    """End the program; what was written until now is in its streams."""
    child.stop(seconds=_STOP_SECONDS)


def pause(seconds: float, reporter: Reporter, clock: Clock) -> None:
    """Wait, unless the reporter cancels."""
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        reporter.check_cancelled()
        clock.sleep(LOOK_SECONDS)


def _watch(child: Companion, reporter: Reporter, clock: Clock) -> int:
    try:
        while (status := child.status()) is None:
            reporter.check_cancelled()
            clock.sleep(LOOK_SECONDS)
        return status
    finally:
        stop(child)
