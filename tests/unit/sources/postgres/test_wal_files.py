"""Names of WAL files, histories of timelines, and the way through them."""

from __future__ import annotations

import pytest

from backup_admin.core.errors import SourceInvalid
from backup_admin.sources.postgres.wal_files import (
    Segment,
    Switch,
    check_segment,
    parse_history,
    parse_lsn,
    parse_segment,
    show_lsn,
    timeline_for,
)

MIB = 1 << 20
HISTORY = b"1\t0/3000148\tno reason\n\n2\t1/A0000000\tbefore 2026-03-01 10:00:00+00\n# a comment\n"


@pytest.mark.parametrize(
    ("size", "number", "file"),
    [
        (16 * MIB, 1, "000000010000000000000001"),
        (16 * MIB, 255, "0000000100000000000000FF"),
        (16 * MIB, 256, "000000010000000100000000"),
        (64 * MIB, 64, "000000010000000100000000"),
        (1 * MIB, 4097, "000000010000000100000001"),
    ],
)
def test_a_segment_has_the_name_the_server_gives_it(size: int, number: int, file: str) -> None:
    assert Segment(1, number).file(size) == file
    assert parse_segment(file, size) == Segment(1, number)
    assert parse_segment(f"{file}.partial", size) == Segment(1, number)
    assert parse_segment(f"{file}.00000028.backup", size) == Segment(1, number)


def test_a_history_is_no_segment() -> None:
    assert parse_segment("00000002.history", 16 * MIB) is None


def test_places_are_read_and_written_as_the_server_does() -> None:
    assert parse_lsn("1/A0000028") == (1 << 32) + 0xA0000028
    assert show_lsn(parse_lsn("1/A0000028")) == "1/A0000028"


def test_a_history_names_the_timelines_before() -> None:
    assert parse_history(HISTORY) == (Switch(1, 0x3000148), Switch(2, parse_lsn("1/A0000000")))
    assert parse_history(b"# nothing\n") == ()


def test_a_history_that_is_none_is_refused() -> None:
    with pytest.raises(SourceInvalid, match="'what is this'"):
        parse_history(b"1\t0/3000148\tfine\nwhat is this\n")


@pytest.mark.parametrize(
    ("number", "timelines"), [(2, (1,)), (3, (2, 1)), (200, (2,)), (0x1A0, (3, 2)), (0x1A1, (3,))]
)
def test_each_segment_is_looked_for_on_the_newest_timeline_that_reaches_it(
    number: int, timelines: tuple[int, ...]
) -> None:
    assert timeline_for(parse_history(HISTORY), 3, number, 16 * MIB) == timelines


@pytest.mark.parametrize("data", [b"", b"short", bytes(16 * MIB)])
def test_bytes_that_are_no_segment_are_refused(data: bytes) -> None:
    with pytest.raises(SourceInvalid, match="Nothing was archived"):
        check_segment("000000010000000000000001", data, "0" * 16)
