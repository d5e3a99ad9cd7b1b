"""The one place that starts programs: a list, never a shell, always a timeout."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import ProgramFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PIPE_BYTES = 1 << 20
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
    process = _start(command, environment)
    try:
        output, errors = process.communicate(data, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _end_group(process)
        raise _too_slow(command, timeout_seconds) from error
    except BaseException:
        _end_group(process)
        raise
    return Finished(process.returncode, output, errors)


class ProgramOutput:
    """What a running program writes, to be read while it works."""

    def __init__(self, process: subprocess.Popen[bytes], command: Sequence[str], seconds: float) -> None:
        self._process = process
        self._command = command
        self._seconds = seconds
        self._handle = -1 if process.stdout is None else process.stdout.fileno()
        self.pid = process.pid
        self.was_stopped = False

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read what there is, at least one byte; 0 when it ended. Raises `ProgramFailed`."""
        count = os.readv(self._handle, [buffer])
        if not count and self.was_stopped:
            raise _too_slow(self._command, self._seconds)
        return count

    def stop(self) -> None:
        """End the program because it takes too long."""
        self.was_stopped = True
        _kill_group(self._process)


@contextmanager
def stream_program(
    command: Sequence[str], *, timeout_seconds: float, data: bytes = b""
) -> Iterator[ProgramOutput]:
    """Run a program while the block reads its output; it does not outlive the block.

    It gets `data`, which fits into a pipe, and a small environment of its own. Raises
    `ProgramFailed` when it cannot start; at the deadline reading raises it.
    """
    process = _start(command, None)
    output = ProgramOutput(process, command, timeout_seconds)
    deadline = threading.Timer(timeout_seconds, output.stop)
    deadline.daemon = True
    try:
        deadline.start()
        _hand_in(process, data)
        yield output
    finally:
        deadline.cancel()
        _kill_group(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()


def _hand_in(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give a program its input, and room to write ahead of who reads."""
    if process.stdin is not None and process.stdout is not None:
        with suppress(BrokenPipeError):  # it ended at once: its output says why
            process.stdin.write(data)
            process.stdin.close()
        with suppress(OSError, AttributeError):  # only faster
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _start(command: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    clean = {name: os.environ[name] for name in _KEEP if name in os.environ}
    clean.update(environment or {})
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed(f"{command[0]} cannot be started: {error.strerror}.") from error


def _too_slow(command: Sequence[str], seconds: float) -> ProgramFailed:
    return ProgramFailed(f"{command[0]} did not end within {seconds:.0f} s and was stopped.")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    _kill_group(process)
    process.communicate()
