"""What happens when a test needs a service, and what the closing summary says."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

_LINES = pytest.StashKey[list[str]]()
_STRICT = "BACKUP_ADMIN_TEST_STRICT"


def announce(config: pytest.Config, name: str, version: str, source: str, start_seconds: float) -> None:
    """Note that a service is up; the closing summary shows one line for it."""
    line = f"{name}: {version} ({source}), up in {start_seconds:.2f} s"
    config.stash.setdefault(_LINES, []).append(line)


def missing(config: pytest.Config, name: str, advice: str) -> NoReturn:
    """Skip the test on a laptop, fail it in CI; both say what to install."""
    config.stash.setdefault(_LINES, []).append(f"{name}: MISSING, {advice}")
    if os.environ.get(_STRICT) == "1":
        pytest.fail(f"{name} is missing: {advice}", pytrace=False)
    pytest.skip(f"{name} is missing: {advice}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("services")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)
