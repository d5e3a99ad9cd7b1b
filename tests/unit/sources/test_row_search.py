"""Looking for rows by some text, within bounds."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from backup_admin.sources import row_search
from backup_admin.sources.row_search import FoundRow, FoundRows, Shape, search, short_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS = Shape(("id", "slug", "title", "size"), ("id",), ("slug", "title"))
PAIRS = Shape(("left", "right"), ("left", "right"), ("left", "right"))


def endless() -> Iterator[tuple[str, ...]]:
    return ((str(n), f"event-{n}", f"Event {n}", "5") for n in count(1))


def test_a_row_is_found_by_a_part_of_any_value_in_upper_or_lower_case() -> None:
    rows = [("1", "anna-jonas", "Anna & Jonas", "5"), ("2", "party", "ZOË", None)]

    by_title = search(EVENTS, rows, "zoë")

    assert search(EVENTS, rows, "& jon").rows == (FoundRow("1", ("anna-jonas", "Anna & Jonas")),)
    assert by_title == FoundRows(("slug", "title"), (FoundRow("2", ("party", "ZOË")),), 2, "", ("id",))
    assert FoundRows.from_plain(by_title.to_plain()) == by_title


def test_after_twenty_rows_it_stops_and_says_so() -> None:
    found = search(EVENTS, endless(), "")

    assert [row.key for row in found.rows] == [str(n) for n in range(1, 21)]
    assert found.stopped == "These are the first 20; there may be more."


def test_twenty_rows_that_are_all_are_all() -> None:
    rows = [row for row, _ in zip(endless(), range(20), strict=False)]

    assert search(EVENTS, rows, "event").stopped == ""


def test_a_large_table_is_looked_at_up_to_a_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_search, "MOST_LOOKED_AT", 1000)

    found = search(EVENTS, endless(), "nobody")

    assert (found.rows, found.looked_at) == ((), 1000)
    assert found.stopped == "Looking ended after 1,000 rows; there may be more."


def test_it_ends_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_search, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(row_search, "MOST_LOOKED_AT", 10**12)

    assert "Looking ended after" in search(EVENTS, endless(), "nobody").stopped


@pytest.mark.parametrize(
    ("key", "written"),
    [
        (("a", "b"), "a,b"),
        (("a,b", 'c"d'), '"a,b","c""d"'),
        (("a", None), ""),
        (("a\n", "b"), ""),
        (("a", "x" * 1000), ""),
    ],
)
def test_a_key_is_written_as_a_restore_reads_it_or_not_at_all(
    key: tuple[str | None, ...], written: str
) -> None:
    assert search(PAIRS, [key], "").rows[0].key == written


@pytest.mark.parametrize(
    ("key", "written"), [("a,b", "a,b"), ('a"', 'a"'), ('"a"', '"""a"""'), ('"', '""""'), (" a", "")]
)
def test_a_key_of_one_column_is_in_quotes_only_where_it_would_be_misread(key: str, written: str) -> None:
    shape = Shape(("id",), ("id",), ("id",))

    assert search(shape, [(key,)], "").rows[0].key == written


def test_long_values_are_cut_where_they_are_shown() -> None:
    (row,) = search(EVENTS, [("1", "s", "x" * 999, "5")], "").rows

    assert row.values == ("s", "x" * 60 + "…")


def test_lines_that_are_too_long_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_search, "_LONGEST_LINE", 10)

    lines = list(short_lines([b"one\ntw", b"o\n", b"x" * 20, b"x" * 20, b"\nthree\n"]))

    assert lines == [b"one", b"two", b"three"]


@pytest.mark.parametrize("column", ["password_hash", "api_key", "reset_token", "TotpSecret", "otp", "pin"])
def test_columns_of_secrets_are_neither_searched_nor_shown(column: str) -> None:
    shape = Shape(("id", "name", column), ("id",), ("name", column))
    rows = [("1", "anna", "$2b$12$abc")]

    assert search(shape, rows, "$2b").rows == ()
    assert search(shape, rows, "anna").rows == (FoundRow("1", ("anna",)),)
    assert search(Shape((column,), (column,), ()), [("x",)], "").rows == (FoundRow("", ()),)


@pytest.mark.parametrize("column", ["footprint", "is_private", "key", "opinion", "shipping"])
def test_other_columns_are_no_secrets(column: str) -> None:
    assert Shape(("id", column), ("id",), (column,)).shown == (column,)
