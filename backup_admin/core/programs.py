"""The one place that starts programs: a list, never a shell, always a timeout."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import ProgramFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KEEP = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left behind."""

    status: int
    output: bytes
    errors: bytes


def run_program(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    data: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end and return its output, whatever its status.

    It gets a small environment of its own; its whole process group is ended
    at the deadline. Raises `ProgramFailed` when it cannot start or is too slow.
    """
    clean = {name: os.environ[name] for name in _KEEP if name in os.environ}
    clean.update(environment or {})
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed(f"{command[0]} cannot be started: {error.strerror}.") from error
    try:
        output, errors = process.communicate(data, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _end_group(process)
        raise ProgramFailed(
            f"{command[0]} did not end within {timeout_seconds:.0f} s and was stopped."
        ) from error
    except BaseException:
        _end_group(process)
        raise
    return Finished(process.returncode, output, errors)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
