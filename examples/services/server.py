"""Start a server program that ends with us, and wait until it answers."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READY_SECONDS = 10.0
STOP_SECONDS = 10.0
LOG_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerError(Exception):
    """A server is missing or did not come up; the message says what to do."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers; `process` is None when it was running before us."""

    url: str
    program: Path
    start_seconds: float
    process: subprocess.Popen[bytes] | None

    def stop(self) -> None:
        """Stop it and wait; a server we did not start is left alone."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(
    arguments: Sequence[str],
    *,
    url: str,
    log: Path,
    is_ready: Callable[[], bool],
    ready_seconds: float = READY_SECONDS,
) -> RunningServer:
    """Start a program and return once `is_ready` says so, or raise `ServerError` when it takes too long.

    It gets its own session, so that Ctrl-C reaches only us and we stop it in
    order, and it is told to end when the thread that called this does: call it
    from the main thread.
    """
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, no lock
        )
    try:
        _wait_until_ready(process, is_ready, log, ready_seconds)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return RunningServer(
        url=url,
        program=Path(arguments[0]),
        start_seconds=time.monotonic() - began,
        process=process,
    )


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent is killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready():
        if process.poll() is not None:
            raise ServerError(f"{_name(process)}: ended at once.\n{_tail(log)}")
        if time.monotonic() > deadline:
            waited = f"not ready in {seconds:.0f} s"
            raise ServerError(f"{_name(process)}: {waited}.\n{_tail(log)}")
        time.sleep(0.02)


def _name(process: subprocess.Popen[bytes]) -> str:
    arguments = process.args
    return str(arguments[0] if isinstance(arguments, list | tuple) else arguments)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])
