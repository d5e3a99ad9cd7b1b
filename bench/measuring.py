"""Run a command and say what it and its children cost."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU (user and system) and wall in seconds, peak memory of all its processes together in bytes."""

    code: int
    cpu: float
    wall: float
    memory: int


def run_measured(command: str, *, folder: Path, env: Mapping[str, str], log: Path) -> Cost:
    """Run a shell command line; its output goes to the end of the log."""
    with log.open("ab") as output:
        output.write(f"$ {command}\n".encode())
        output.flush()
        begun = time.perf_counter()
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        memory = _MemoryWatch(process.pid)
        memory.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    # Not ru_maxrss: what this process held when it forked would count.
    return Cost(process.returncode, usage.ru_utime + usage.ru_stime, wall, memory.stop())


class _MemoryWatch(threading.Thread):
    """Samples the resident memory of a process and all its children.

    The kernel keeps the peak of each process, so that a short one is seen as well. A child that has not
    yet started its program is in the memory of its parent, and counts with it.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self._peak = 0

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, _tree_memory(self._pid))

    def stop(self) -> int:
        """Return the most bytes that were seen."""
        self._ended.set()
        self.join()
        return self._peak


def _tree_memory(pid: int, parent: tuple[bytes, int] | None = None) -> int:
    process = Path("/proc", str(pid))
    try:
        program = (process / "cmdline").read_bytes()
        lines = (process / "status").read_text().splitlines()
        held = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
        children = [
            int(child)
            for task in (process / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        peak = int(held["VmHWM"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        return 0  # it has just ended
    if (program, peak) == parent:
        return 0
    return peak + sum(_tree_memory(child, (program, peak)) for child in children)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def machine() -> dict[str, str]:
    """Say on what the figures were measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{int(memory) / (1 << 20):.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def version_of(program: str) -> str:
    """Return the first line a program says about its version, or empty when it is missing."""
    found = shutil.which(program)
    if found is None:
        return ""
    argument = "version" if Path(found).name == "restic" else "--version"
    done = subprocess.run([found, argument], check=False, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
