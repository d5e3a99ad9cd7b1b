"""The journal of a restore: what was decided and done, on disk before each step.

One file per restore in the state folder, JSON lines, each with the SHA-256 of
the line before. It is a file because the database may be the thing that is
replaced. A last line that was cut by a power failure counts as not written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import Clock, format_time, parse_time
from backup_admin.core.durable import sync_folder, write_all
from backup_admin.core.errors import JournalFailed, NeedsAttention, RestoreRefused, UsageError
from backup_admin.core.ids import RestoreId
from backup_admin.repository.keys import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from backup_admin.core.state import StateFolder

_NAME = re.compile(r"restore-([0-9a-z]{1,40})\.journal")
_START = bytes(32).hex()


class Step(StrEnum):
    """What a journal line says was decided or done."""

    PLANNED = "planned"
    STAGING = "staging"
    STAGED = "staged"
    VERIFIED = "verified"
    QUIESCING = "quiescing"
    SAFETY_BACKUP = "safety_backup"
    SWAPPING = "swapping"
    SWAPPED = "swapped"
    NOT_SWAPPED = "not_swapped"
    ALL_SWAPPED = "all_swapped"
    CHECKED = "checked"
    COMMITTED = "committed"
    ROLLING_BACK = "rolling_back"
    PUT_BACK = "put_back"
    ROLLED_BACK = "rolled_back"
    UNDOING = "undoing"
    UNDONE = "undone"
    CLEANED = "cleaned"
    ATTENTION = "needs_attention"


FINAL = frozenset({Step.COMMITTED, Step.ROLLED_BACK, Step.UNDONE, Step.CLEANED})

_REPLACING = frozenset(
    {
        Step.SWAPPING,
        Step.SWAPPED,
        Step.ROLLING_BACK,
        Step.PUT_BACK,
        Step.ROLLED_BACK,
        Step.UNDOING,
        Step.UNDONE,
    }
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a journal."""

    step: Step
    time: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """One restore as its journal tells it."""

    restore_id: RestoreId
    step: Step
    snapshot_id: str
    actor: str
    started_at: datetime
    updated_at: datetime
    finished: bool
    away: bool = False
    """Whether it waits for a server that did not answer."""


class Journal:
    """An append-only file of steps."""

    def __init__(self, path: Path, restore_id: RestoreId, clock: Clock) -> None:
        self.path = path
        self.restore_id = restore_id
        self._clock = clock
        self._lines, self._digest, self._size = _read(path)

    @property
    def lines(self) -> tuple[Line, ...]:
        """Everything written so far."""
        return tuple(self._lines)

    @property
    def step(self) -> Step:
        """The last step written."""
        return self._lines[-1].step

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self._lines) and self.step in FINAL

    def write(self, step: Step, **data: Any) -> None:
        """Append a step; it is on disk when this returns. Raises `JournalFailed`."""
        now = self._clock.now()
        body = {"step": step.value, "time": format_time(now), "data": data, "prev": self._digest}
        raw = dump_canonical(body) + b"\n"
        try:
            self._append(raw)
        except OSError as error:
            raise JournalFailed(
                f"The journal {self.path} cannot be written: {error.strerror}. Without it nothing is changed."
            ) from error
        self._lines.append(Line(step, now, data))
        self._digest = sha256(raw).hex()
        self._size += len(raw)

    def _append(self, raw: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, self._size)
            os.lseek(handle, self._size, os.SEEK_SET)
            write_all(handle, raw)
            os.fsync(handle)
        finally:
            os.close(handle)
        if not self._lines:
            sync_folder(self.path.parent)

    def find(self, step: Step) -> Mapping[str, Any] | None:
        """Return the data of the last line with this step."""
        return next((line.data for line in reversed(self._lines) if line.step is step), None)

    def has(self, step: Step) -> bool:
        """Say whether a step was written."""
        return any(line.step is step for line in self._lines)

    def summary(self) -> JournalSummary:
        """Return what a list of restores shows."""
        planned = self.find(Step.PLANNED) or {}
        return JournalSummary(
            self.restore_id,
            self.step,
            str(planned.get("plan", {}).get("snapshot_id", "")),
            str(planned.get("actor", "")),
            self._lines[0].time,
            self._lines[-1].time,
            self.finished,
            away=self._lines[-1].data.get("away") is True,
        )


