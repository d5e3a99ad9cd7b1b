"""Which snapshots stay and which may go: a plan with a reason for each, nothing done.

The rules are those people know from other tools: the newest snapshot of each of
the last N hours, days, weeks, months and years that have one; the last N; all
within a span of time. Spans are counted back from the newest snapshot, not from
the clock, so that a clock that jumps ahead removes nothing.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from backup_admin.core.errors import UsageError
from backup_admin.core.shown import count_of, show_moment
from backup_admin.repository.types import SAFETY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.types import Snapshot

_TOLERANCE = timedelta(hours=1)
_SPAN = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?", re.ASCII)
_COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Span:
    """A span of calendar time, as in `1y2m3d4h`."""

    months: int = 0
    hours: int = 0

    def before(self, moment: datetime) -> datetime:
        """Return the time this long before another."""
        count = moment.year * 12 + moment.month - 1 - self.months
        year, month = max(1, count // 12), count % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        try:
            return moment.replace(year=year, month=month, day=day) - timedelta(hours=self.hours)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)

    def after(self, moment: datetime) -> datetime:
        """Return the time this long after another; raise `UsageError` beyond the year 9999."""
        count = moment.year * 12 + moment.month - 1 + self.months
        year, month = count // 12, count % 12 + 1
        try:
            day = min(moment.day, calendar.monthrange(year, month)[1])
            return moment.replace(year=year, month=month, day=day) + timedelta(hours=self.hours)
        except (OverflowError, ValueError) as error:
            raise UsageError("That is further away than a date can say.") from error


def parse_span(text: str) -> Span:
    """Read a span such as `30d`, `2w` or `1y2m3d4h`; raise `UsageError`."""
    found = _SPAN.fullmatch(text.strip().lower())
    years, months, weeks, days, hours = (int(part or 0) for part in found.groups()) if found else [0] * 5
    span = Span(years * 12 + months, (weeks * 7 + days) * 24 + hours)
    if span == Span() or years > 1000 or months > 12_000 or span.hours > 10_000_000:
        raise UsageError(f"{text!r} is no span of time; write it as 30d, 2w, 12h or 1y6m (m is months).")
    return span


@dataclass(frozen=True, slots=True)
class Policy:
    """What is to be kept. A zero means that a rule is not used.

    `minimum` is how many of the newest stay whatever the rules say, `safety_days`
    how long what a restore replaced is kept. `zone` says where a day begins; without one
    it is the zone of this machine.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span | None = None
    minimum: int = 1
    safety_days: int = 7
    zone: tzinfo | None = None

    def check(self) -> None:
        """Raise `UsageError` for a policy that would keep nothing, or makes no sense."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        if min(*counts, self.safety_days) < 0 or self.minimum < 1:
            raise UsageError("A number of snapshots to keep is negative, or the minimum is less than one.")
        if not any(counts) and self.within is None:
            raise UsageError("The policy has no rule, so nothing would be kept. Give at least one --keep-… .")


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one snapshot, and why."""

    snapshot: Snapshot
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """A decision for each snapshot, in the order of their commits.

    `blocked` says why nothing may be removed now, when that is so.
    """

    decisions: tuple[Decision, ...]
    blocked: str = ""

    @property
    def removed(self) -> tuple[SnapshotId, ...]:
        """The snapshots that no reason keeps."""
        return tuple(decision.snapshot.id for decision in self.decisions if not decision.keep)


@dataclass(slots=True)
class _Reasons:
    kept: dict[str, list[str]] = field(default_factory=dict)

    def add(self, snapshot: Snapshot, reason: str) -> None:
        self.kept.setdefault(snapshot.id, []).append(reason)


