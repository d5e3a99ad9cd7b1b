"""The one place that starts programs: a list, never a shell, always a timeout."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from backup_admin.core.errors import ProgramFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_PIPE_BYTES = 1 << 20
_LINE_BYTES = 64 << 10
_LAST_WORDS_SECONDS = 5.0
# A function of ours between fork and exec could hang where threads are; a process of its own cannot.
_BIND_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_KEEP = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left behind."""

    status: int
    output: bytes
    errors: bytes

    def end(self) -> str:
        """Say how it ended: its status and its last words."""
        last = self.errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"with status {self.status}{': ' if last else ''}{last[:300]}"


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
        raise ProgramFailed(
            f"{command[0]} did not end within {timeout_seconds:.0f} s and was stopped."
        ) from error
    except BaseException:
        _end_group(process)
        raise
    return Finished(process.returncode, output, errors)


class ProgramOutput:
    """What a running program writes, to be read while it works."""

    def __init__(
        self, process: subprocess.Popen[bytes], name: str, silence_seconds: float, errors: IO[bytes]
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._name = name
        self._seconds = silence_seconds
        self._errors = errors
        self._handle = -1 if process.stdout is None else process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLIN)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read what there is, at least one byte; 0 when it ended.

        Raises `ProgramFailed` when nothing comes for too long. How long the reader
        takes with what came does not count.
        """
        _await(self._poll, self._name, "said nothing for", self._seconds)
        return os.readv(self._handle, [buffer])

    def end(self) -> str:
        """Say how the program ended, when it wrote all it had to; raise `ProgramFailed` when it hangs."""
        return self.finished().end()

    def finished(self) -> Finished:
        """Return how the program ended; its output was read. Raises `ProgramFailed` when it hangs."""
        try:
            status = self._process.wait(self._seconds)
        except subprocess.TimeoutExpired as error:
            raise ProgramFailed(f"{self._name} did not end and was stopped.") from error
        self._errors.seek(0)
        return Finished(status, b"", self._errors.read())


@contextmanager
def stream_program(
    command: Sequence[str],
    *,
    silence_seconds: float,
    data: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Iterator[ProgramOutput]:
    """Run a program while the block reads its output; it does not outlive the block.

    It gets `data`, which fits into a pipe, and a small environment of its own. Raises
    `ProgramFailed` when it cannot start.
    """
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads would fill up
        process = _start(command, environment, errors)
        try:
            _hand_in(process, data)
            yield ProgramOutput(process, command[0], silence_seconds, errors)
        finally:
            _kill_group(process)
            if process.stdout is not None:
                process.stdout.close()
            process.wait()


class Conversation:
    """A program that answers on its output what it is asked on its input, one side at a time."""

    def __init__(self, command: Sequence[str], *, silence_seconds: float) -> None:
        """Start it with a small environment of its own; raise `ProgramFailed` when that cannot be."""
        self._name = command[0]
        self._seconds = silence_seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        try:
            self._process = _start(command, None, self._errors)
        except BaseException:
            self._errors.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._output(), select.POLLIN)
        self._taking = select.poll()
        self._taking.register(self._input(), select.POLLOUT)
        self._either = select.poll()
        self._either.register(self._output(), select.POLLIN)
        self._either.register(self._input(), select.POLLOUT)
        os.set_blocking(self._input(), False)
        _widen(self._input())
        self._ahead = b""

    def say(self, data: bytes | memoryview, seconds: float | None = None) -> None:
        """Hand a line in, or bytes; raise `ProgramFailed` when it takes nothing for too long."""
        left = memoryview(data)
        while left:
            _await(self._taking, self._name, "took nothing for", seconds or self._seconds)
            with suppress(BlockingIOError):
                left = left[os.write(self._input(), left[:_PIPE_BYTES]) :]

    def offer(self, data: bytes | memoryview, seconds: float | None = None) -> None:
        """Hand bytes in until it has them all, or answers before: then it takes no more of them.

        A program that goes on for others may keep its input open without reading from it.
        """
        left = memoryview(data)
        while left:
            _await(self._either, self._name, "took nothing for", seconds or self._seconds)
            if self._poll.poll(0):
                return
            with suppress(BlockingIOError):
                left = left[os.write(self._input(), left[:_PIPE_BYTES]) :]

    def line(self, seconds: float | None = None) -> bytes:
        """Read a line without its end; raise `ProgramFailed` when it ends or is silent for too long."""
        while b"\n" not in self._ahead:
            self._ahead += self._more(_LINE_BYTES, seconds)
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line

    def readinto(self, view: memoryview) -> None:
        """Fill a view; raise `ProgramFailed` when it ends before or is silent for too long."""
        done = min(len(self._ahead), len(view))
        view[:done] = self._ahead[:done]
        self._ahead = self._ahead[done:]
        while done < len(view):
            self._wait()
            count = os.readv(self._output(), [view[done:]])
            if count == 0:
                raise self._ended()
            done += count

    def skip(self, count: int) -> None:
        """Read so many bytes and drop them."""
        self.readinto(memoryview(bytearray(count)))

    def close(self) -> None:
        """End it at once; may be called again."""
        _kill_group(self._process)
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                with suppress(OSError):  # what it did not read is lost with it
                    end.close()
        self._process.wait()
        self._errors.close()

    def _output(self) -> int:
        return -1 if self._process.stdout is None else self._process.stdout.fileno()

    def _input(self) -> int:
        return -1 if self._process.stdin is None else self._process.stdin.fileno()

    def _more(self, most: int, seconds: float | None) -> bytes:
        self._wait(seconds)
        data = os.read(self._output(), most)
        if not data:
            raise self._ended()
        return data

    def _wait(self, seconds: float | None = None) -> None:
        _await(self._poll, self._name, "said nothing for", seconds or self._seconds)

    def _ended(self) -> ProgramFailed:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_SECONDS)
        self._errors.seek(0)
        last = Finished(self._process.returncode or 0, b"", self._errors.read())
        return ProgramFailed(f"{self._name}: the link ended {last.end()}")


def _hand_in(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give a program its input, and room to write ahead of who reads."""
    if process.stdin is not None and process.stdout is not None:
        with suppress(BrokenPipeError):  # it ended at once: its output says why
            process.stdin.write(data)
            process.stdin.close()
        _widen(process.stdout.fileno())