def new_journal(state: StateFolder, restore_id: RestoreId, clock: Clock) -> Journal:
    """Begin the journal of a restore; raise `UsageError` when it exists."""
    path = _path(state, restore_id)
    if path.exists():
        raise UsageError(f"Restore {restore_id} was already begun.")
    return Journal(path, restore_id, clock)


def open_journal(state: StateFolder, restore_id: str, clock: Clock) -> Journal:
    """Open the journal of a restore; raise `UsageError` when there is none."""
    path = _path(state, restore_id)
    if not path.exists():
        raise UsageError(f"There is no restore {restore_id!r} in {state.root}.")
    return Journal(path, RestoreId(restore_id), clock)


def open_journals(state: StateFolder, clock: Clock) -> Iterator[Journal]:
    """Yield every journal that has begun, oldest first."""
    for path in sorted(state.restores.glob("restore-*.journal")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        journal = Journal(path, RestoreId(match[1]), clock)
        if journal.lines:
            yield journal


def refuse_unfinished(state: StateFolder, clock: Clock) -> None:
    """Raise `RestoreRefused` when an earlier restore was neither finished nor undone."""
    for journal in open_journals(state, clock):
        if not journal.finished:
            raise RestoreRefused(
                f"Restore {journal.restore_id} was interrupted; run `backup-admin recover` first. "
                "Nothing was touched."
            )


def refuse_earlier(state: StateFolder, clock: Clock) -> None:
    """Raise `Busy` when another restore is at work, and what `refuse_unfinished` raises.

    Not for who holds the lock of restores.
    """
    with state.lock("restore"):
        refuse_unfinished(state, clock)


def list_journals(state: StateFolder, clock: Clock) -> tuple[JournalSummary, ...]:
    """Return a summary of every restore, newest first."""
    return tuple(journal.summary() for journal in reversed(list(open_journals(state, clock))))


def last_swaps(state: StateFolder, clock: Clock) -> dict[str, datetime]:
    """Return of each database when a restore, or taking one back, last put another in its place."""
    found: dict[str, datetime] = {}
    for journal in open_journals(state, clock):
        swaps = [
            line for line in journal.lines if line.step is Step.SWAPPING and line.data["kind"] != "files"
        ]
        times = [line.time for line in journal.lines if line.step in _REPLACING]
        for line in swaps:
            found[line.data["name"]] = max(*times, found.get(line.data["name"], line.time))
    return found


def _path(state: StateFolder, restore_id: str) -> Path:
    name = f"restore-{restore_id}.journal"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{restore_id!r} is no id of a restore.")
    return state.restores / name


def _read(path: Path) -> tuple[list[Line], str, int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], _START, 0
    lines: list[Line] = []
    digest, size = _START, 0
    for number, raw in enumerate(data.split(b"\n")[:-1]):
        try:
            value = load_strict(raw)
            if value["prev"] != digest:
                raise ValueError("it does not follow the line before")
            lines.append(Line(Step(value["step"]), parse_time(value["time"]), dict(value["data"])))
        except (ValueError, KeyError, TypeError) as error:
            # A line that a crash cut has no end; this one was whole once. To take it for unwritten
            # could roll back a restore that was committed long ago.
            raise NeedsAttention(
                f"Line {number + 1} of {path} is damaged: {error}. Compare the places it names with what is "
                "live, then move the file out of that folder."
            ) from error
        digest = sha256(raw + b"\n").hex()
        size += len(raw) + 1
    return lines, digest, size
