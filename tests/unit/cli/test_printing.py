"""What people and programs read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.cli.printing import Pieces, print_answer, print_error
from backup_admin.core.errors import Damaged
from backup_admin.operations.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator


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
