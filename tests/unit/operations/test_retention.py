"""Which snapshots stay: compared with a slow and plain second opinion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.errors import UsageError
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.retention import Policy, RetentionPlan, Span, parse_span, plan_retention
from backup_admin.repository.types import SAFETY, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
FORMATS = {
    "hourly": "%Y-%m-%d %H %z",
    "daily": "%Y-%m-%d",
    "weekly": "%G %V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


def snapshot(number: int, at: datetime, *, kind: str = "scheduled", outcome: str = "completed") -> Snapshot:
    return Snapshot(
        id=SnapshotId(f"{number:026d}"),
        created_at=at,
        kind=kind,
        label="",
        outcome=outcome,
        parent="",
        file_count=0,
        file_bytes=0,
        database_count=0,
        database_bytes=0,
        new_bytes=0,
        warning_count=0,
    )


def every(step: timedelta, count: int, last: datetime = NOW) -> list[Snapshot]:
    return [snapshot(number, last - step * (count - 1 - number)) for number in range(count)]


def plan(
    snapshots: Sequence[Snapshot],
    policy: Policy,
    *,
    now: datetime = NOW,
    pinned: Sequence[int] = (),
    verified: Sequence[int] = (),
) -> RetentionPlan:
    return plan_retention(
        snapshots,
        policy,
        now=now,
        pinned={f"{number:026d}": "pinned: held" for number in pinned},
        verified={f"{number:026d}" for number in verified},
    )


def kept(made: RetentionPlan) -> list[int]:
    return [int(one.snapshot.id) for one in made.decisions if one.keep]


def reasons(made: RetentionPlan) -> dict[int, tuple[str, ...]]:
    return {int(one.snapshot.id): one.reasons for one in made.decisions}


def test_the_newest_of_each_day_stays_with_its_reason() -> None:
    made = plan(every(timedelta(hours=8), 9), Policy(daily=2, zone=UTC))

    assert kept(made) == [6, 8]
    assert reasons(made)[8] == (
        "the newest complete one",
        "the newest, which always stays",
        "the newest of its day (1 of 2)",
    )
    assert reasons(made)[6] == ("the newest of its day (2 of 2)",)
    assert reasons(made)[7] == ("no rule keeps it",)


def test_days_without_a_snapshot_are_not_counted() -> None:
    snapshots = [
        snapshot(0, NOW - timedelta(days=90)),
        snapshot(1, NOW - timedelta(days=30)),
        snapshot(2, NOW),
    ]

    assert kept(plan(snapshots, Policy(daily=2))) == [1, 2]


def test_a_day_begins_where_the_zone_says() -> None:
    midnight_in_berlin = datetime(2026, 5, 31, 22, 30, tzinfo=UTC)
    snapshots = [snapshot(0, midnight_in_berlin - timedelta(hours=1)), snapshot(1, midnight_in_berlin)]

    assert kept(plan(snapshots, Policy(daily=5, zone=BERLIN))) == [0, 1]
    assert kept(plan(snapshots, Policy(daily=5, zone=UTC))) == [1]


def test_the_doubled_hour_of_autumn_is_two_hours() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    snapshots = [snapshot(0, first), snapshot(1, first + timedelta(hours=1))]

    made = plan(snapshots, Policy(hourly=9, zone=BERLIN), now=first + timedelta(days=1))

    assert kept(made) == [0, 1]


def test_a_complete_snapshot_speaks_for_its_day_before_a_later_degraded_one() -> None:
    yesterday = NOW - timedelta(days=1)
    snapshots = [
        snapshot(0, yesterday),
        snapshot(1, yesterday + timedelta(hours=1), outcome="degraded"),
        snapshot(2, NOW - timedelta(hours=1)),
        snapshot(3, NOW, outcome="degraded"),
    ]

    made = plan(snapshots, Policy(daily=2, zone=UTC))

    assert kept(made) == [0, 2, 3]
    assert reasons(made)[0] == ("the newest complete one of its day (2 of 2)",)
    assert reasons(made)[3] == ("the newest, which always stays",)


def test_what_is_pinned_verified_or_the_newest_good_one_never_goes() -> None:
    snapshots = [*every(timedelta(days=1), 6, NOW - timedelta(days=10)), snapshot(6, NOW, outcome="degraded")]

    made = plan(snapshots, Policy(last=1), pinned=[1], verified=[0, 3])

    assert kept(made) == [1, 3, 5, 6]
    assert reasons(made)[1] == ("pinned: held",)
    assert reasons(made)[3] == ("the last one that was verified",)
    assert reasons(made)[5] == ("the newest complete one",)


def test_what_a_restore_replaced_stays_for_a_week_and_is_no_keeper() -> None:
    snapshots = [
        snapshot(0, NOW - timedelta(days=9), kind=SAFETY),
        snapshot(1, NOW - timedelta(days=3)),
        snapshot(2, NOW - timedelta(days=2, hours=1), kind=SAFETY),
        snapshot(3, NOW - timedelta(days=1), kind=SAFETY),
    ]

    assert kept(plan(snapshots, Policy(last=1))) == [1, 2, 3]
    assert kept(plan(snapshots, Policy(last=1, safety_days=1))) == [1, 3]


def test_a_span_is_counted_back_from_the_newest_snapshot() -> None:
    snapshots = every(timedelta(days=1), 10)
    policy = Policy(within=parse_span("2d"))

    assert kept(plan(snapshots, policy)) == [7, 8, 9]
    assert kept(plan(snapshots, policy, now=NOW + timedelta(days=5000))) == [7, 8, 9]


def test_a_clock_behind_the_newest_snapshot_removes_nothing() -> None:
    snapshots = every(timedelta(days=1), 10)

    made = plan(snapshots, Policy(last=1), now=NOW - timedelta(hours=2))

    assert kept(made) == list(range(10))
    assert "clock" in made.blocked
    assert plan(snapshots, Policy(last=1), now=NOW - timedelta(minutes=59)).removed


def test_a_policy_without_a_rule_is_refused() -> None:
    for policy in (Policy(), Policy(minimum=5), Policy(last=-1), Policy(last=1, minimum=0)):
        with pytest.raises(UsageError):
            plan(every(timedelta(days=1), 3), policy)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30d", Span(0, 720)),
        ("1y2m3d4h", Span(14, 76)),
        ("2w", Span(0, 336)),
        (" 6M ", Span(6, 0)),
    ],
)
def test_spans_are_read_as_people_write_them(text: str, span: Span) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "0d", "d", "5", "1h1d", "-1d", "1.5d", "99999999y", "1d1d", "٣d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


def test_a_month_before_the_end_of_march_is_the_end_of_february() -> None:
    assert Span(1, 0).before(datetime(2026, 3, 31, tzinfo=UTC)) == datetime(2026, 2, 28, tzinfo=UTC)
    assert Span(12_000, 0).before(NOW).year == 1026
    assert Span(12_000, 10_000_000).before(datetime(1001, 1, 1, tzinfo=UTC)).year == 1


# --- a second opinion -----------------------------------------------------------

MOMENTS = st.integers(1, 880 * 24 * 60).map(lambda minutes: NOW - timedelta(minutes=minutes))
HISTORIES = st.lists(
    st.tuples(
        MOMENTS,
        st.sampled_from(["scheduled", "scheduled", SAFETY]),
        st.sampled_from(["completed", "degraded"]),
    ),
    max_size=30,
).map(lambda rows: [snapshot(n, at, kind=k, outcome=o) for n, (at, k, o) in enumerate(rows)])
COUNTS = st.integers(0, 4)
POLICIES = st.builds(
    Policy,
    last=st.integers(1, 4),
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
    within=st.none() | st.builds(Span, st.integers(0, 3), st.integers(1, 2000)),
    minimum=st.integers(1, 4),
    zone=st.sampled_from([UTC, BERLIN]),
)
NUMBERS = st.lists(st.integers(0, 29), max_size=3)


def oracle(snapshots: list[Snapshot], policy: Policy, pinned: list[int], verified: list[int]) -> set[int]:
    """Ask for each snapshot alone whether some rule wants it, by counting what would come before it."""
    ordinary = [one for one in snapshots if one.kind != SAFETY]
    newest = max((one.created_at for one in ordinary), default=NOW)
    wanted = {number for number in pinned if number < len(snapshots)}
    for one in snapshots:
        later = [two for two in ordinary if int(two.id) > int(one.id)]
        if one.kind == SAFETY:
            wanted_now = max(two.created_at for two in snapshots) - one.created_at <= timedelta(days=7)
        else:
            wanted_now = (
                len(later) < max(policy.last, policy.minimum)
                or (one.outcome == "completed" and all(two.outcome != "completed" for two in later))
                or (int(one.id) in verified and all(int(two.id) not in verified for two in later))
                or bool(policy.within and one.created_at >= policy.within.before(newest))
                or any(is_keeper(one, ordinary, policy, rule) for rule in FORMATS)
            )
        wanted |= {int(one.id)} if wanted_now else set()
    return wanted


def is_keeper(one: Snapshot, ordinary: list[Snapshot], policy: Policy, rule: str) -> bool:
    def period(other: Snapshot) -> str:
        return other.created_at.astimezone(policy.zone).strftime(FORMATS[rule])

    def rank(other: Snapshot) -> tuple[bool, datetime, int]:
        return other.outcome == "completed", other.created_at, -int(other.id)

    mine = [other for other in ordinary if period(other) == period(one)]
    newer = {period(other) for other in ordinary if other.created_at > max(two.created_at for two in mine)}
    return max(mine, key=rank) is one and len(newer - {period(one)}) < getattr(policy, rule)


@given(HISTORIES, POLICIES, NUMBERS, NUMBERS)
def test_any_history_is_judged_as_the_second_opinion_does(
    snapshots: list[Snapshot], policy: Policy, pinned: list[int], verified: list[int]
) -> None:
    made = plan(snapshots, policy, pinned=pinned, verified=verified)

    assert set(kept(made)) == oracle(snapshots, policy, pinned, verified)
    assert all(one.reasons for one in made.decisions)


@given(HISTORIES, POLICIES, NUMBERS, NUMBERS)
def test_what_was_decided_once_is_not_decided_anew(
    snapshots: list[Snapshot], policy: Policy, pinned: list[int], verified: list[int]
) -> None:
    first = plan(snapshots, policy, pinned=pinned, verified=verified)
    left = [one.snapshot for one in first.decisions if one.keep]

    assert plan(left, policy, pinned=pinned, verified=verified).removed == ()


@given(HISTORIES, POLICIES, st.sampled_from(["last", "daily", "weekly", "monthly", "minimum"]))
def test_a_more_generous_policy_keeps_no_less(snapshots: list[Snapshot], policy: Policy, rule: str) -> None:
    values = {name: getattr(policy, name) for name in ("last", *FORMATS, "within", "minimum", "zone")}
    generous = Policy(**values | {rule: values[rule] + 1})

    assert set(kept(plan(snapshots, policy))) <= set(kept(plan(snapshots, generous)))
