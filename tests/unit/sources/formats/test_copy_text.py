"""The text of `COPY` becomes JSON that any reader reads, wherever blocks are cut, and goes back unchanged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.sources.postgres import copy_text
from backup_admin.sources.postgres.copy_text import JsonLines, copy_line, values_of

if TYPE_CHECKING:
    from backup_admin.sources.base import ReadInto

# No NUL, which PostgreSQL has not, and no halves of pairs.
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
HARD = st.text(st.sampled_from('\\"N\t\n\r\v\b\f\x01\x1bab,[]ü😀'))
VALUES = st.one_of(st.none(), st.text(LETTERS), HARD)


def reading(data: bytes, size: int) -> ReadInto:
    left = data

    def read_into(view: memoryview) -> int:
        nonlocal left
        piece, left = left[: min(size, len(view))], left[min(size, len(view)) :]
        view[: len(piece)] = piece
        return len(piece)

    return read_into


def rows_of(width: int) -> st.SearchStrategy[list[list[str | None]]]:
    return st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=8)


@given(st.integers(1, 4).flatmap(rows_of), st.integers(1, 40))
def test_any_rows_in_any_blocks_are_read_as_they_were(rows: list[list[str | None]], size: int) -> None:
    text = b"".join(map(copy_line, rows))
    lines = JsonLines(reading(text, size), len(rows[0]) if rows else 1)

    written = b"".join(lines.blocks())

    assert [json.loads(line) for line in written.split(b"\n")[:-1]] == rows
    assert lines.rows == len(rows)


@given(st.integers(1, 4).flatmap(rows_of))
def test_any_row_that_copy_writes_is_read(rows: list[list[str | None]]) -> None:
    assert [values_of(copy_line(row)) for row in rows] == rows


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"\\N\n", b"[null]\n"),
        (b"\\\\N\n", b'["\\\\N"]\n'),
        (b'"\t\\N\t"\n', b'["\\"",null,"\\""]\n'),
        (b"\n", b'[""]\n'),
        (b"\\v\\\\v\x01\n", b'["\\u000b\\\\v\\u0001"]\n'),
        ("ü\\t😀\n".encode(), '["ü\\t😀"]\n'.encode()),
    ],
)
def test_what_copy_escapes_is_escaped_as_json_does(text: bytes, line: bytes) -> None:
    assert b"".join(JsonLines(reading(text, 1), 1).blocks()) == line


def test_rows_of_a_table_without_columns_are_empty_arrays() -> None:
    assert b"".join(JsonLines(reading(b"\n\n", 9), 0).blocks()) == b"[]\n[]\n"


def test_a_value_larger_than_a_block_is_handed_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_text, "_BLOCK_BYTES", 1000)
    pieces = list(JsonLines(reading(b"\\\\x" + b"ab" * 50_000 + b"\n", 1000), 1).blocks())

    assert max(map(len, pieces)) < 1100
    assert json.loads(b"".join(pieces)) == ["\\x" + "ab" * 50_000]
