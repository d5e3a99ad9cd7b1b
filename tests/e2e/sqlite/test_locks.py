"""The process of the app opens no live database: closing it would drop the locks of its connections."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import World, make_database

if TYPE_CHECKING:
    from pathlib import Path

# Writes down every database that this process opens, by Python's own calls or by SQLite. A process it
# starts has another program, and no such hook.
_WATCHED = """
import os, sys
live, log = os.fsencode(sys.argv[1]), sys.argv[2]
def hook(event, arguments):
    if event in ("open", "sqlite3.connect") and isinstance(arguments[0], (str, bytes)):
        if live in os.fsencode(arguments[0]):
            os.write(seen, f"{event} {arguments[0]}\\n".encode())
seen = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(hook)
from backup_admin.cli.main import run
sys.exit(run(sys.argv[3:]))
"""


def watched(world: World, log: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WATCHED, "live.db", log, *map(str, arguments)],
        cwd=world.root,
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(world.state)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_no_verb_opens_a_live_database_in_its_own_process(world: World, mode: str) -> None:
    live = world.files / "live.db"
    make_database(live)
    with closing(sqlite3.connect(live)) as db:
        db.execute(f"PRAGMA journal_mode={mode}")
    world.init()
    log = world.root / "opened"
    key = ("--key-file", world.key)
    sources = ("--files", f"files={world.files}", "--sqlite", f"app={live}")
    in_place = ("restore", "latest", world.storage, *key, "--in-place", *sources)

    with closing(sqlite3.connect(live, isolation_level=None)) as app:
        app.execute("DELETE FROM item WHERE id % 2")  # in WAL mode, something is in the log
        for arguments in (
            ("run", world.storage, *key, *sources),
            ("run", world.storage, *key, *sources),
            (*in_place, "--dry-run"),
            (*in_place, "--yes"),
            ("undo", "--yes"),
            ("recover",),
        ):
            done = watched(world, log, *arguments)
            assert done.returncode == 0, done.stderr
        assert app.execute("SELECT count(*) FROM item").fetchone() == (50,)

    assert log.read_text() == ""


def test_the_control_an_opened_database_is_written_down(world: World) -> None:
    live = world.files / "live.db"
    make_database(live)
    peek = _WATCHED.replace("from backup_admin", f"open({str(live)!r}).close()\nfrom backup_admin")

    subprocess.run([sys.executable, "-c", peek, "live.db", world.root / "opened", "--help"], check=False)

    assert (world.root / "opened").read_text() == f"open {live}\n"
