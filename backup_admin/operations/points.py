"""Which snapshot is meant by a point in time: the newest that was complete by then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, SnapshotMissing, UsageError
from backup_admin.core.ids import ulid_time
from backup_admin.core.shown import show_time
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository

LATEST = "latest"
_AGO = re.compile(r"(\d{1,6}) ?(s|min|m|h|d|w)(?: ago)?", re.ASCII)
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMS = "Write 2026-03-10T14:30 ({zone}), 2026-03-10T14:30:00Z or +01:00, or how long ago: 90m, 2h, 3d, 1w."


@dataclass(frozen=True, slots=True)
class Point:
    """A snapshot as a state one can go back to; `is_safety` is what a restore replaced."""

    id: SnapshotId
    time: datetime
    is_safety: bool = False
    is_readable: bool = True


@dataclass(frozen=True, slots=True)
class Chosen:
    """The snapshot for a moment, how long before it was made, and a sentence that says both."""

    id: SnapshotId
    time: datetime
    moment: datetime
    unreadable: tuple[SnapshotId, ...] = ()

    @property
    def age(self) -> timedelta:
        """How much older the state is than what was asked for."""
        return self.moment - self.time

    @property
    def sentence(self) -> str:
        """Say which snapshot it is, and how old it was at the moment."""
        text = (
            f"For {show_time(self.moment)}: snapshot {self.id} of {show_time(self.time)}, "
            f"{show_span(self.age)} before. Later changes are not in it."
        )
        if self.unreadable:
            text += f" Snapshot {self.unreadable[0]} would be nearer, but cannot be read."
        return text


def parse_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read a point in time: a date with a time, with or without a zone, or how long ago.

    Without one it is in `zone`, else in that of this machine. Raises `UsageError` for anything else, also
    for a local time that the change of clocks left out or made twice, and for one to come.
    """
    words = text.strip()
    ago = _AGO.fullmatch(words)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = _parse_absolute(words, zone)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no point in time. {_forms(zone)}") from error
    if moment > now:
        raise UsageError(
            f"{show_time(moment)} is still to come: it is {show_time(now)} now. Nothing was touched. "
            f"`{LATEST}` is the newest state."
        )
    return moment


def _forms(zone: tzinfo | None) -> str:
    return _FORMS.format(zone="the time of this machine" if zone is None else f"in {zone}")


def _parse_absolute(words: str, zone: tzinfo | None) -> datetime:
    if not _ISO.fullmatch(words):
        raise ValueError(words)
    moment = datetime.fromisoformat(words.upper())
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    both = {moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    if len(both) > 1:
        raise UsageError(
            f"{words} is no single time here: the clocks were changed then. "
            f"Add the zone, as in {words}+01:00."
        )
    return both.pop()


def choose_point(points: Iterable[Point], moment: datetime) -> Chosen:
    """Return the newest point at or before a moment, and none that a restore replaced while there is another.

    `points` are in the order of their commits. Raises `SnapshotMissing`, which says what there is.
    """
    every = tuple(points)
    before = [point for point in every if point.time <= moment]
    usable = [point for point in before if point.is_readable]
    usable = [point for point in usable if not point.is_safety] or usable
    if not usable:
        raise SnapshotMissing(_nothing(every, moment))
    # Of two with one time the later commit counts.
    best = max(enumerate(usable), key=lambda pair: (pair[1].time, pair[0]))[1]
    nearer = tuple(point.id for point in before if not point.is_readable and point.time > best.time)
    return Chosen(best.id, best.time, moment, nearer)


def _nothing(points: Sequence[Point], moment: datetime) -> str:
    asked = show_time(moment)
    there = sorted((point for point in points if point.is_readable), key=lambda point: point.time)
    if not there:
        return f"There is no snapshot yet, so also none for {asked}. Nothing was touched."
    first, last = there[0], there[-1]
    return (
        f"There is no snapshot from {asked} or before: the first is {first.id} of {show_time(first.time)}, "
        f"the newest {last.id} of {show_time(last.time)}. Nothing was touched."
    )


def points_of(repository: Repository) -> tuple[Point, ...]:
    """Return all snapshots as points, in the order of their commits; reads their headers."""
    return tuple(_point_of(repository, snapshot_id) for snapshot_id in repository.snapshot_ids())


def _point_of(repository: Repository, snapshot_id: SnapshotId) -> Point:
    try:
        snapshot = repository.snapshot(snapshot_id)
    except Damaged:
        return Point(snapshot_id, ulid_time(snapshot_id), is_readable=False)
    return Point(snapshot_id, snapshot.created_at, snapshot.kind == SAFETY)


def find_point(repository: Repository, snapshot: str, at: str, now: datetime) -> Chosen:
    """Return the snapshot for the words of `--at`; with it, `snapshot` must be `latest`.

    Raises `UsageError` or `SnapshotMissing`.
    """
    if snapshot != LATEST:
        raise UsageError(
            f"With --at the snapshot is `{LATEST}`: the newest at that time. Nothing was touched."
        )
    return choose_point(points_of(repository), parse_moment(at, now))


def pick(repository: Repository, snapshot: str, at: str, now: datetime) -> tuple[SnapshotId, tuple[str, ...]]:
    """Return the snapshot by name, or by `at` where that is given, and what is to be said about the choice.

    Raises `UsageError` or `SnapshotMissing`.
    """
    if not at:
        return repository.find_id(snapshot), ()
    chosen = find_point(repository, snapshot, at, now)
    return chosen.id, (chosen.sentence,)


def show_span(span: timedelta) -> str:
    """Write a length of time for people, in its two largest units."""
    seconds = int(span.total_seconds())
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"
