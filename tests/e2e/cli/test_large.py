"""Twenty thousand files and a database under load come back exactly, elsewhere, with the recovery key."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from examples.gallery.compare import describe_tree, differences
from tests.e2e.cli.command import World

if TYPE_CHECKING:
    from pathlib import Path

_FILES = 20_000
_PER_FOLDER = 100
_ACCOUNTS = 90_000
_TOTAL = _ACCOUNTS * 1000

# Moves amounts between accounts for ever: their sum never changes.
_WRITER = """
import random, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60)
print("writing", flush=True)
while True:
    with connection:
        for _ in range(20):
            first, second = (random.randrange(1, int(sys.argv[2])) for _ in range(2))
            amount = random.randrange(100)
            connection.execute("UPDATE account SET amount = amount - ? WHERE id = ?", (amount, first))
            connection.execute("UPDATE account SET amount = amount + ? WHERE id = ?", (amount, second))
            connection.execute("INSERT INTO transfer VALUES (NULL, ?, ?, ?)", (first, second, amount))
"""


def test_large_app_under_load_comes_back_elsewhere(world: World) -> None:
    make_files(world.files)
    make_bank(world.database)
    assert world.database.stat().st_size > 100_000_000
    before = describe_tree(world.files)
    world.init()

    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, world.database, str(_ACCOUNTS)], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        done = world.back_up("--json")
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()
    assert done.status == 0, done.out
    world.key.unlink()
    elsewhere = World(world.root, world.root / "elsewhere")
    restored = elsewhere.run(
        "restore", "latest", world.storage, "--key-file", world.recovery, "--to", "out", "--json", timeout=300
    )

    assert (restored.status, restored.result["problems"]) == (0, [])
    assert restored.result["files"] == _FILES + 3
    assert differences(before, describe_tree(world.root / "out/files/files")) == []
    connection = sqlite3.connect(world.root / "out/databases/app.sqlite")
    assert connection.execute("SELECT sum(amount), count(*) FROM account").fetchone() == (_TOTAL, _ACCOUNTS)
    (moved,) = connection.execute(
        "SELECT count(*) FROM (SELECT id, 1000 + "
        "coalesce((SELECT sum(amount) FROM transfer WHERE target = account.id), 0) - "
        "coalesce((SELECT sum(amount) FROM transfer WHERE source = account.id), 0) AS expected, amount "
        "FROM account) WHERE expected != amount"
    ).fetchone()
    connection.close()
    assert moved == 0


def make_files(folder: Path) -> None:
    for number in range(_FILES):
        place = folder / f"{number // _PER_FOLDER // 20:02d}" / f"{number // _PER_FOLDER:03d}"
        if number % _PER_FOLDER == 0:
            place.mkdir(parents=True, exist_ok=True)
        path = place / f"file {number}.bin"
        path.write_bytes(os.urandom(100 + number % 3000))
        moment = time.time_ns() - number * 1_000_000_007
        os.utime(path, ns=(moment, moment))


def make_bank(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, payload BLOB)")
        connection.execute("CREATE TABLE transfer (id INTEGER PRIMARY KEY, source, target, amount)")
        connection.execute("CREATE INDEX transfer_source ON transfer (source, amount)")
        connection.execute("CREATE INDEX transfer_target ON transfer (target, amount)")
        connection.executemany(
            "INSERT INTO account VALUES (?, 1000, ?)",
            ((number, os.urandom(1100)) for number in range(1, _ACCOUNTS + 1)),
        )
    connection.close()
