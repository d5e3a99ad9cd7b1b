"""SQLite's own programs as oracles: its shell, and `sqldiff`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.services.report import missing

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SqliteTools:
    """The programs of Debian's `sqlite3` and `sqlite3-tools`."""

    shell: str
    sqldiff: str

    def ask(self, database: Path, *commands: str) -> bytes:
        """Return what the shell answers; a complaint of its fails the test."""
        done = subprocess.run(
            [self.shell, "-bail", "-batch", database, *commands], capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b""), (database, commands, done.stderr)
        return done.stdout

    def diff(self, first: Path, second: Path) -> bytes:
        """Return the SQL that makes the second database of the first; nothing when they hold the same."""
        done = subprocess.run([self.sqldiff, first, second], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), (first, second, done.stderr)
        return done.stdout


@pytest.fixture(scope="session")
def sqlite_tools(pytestconfig: pytest.Config) -> SqliteTools:
    """Return SQLite's shell and `sqldiff`."""
    found = {program: shutil.which(program) for program in ("sqlite3", "sqldiff")}
    if not all(found.values()):
        missing(pytestconfig, "sqlite3 and sqldiff", "apt install sqlite3 sqlite3-tools")
    return SqliteTools(str(found["sqlite3"]), str(found["sqldiff"]))