def plan_retention(
    snapshots: Sequence[Snapshot],
    policy: Policy,
    *,
    now: datetime,
    pinned: Mapping[str, str],
    verified: Collection[str],
) -> RetentionPlan:
    """Decide for each snapshot (given in the order of commits); changes nothing.

    `pinned` gives the reason for each snapshot that is pinned now. Never removed:
    pinned ones, the newest complete one, the newest of those that were
    `verified`, and the `minimum`. Raises `UsageError` for a policy without a rule.
    """
    policy.check()
    newest = max((snapshot.created_at for snapshot in snapshots), default=now)
    if newest > now + _TOLERANCE:
        blocked = (
            f"The newest snapshot is from {show_moment(newest)} and the clock says "
            f"{show_moment(now)}: one of both is wrong, so nothing is removed until the clock passed it."
        )
        reason = ("the clock is not to be trusted now",)
        return RetentionPlan(tuple(Decision(one, keep=True, reasons=reason) for one in snapshots), blocked)
    reasons = _Reasons()
    _protect(reasons, snapshots, policy, pinned, verified)
    _apply_rules(reasons, snapshots, policy)
    return RetentionPlan(
        tuple(
            Decision(one, one.id in reasons.kept, tuple(reasons.kept.get(one.id, ("no rule keeps it",))))
            for one in snapshots
        )
    )


def _protect(
    reasons: _Reasons,
    snapshots: Sequence[Snapshot],
    policy: Policy,
    pinned: Mapping[str, str],
    verified: Collection[str],
) -> None:
    ordinary = [snapshot for snapshot in snapshots if snapshot.kind != SAFETY]
    for snapshot in snapshots:
        if snapshot.id in pinned:
            reasons.add(snapshot, pinned[snapshot.id])
    complete = [snapshot for snapshot in ordinary if snapshot.outcome == _COMPLETED]
    if complete:
        reasons.add(complete[-1], "the newest complete one")
    proven = [snapshot for snapshot in ordinary if snapshot.id in verified]
    if proven:
        reasons.add(proven[-1], "the last one that was verified")
    for snapshot in ordinary[-policy.minimum :]:
        text = "the newest, which always stays"
        reasons.add(snapshot, text if policy.minimum == 1 else f"among the newest {policy.minimum}")
    _protect_safety(reasons, snapshots, policy.safety_days)


def _protect_safety(reasons: _Reasons, snapshots: Sequence[Snapshot], days: int) -> None:
    newest = max((snapshot.created_at for snapshot in snapshots), default=None)
    for snapshot in snapshots:
        if snapshot.kind == SAFETY and newest and newest - snapshot.created_at <= timedelta(days=days):
            reasons.add(snapshot, f"what a restore replaced, kept for {count_of(days, 'day')}")


def _apply_rules(reasons: _Reasons, snapshots: Sequence[Snapshot], policy: Policy) -> None:
    ordinary = [snapshot for snapshot in snapshots if snapshot.kind != SAFETY]
    if not ordinary:
        return
    for number, snapshot in enumerate(reversed(ordinary[-policy.last :] if policy.last else []), 1):
        reasons.add(snapshot, f"{number} of the last {policy.last}")
    by_time = sorted(ordinary, key=lambda snapshot: snapshot.created_at, reverse=True)
    for name, unit, key in _PERIODS:
        groups: dict[object, list[Snapshot]] = {}
        for snapshot in by_time:
            groups.setdefault(key(snapshot.created_at.astimezone(policy.zone)), []).append(snapshot)
        wanted: int = getattr(policy, name)
        for number, group in enumerate(list(groups.values())[:wanted], 1):
            keeper = next((one for one in group if one.outcome == _COMPLETED), group[0])
            which = "the newest" if keeper is group[0] else "the newest complete one"
            reasons.add(keeper, f"{which} of its {unit} ({number} of {wanted})")
    if policy.within is not None:
        begin = policy.within.before(by_time[0].created_at)
        text = f"made since {begin.astimezone(policy.zone):%Y-%m-%d %H:%M}"
        for snapshot in (one for one in by_time if one.created_at >= begin):
            reasons.add(snapshot, text)


def _hour(moment: datetime) -> object:
    # The offset tells apart the two hours of one name when the clocks go back.
    return moment.date(), moment.hour, moment.utcoffset()


_PERIODS: tuple[tuple[str, str, Callable[[datetime], object]], ...] = (
    ("hourly", "hour", _hour),
    ("daily", "day", lambda moment: moment.date()),
    ("weekly", "week", lambda moment: moment.isocalendar()[:2]),
    ("monthly", "month", lambda moment: (moment.year, moment.month)),
    ("yearly", "year", lambda moment: moment.year),
)
