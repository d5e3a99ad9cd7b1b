"""Take the safety checks of the product away, one at a time, and see a test fail for each.

Run by `dev.py test --mutants`; arguments choose the checks whose title holds one of them.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from tests.mutants.checks import CHECKS, Check

ROOT = Path(__file__).parents[2]
AT_ONCE = 2
SECONDS = 600
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "node_modules")
FAILED = 1  # what pytest returns when tests failed, and not when something else went wrong


@dataclass(frozen=True)
class Verdict:
    """What became of one check taken away."""

    check: Check
    outcome: str
    seconds: float

    @property
    def is_caught(self) -> bool:
        return self.outcome == "caught"


def main(words: list[str]) -> int:
    """Print a table; return 1 when a check can be taken away and no test fails."""
    chosen = [check for check in CHECKS if not words or any(word in check.title for word in words)]
    with (
        TemporaryDirectory(prefix="mutants-", dir=_quick_place()) as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(AT_ONCE):
            copies.put(_copy(Path(folder, str(number))))
        tests = sorted({test for check in chosen for test in check.tests})
        parts = [tests[number::AT_ONCE] for number in range(AT_ONCE)]
        if complaints := [text for text in pool.map(lambda part: _complaint(copies, part), parts) if text]:
            _say(f"The tests fail before anything is taken away:\n{complaints[0]}")
            return 1
        verdicts = list(pool.map(lambda check: _judge(copies, check), chosen))
    caught = sum(verdict.is_caught for verdict in verdicts)
    _say(f"{caught} of {len(verdicts)} checks are guarded by a test.")
    return 0 if verdicts and caught == len(verdicts) else 1


def _quick_place() -> str | None:
    """Return a place in memory, where syncing costs nothing."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _copy(target: Path) -> Path:
    """Copy the tree, compiled: what is changed later is compiled anew, since its time differs."""
    shutil.copytree(ROOT, target, ignore=NOT_COPIED, symlinks=True)
    compileall.compile_dir(target, quiet=2)
    return target


def _complaint(copies: SimpleQueue[Path], tests: list[str]) -> str:
    """Run tests that are to fail later; return what fails already."""
    copy = copies.get()
    try:
        done = _run_tests(copy, tuple(tests))
    finally:
        copies.put(copy)
    return "" if done.returncode == 0 or not tests else done.stdout[-4000:]


def _judge(copies: SimpleQueue[Path], check: Check) -> Verdict:
    copy = copies.get()
    begin = time.monotonic()
    path = copy / check.file
    text = path.read_text()
    try:
        outcome = f"found {text.count(check.old)} times"
        if text.count(check.old) == 1:
            path.write_text(text.replace(check.old, check.new))
            outcome = _outcome(copy, check)
    finally:
        path.write_text(text)
        copies.put(copy)
    verdict = Verdict(check, outcome, time.monotonic() - begin)
    _say(f"{verdict.seconds:5.1f} s  {outcome:12}  {check.title}")
    return verdict


def _outcome(copy: Path, check: Check) -> str:
    try:
        done = _run_tests(copy, check.tests)
    except subprocess.TimeoutExpired:
        return "TIMED OUT"
    if done.returncode == FAILED:
        return "caught"
    return "SURVIVED" if done.returncode == 0 else f"BROKEN ({done.returncode})"


def _run_tests(copy: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    options = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=1"]
    options += ["--hypothesis-profile=unshrunk", f"--basetemp={copy}.tmp"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        check=False,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
