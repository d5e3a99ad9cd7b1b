"""Processes beside a worker: they end with it, and begin again when they end before it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 30


class Companions:
    """The companions of this process, by name. Each is a loop that runs in a process of its own."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._loops: dict[str, Callable[[], None]] = {}
        self._processes: dict[str, multiprocessing.process.BaseProcess] = {}

    def start(self, name: str, loop: Callable[[], None]) -> None:
        """Start a loop; best before this process has threads or connections, which are not the loop's."""
        self._loops[name] = loop
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_accompany, args=(loop, self._owner), name=name, daemon=True)
        process.start()
        self._processes[name] = process

    def revive(self) -> None:
        """Start again what has ended; does nothing in a child of the process they belong to."""
        if os.getpid() != self._owner:
            return
        for name, process in tuple(self._processes.items()):
            if not process.is_alive():
                self.start(name, self._loops[name])

    def stop(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()
        self._processes = {}


def die_with(parent: int) -> bool:
    """Ask for SIGTERM when the parent dies; False when it is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def _accompany(loop: Callable[[], None], parent: int) -> None:
    # The worker decides when we end; what it does on a signal is not for us.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if die_with(parent):
        loop()