def _widen(pipe: int) -> None:
    with suppress(OSError, AttributeError):  # only faster
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _await(poll: select.poll, name: str, lack: str, seconds: float) -> None:
    if not poll.poll(seconds * 1000):
        raise ProgramFailed(f"{name} {lack} {seconds:.0f} s and was stopped.")


def _start(
    command: Sequence[str], environment: Mapping[str, str] | None, errors: int | IO[bytes] = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    clean = {name: os.environ[name] for name in _KEEP if name in os.environ}
    clean.update(environment or {})
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=clean,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed(f"{command[0]} cannot be started: {error.strerror}.") from error


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    _kill_group(process)
    process.communicate()


class Companion:
    """A program that runs beside us until it is told to stop, or we end; what it says goes to a file."""

    def __init__(self, command: Sequence[str], *, log: Path, kept: int) -> None:
        """Start it; it holds the descriptor `kept` as long as it lives. Raises `ProgramFailed`.

        The thread that starts it must be the one that lives longest: it is told to end when that ends.
        """
        clean = {name: os.environ[name] for name in _KEEP if name in os.environ}
        bound = [sys.executable, "-I", "-S", "-c", _BIND_TO_PARENT, str(os.getpid()), *command]
        with log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    bound,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=clean,
                    start_new_session=True,
                    pass_fds=(kept,),
                )
            except OSError as error:
                raise ProgramFailed(f"{command[0]} cannot be started: {error.strerror}.") from error
        self.pid = self._process.pid

    def status(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._process.poll()

    def stop(self, *, seconds: float) -> None:
        """Ask it to end, and end it when it does not; may be called again."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            _kill_group(self._process)
            self._process.wait()
