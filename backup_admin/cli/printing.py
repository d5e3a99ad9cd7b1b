"""Everything the command prints: answers on stdout, messages on stderr.

A reader that goes away (`backup-admin list … | head -1`) is no error: what is left is
then written nowhere.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from backup_admin.core.errors import BackupAdminError
from backup_admin.core.paths import show_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

VERSION = 1
_UNITS = ("kB", "MB", "GB", "TB", "PB")


class AnswerLost(BackupAdminError):
    """What a verb answered could not be written."""

    code = "answer_lost"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb answers: `result` for programs, `lines` for people.

    `stream` is the last member of the result, given one row at a time, so that
    memory does not grow with it.
    """

    result: Mapping[str, Any]
    lines: Iterable[str] = ()
    exit_code: int = 0
    stream: tuple[str, Iterable[Any]] | None = None
    notes: Sequence[str] = field(default=())
    """Messages for people, on stderr."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """An answer that is a document of its own, piece by piece."""

    text: Iterable[str]


def prepare_streams() -> None:
    """Write UTF-8, and escape what cannot be written instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def print_answer(command: str, answer: Answer | Pieces, *, as_json: bool) -> int:
    """Print an answer and return the exit code."""
    if isinstance(answer, Pieces):
        for piece in answer.text:
            _write(sys.stdout, piece)
        return 0
    if as_json:
        return _print_document(command, answer)
    for line in answer.lines:
        _write(sys.stdout, line + "\n")
    for note in answer.notes:
        say(note)
    return answer.exit_code


def print_error(command: str, error: Mapping[str, str], exit_code: int, *, as_json: bool) -> None:
    """Print why a verb failed."""
    if as_json:
        _write(sys.stdout, _dump(_envelope(command, exit_code, error)) + "\n")
    say(f"backup-admin{f' {command}' if command else ''}: {error['message']}")


def print_now(text: str) -> None:
    """Print a part of the answer at once; raise `AnswerLost` when nobody can read it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _lead_nowhere(sys.stdout)
        raise AnswerLost(f"The answer could not be written: {error.strerror}. Nothing was made.") from error


def say(message: str) -> None:
    """Tell a person something; goes to stderr."""
    _write(sys.stderr, message + "\n")


def close_streams() -> None:
    """Write out what is left; raise `AnswerLost` when nothing takes it."""
    for stream in (sys.stdout, sys.stderr):
        with _writing(stream):
            stream.flush()


def error_as_json(error: BackupAdminError) -> dict[str, str]:
    """Return what programs are told about an error."""
    return {"code": error.code, "message": str(error)}


def _print_document(command: str, answer: Answer) -> int:
    if answer.stream is None:
        document = {**_envelope(command, answer.exit_code, None), "result": answer.result}
        _write(sys.stdout, _dump(document) + "\n")
        return answer.exit_code
    name, rows = answer.stream
    head = {"version": VERSION, "command": command, "result": answer.result}
    _write(sys.stdout, _dump(head)[:-2] + f'{", " if answer.result else ""}"{name}": [')
    exit_code, error = answer.exit_code, None
    separator = ""
    try:
        for row in rows:
            _write(sys.stdout, separator + "\n" + _dump(row))
            separator = ","
    except BackupAdminError as caught:
        exit_code, error = caught.exit_code, error_as_json(caught)
        say(f"backup-admin {command}: {caught}")
    tail = _dump({"exit_code": exit_code, "error": error})
    _write(sys.stdout, "]}, " + tail[1:] + "\n")
    return exit_code


def _envelope(command: str, exit_code: int, error: Mapping[str, str] | None) -> dict[str, Any]:
    return {"version": VERSION, "command": command, "exit_code": exit_code, "error": error, "result": None}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write(stream: TextIO, text: str) -> None:
    with _writing(stream):
        stream.write(text)


@contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    """Go on where nobody reads any more; raise `AnswerLost` where writing fails.

    From then on the stream leads to the null device: Python flushes once more at
    its end, and would fail once more.
    """
    try:
        yield
    except BrokenPipeError:
        _lead_nowhere(stream)
    except OSError as error:
        _lead_nowhere(stream)
        raise AnswerLost(f"The answer could not be written: {error.strerror}.") from error


def _lead_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


# --- words for people ------------------------------------------------------


def show_size(size: int) -> str:
    """Write a number of bytes for people: 999 B, 1.2 MB."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def show_time(moment: datetime) -> str:
    """Write a time in the zone of this machine."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show_text(text: str) -> str:
    """Write foreign text on one line, with nothing a terminal would obey."""
    return show_path(text.encode("utf-8", "surrogateescape"))


def count_of(number: int, thing: str) -> str:
    """Write a number with its thing: 1 file, 2 files."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """Yield rows with aligned columns; those named in `right` end flush."""
    if not rows:
        return
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.rjust(width) if at in right else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
