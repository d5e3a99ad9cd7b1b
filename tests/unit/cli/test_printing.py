"""What people and programs read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.cli.printing import (
    Answer,
    Pieces,
    columns,
    count_of,
    print_answer,
    print_error,
    show_size,
    show_text,
    show_time,
)
from backup_admin.core.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_json_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    status = print_answer("run", Answer({"a": 1}, ["for people"], 3, notes=["too"]), as_json=True)

    shown = capsys.readouterr()
    assert (status, shown.err) == (3, "")
    assert json.loads(shown.out) == {
        "version": 1,
        "command": "run",
        "exit_code": 3,
        "error": None,
        "result": {"a": 1},
    }


def test_lines_go_to_stdout_and_notes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    status = print_answer("run", Answer({}, ["line"], 3, notes=["note"]), as_json=False)

    shown = capsys.readouterr()
    assert (status, shown.out, shown.err) == (3, "line\n", "note\n")


@pytest.mark.parametrize("result", [{}, {"before": "x"}])
@pytest.mark.parametrize("rows", [[], [{"n": 1}], [{"n": 1}, {"n": 2}]])
def test_streamed_rows_make_one_document(
    capsys: pytest.CaptureFixture[str], result: dict[str, Any], rows: list[dict[str, int]]
) -> None:
    print_answer("diff", Answer(result, stream=("files", iter(rows))), as_json=True)

    assert json.loads(capsys.readouterr().out) == {
        "version": 1,
        "command": "diff",
        "exit_code": 0,
        "error": None,
        "result": {**result, "files": rows},
    }


def test_error_in_the_middle_of_a_stream_still_makes_one_document(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise Damaged("broken")

    status = print_answer("diff", Answer({}, stream=("files", rows())), as_json=True)

    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (status, document["exit_code"], document["error"]["code"]) == (4, 4, "damaged")
    assert document["result"] == {"files": [1]}
    assert "broken" in shown.err


def test_document_of_its_own_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_answer("show", Pieces(["{", "}\n"]), as_json=True) == 0
    assert capsys.readouterr().out == "{}\n"


def test_error_is_a_document_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("list", {"code": "wrong_key", "message": "no"}, 12, as_json=True)

    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"] == {"code": "wrong_key", "message": "no"}
    assert shown.err == "backup-admin list: no\n"
