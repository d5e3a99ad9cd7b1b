"""Everything the command prints: answers on stdout, messages on stderr.

A reader that goes away (`backup-admin list … | head -1`) is no error: what is left is
then written nowhere.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TextIO

from backup_admin.core.errors import BackupAdminError
from backup_admin.operations.answers import Answer, dump, envelope, write_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class AnswerLost(BackupAdminError):
    """What a verb answered could not be written."""

    code = "answer_lost"


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
        exit_code, error = write_document(command, answer, partial(_write, sys.stdout))
        if error is not None:
            say(f"backup-admin {command}: {error}")
        return exit_code
    for line in answer.lines:
        _write(sys.stdout, line + "\n")
    for note in answer.notes:
        say(note)
    return answer.exit_code


def print_error(command: str, error: Mapping[str, str], exit_code: int, *, as_json: bool) -> None:
    """Print why a verb failed."""
    if as_json:
        _write(sys.stdout, dump(envelope(command, exit_code, error)) + "\n")
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
