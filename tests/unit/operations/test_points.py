"""Which snapshot a point in time means: compared with a plain second opinion, and at the edges."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.errors import SnapshotMissing, UsageError
from backup_admin.core.ids import SnapshotId
from backup_admin.operations.points import Point, choose_point, parse_moment, show_span

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def point(number: int, hours_ago: float, *, safety: bool = False, readable: bool = True) -> Point:
    return Point(SnapshotId(f"{number:026d}"), NOW - timedelta(hours=hours_ago), safety, readable)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in a zone whose clocks change."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-03-10T11:30:00Z", NOW - timedelta(minutes=30)),
        ("2026-03-10 12:30:00+01:00", NOW - timedelta(minutes=30)),
        ("2026-03-10T11:59:59.123456z", NOW - timedelta(microseconds=876_544)),
        ("2026-03-10 11:30:00.5+00", NOW - timedelta(minutes=29, seconds=59.5)),
        ("2026-03-10T11:30", NOW - timedelta(hours=1, minutes=30)),
        ("2025-07-01 12:00", datetime(2025, 7, 1, 10, tzinfo=UTC)),
        ("2h", NOW - timedelta(hours=2)),
        ("2h ago", NOW - timedelta(hours=2)),
        ("90 min ago", NOW - timedelta(minutes=90)),
        ("90m", NOW - timedelta(minutes=90)),
        (" 3d ago ", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("0s", NOW),
    ],
)
def test_a_moment_is_read_as_it_was_meant(berlin: None, text: str, meant: datetime) -> None:
    assert parse_moment(text, NOW) == meant


@pytest.mark.parametrize(
    "text",
    ["", "latest", "yesterday", "2h from now", "-2h", "2.5h", "2", "h", "2026-03-10", "14:30",
     "20260310T1130", "2026-W10-1T10:00", "2026-02-30T10:00", "2026-03-10T25:00", "2026-03-10T11:30 UTC",
     "999999w", "٣d",
     "2026-03-10T11:30:00+99:00", "1773144000"],
)  # fmt: skip
def test_what_is_no_moment_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no point in time. Write 2026-03-10T14:30"):
        parse_moment(text, NOW)


def test_a_zone_that_is_given_counts_instead_of_that_of_the_machine(berlin: None) -> None:
    assert parse_moment("2026-03-10T06:30", NOW, ZoneInfo("America/New_York")) == NOW - timedelta(hours=1.5)


@pytest.mark.parametrize("text", ["2025-10-26T02:30", "2025-03-30T02:30"])
def test_a_local_time_that_was_twice_or_never_needs_its_zone(berlin: None, text: str) -> None:
    with pytest.raises(UsageError, match="clocks were changed"):
        parse_moment(text, NOW)

    assert parse_moment(text + "+01:00", NOW).minute == 30


def test_a_time_to_come_is_refused(berlin: None) -> None:
    with pytest.raises(
        UsageError, match="2026-03-10 13:00:01 is still to come: it is 2026-03-10 13:00:00 now"
    ):
        parse_moment("2026-03-10T12:00:01Z", NOW)


def test_the_newest_at_or_before_the_moment_is_taken() -> None:
    points = [point(1, 48), point(2, 24), point(3, 2)]

    chosen = [choose_point(points, NOW - timedelta(hours=hours)).id[-1] for hours in (48, 25, 24, 2, 0)]

    assert chosen == ["1", "1", "2", "3", "3"]


@given(st.lists(st.integers(0, 50)), st.integers(0, 50))
def test_no_other_choice_is_nearer(hours: list[int], asked: int) -> None:
    points = [point(number, ago) for number, ago in enumerate(hours)]
    moment = NOW - timedelta(hours=asked)
    before = sorted((one.time, number) for number, one in enumerate(points) if one.time <= moment)

    if not before:
        with pytest.raises(SnapshotMissing):
            choose_point(points, moment)
        return
    assert choose_point(points, moment).id == points[before[-1][1]].id


def test_what_a_restore_replaced_is_taken_only_when_there_is_nothing_else() -> None:
    safety = point(2, 1, safety=True)

    assert choose_point([point(1, 3), safety], NOW).id == point(1, 3).id
    assert choose_point([safety], NOW).id == safety.id


def test_one_that_cannot_be_read_is_passed_over_and_named() -> None:
    chosen = choose_point([point(1, 3), point(2, 1, readable=False)], NOW)

    assert (chosen.id, chosen.age) == (point(1, 3).id, timedelta(hours=3))
    assert "3 h 0 min before" in chosen.sentence
    assert f"Snapshot {point(2, 1).id} would be nearer, but cannot be read" in chosen.sentence


def test_before_the_first_one_says_what_there_is() -> None:
    with pytest.raises(SnapshotMissing, match=r"the first is 0+1 of .*, the newest 0+2 of ") as caught:
        choose_point([point(1, 2), point(2, 1)], NOW - timedelta(hours=3))
    assert "Nothing was touched" in str(caught.value)

    with pytest.raises(SnapshotMissing, match="There is no snapshot yet"):
        choose_point([], NOW)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (7260, "2 h 1 min"), (266_400, "3 d 2 h")],
)
def test_a_span_is_written_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert show_span(timedelta(seconds=seconds)) == shown


def test_a_wrong_time_is_answered_with_the_zone_that_was_asked_for() -> None:
    with pytest.raises(UsageError, match=r"14:30 \(in Europe/Berlin\)"):
        parse_moment("soon", datetime(2026, 3, 10, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
    with pytest.raises(UsageError, match=r"14:30 \(the time of this machine\)"):
        parse_moment("soon", datetime(2026, 3, 10, tzinfo=UTC))
