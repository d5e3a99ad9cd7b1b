"""What people read: sizes, times, names and counts."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from backup_admin.core.shown import agree, columns, count_of, show_moment, show_size, show_text, show_time


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_250_000, "1.2 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (10**18, "1000.0 PB"),
    ],
)
def test_sizes_are_short(size: int, shown: str) -> None:
    assert show_size(size) == shown


def test_times_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)

    assert show_time(moment) == moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def test_text_cannot_steer_a_terminal() -> None:
    assert show_text("a\nb\x1b[31m\u202e\udcff") == r"a\nb\x1b[31m\u202e\xff"


def test_columns_are_aligned() -> None:
    rows = [("NAME", "SIZE"), ("a", "1"), ("long name", "1000")]

    assert list(columns(rows, right=(1,))) == ["NAME       SIZE", "a             1", "long name  1000"]
    assert list(columns([])) == []


def test_one_file_is_no_files() -> None:
    assert [count_of(number, "file") for number in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]


def test_one_thing_refers_and_others_refer() -> None:
    assert [agree(number, "refers", "refer") for number in (0, 1, 2)] == ["refer", "refers", "refer"]


def test_a_moment_is_in_the_zone_of_this_machine_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert show_moment(moment) == "2026-07-02 00:30 CEST"
        assert show_time(moment).startswith("2026-07-02 00:30")
    finally:
        monkeypatch.undo()
        time.tzset()
