"""Talk to the process that opens SQLite databases for this one (`sqlite_worker` says why)."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import (
    BackupAdminError,
    Busy,
    Damaged,
    NewerVersion,
    RestoreRefused,
    SourceError,
    SourceInvalid,
    SourceMissing,
    UsageError,
    VerificationFailed,
)
from backup_admin.core.programs import ProgramOutput, run_program
from backup_admin.sources.base import LiveUnusable

if TYPE_CHECKING:
    from collections.abc import Callable

_WORKER = Path(__file__).with_name("sqlite_worker.py")
_PYTHON = (sys.executable, "-I", "-S")
COMMAND = (*_PYTHON, str(_WORKER))
# A hung process must end some day: ten minutes, and 2 MB/s for what it handles.
GRACE_SECONDS = 600.0
_SLOWEST_BYTES_PER_SECOND = 2e6
_KINDS: dict[str, type[BackupAdminError]] = {
    "missing": SourceMissing,
    "invalid": SourceInvalid,
    "busy": Busy,
    "unusable": LiveUnusable,
    "refused": RestoreRefused,
    "usage": UsageError,
    "unverified": VerificationFailed,
    "damaged": Damaged,
    "newer_version": NewerVersion,
    "failed": SourceError,
}


def ask_worker(
    operation: str,
    arguments: dict[str, Any],
    path: Path,
    deadline_seconds: float,
    about: str = "",
) -> dict[str, Any]:
    """Have the worker do one thing with a database; a larger one may take longer."""
    timeout_seconds = deadline_seconds + seconds_for(path)
    return ask_script(_WORKER, operation, arguments, timeout_seconds=timeout_seconds, about=about)


def ask_script(
    script: Path, operation: str, arguments: dict[str, Any], *, timeout_seconds: float, about: str = ""
) -> dict[str, Any]:
    """Let a process of its own do one thing with a database, and return what it answers.

    Raises what the process says went wrong.
    """
    finished = run_program(
        (*_PYTHON, str(script)), data=request_for(operation, arguments), timeout_seconds=timeout_seconds
    )
    return answer_of(finished.output, about, finished.end)


def seconds_for(path: Path) -> float:
    """Return how long a process may take to read a database."""
    size = 0
    with suppress(OSError):
        size = path.lstat().st_size
    return GRACE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND


def request_for(operation: str, arguments: dict[str, Any]) -> bytes:
    """Write what the process is to do."""
    request = {"operation": operation, "arguments": arguments, "parent": os.getpid()}
    return json.dumps(request).encode("ascii")


def answer_of(output: bytes, about: str, end: Callable[[], str]) -> dict[str, Any]:
    """Return what the process answered, or raise what it says went wrong."""
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise SourceError(f"{about}the SQLite process ended {end()}.") from error
    if "error" in answer:
        raise _KINDS[answer["error"]](about + answer["message"])
    result: dict[str, Any] = answer["ok"]
    return result


def read_all(output: ProgramOutput) -> bytes:
    """Read an answer to its end."""
    found = bytearray()
    buffer = bytearray(4096)
    while count := output.readinto(buffer):
        found += buffer[:count]
    return bytes(found)
