"""Numbers, sizes and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from backup_admin.web import formats
from backup_admin.web.addresses import local_path
from backup_admin.web.words import word

NOW = datetime(2026, 11, 23, 16, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (12345, "12.3 kB"),
        (999499, "999 kB"),
        (999500, "1.00 MB"),
        (21 * 10**9, "21.0 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(value: int, text: str) -> None:
    assert formats.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.34, "0.3 s"), (42, "42 s"), (60, "1 min 00 s"), (96, "1 min 36 s"), (7384, "2 h 03 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "noun", "text"),
    [(1, "row", "1 row"), (2, "day", "2 days"), (3, "entry", "3 entries"), (1234, "file", "1,234 files")],
)
def test_counts_have_the_right_noun(value: int, noun: str, text: str) -> None:
    assert formats.count(value, noun) == text


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (timedelta(0), "a moment ago"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(hours=3, minutes=59), "3 hours ago"),
        (timedelta(hours=47), "47 hours ago"),
        (timedelta(hours=49), "2 days ago"),
    ],
)
def test_how_long_ago(gone: timedelta, text: str) -> None:
    assert formats.ago(NOW - gone, NOW) == text


def test_what_is_due_says_so() -> None:
    assert formats.until(NOW + timedelta(hours=9), NOW) == "in 9 hours"
    assert formats.until(NOW - timedelta(minutes=1), NOW) == "due now"


def test_times_are_shown_in_the_zone_of_the_deployment() -> None:
    assert formats.in_zone(NOW, "Europe/Berlin") == "23 Nov 2026, 17:40"
    assert formats.iso(NOW) == "2026-11-23T16:40:00Z"


def test_backticks_become_code_and_everything_else_is_escaped() -> None:
    assert formats.text("run `flask <x>` & wait") == Markup("run <code>flask &lt;x&gt;</code> &amp; wait")
    assert formats.text("one ` alone <b>") == Markup("one ` alone &lt;b&gt;")


def test_an_unknown_state_is_shown_as_it_is() -> None:
    assert word("half_done").label == "Half done"


@pytest.mark.parametrize(
    "address",
    [
        "//evil",
        "/\\evil",
        "/\t/evil",
        "https:evil",
        "javascript:alert(1)",
        "https://evil/",
        "",
        "evil",
        "/\n",
        "\\/x",
    ],
)
def test_only_paths_of_this_site_are_followed(address: str) -> None:
    assert local_path(address, "/home") == "/home"


def test_a_local_path_is_followed() -> None:
    assert local_path("/backup-admin/backups?status=failed", "/home") == "/backup-admin/backups?status=failed"
