"""Databases with a large log, and databases beyond the sizes where something begins that small ones lack."""

from __future__ import annotations

import filecmp
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World
    from tests.services.sqlite_tools import SqliteTools

_MIB = 1 << 20
# SQLite locks bytes there, and keeps nothing in the page that they lie in.
_LOCK_BYTES = 1 << 30
_MINUTES = 900


def fill(path: Path, size: int, *, page_size: int = 4096, mode: str = "delete") -> None:
    """Make a database that is larger than this, with rows that can be told apart at both ends."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size={page_size}")
        db.execute(f"PRAGMA journal_mode={mode}")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE photo(id INTEGER PRIMARY KEY, body BLOB, name TEXT)")
        db.execute("CREATE INDEX by_name ON photo(name)")
        for number in range(size // _MIB + 1):
            db.execute("INSERT INTO photo VALUES (?, zeroblob(1048576), hex(randomblob(500)))", (number,))
    assert path.stat().st_size > size


def back_up(world: World, path: Path) -> Done:
    done = world.run(
        "run", world.storage, "--key-file", world.key, "--sqlite", f"big={path}", "--json", timeout=_MINUTES
    )
    assert done.status == 0, done.out
    return done


def restore(world: World, *how: object) -> None:
    done = world.run(
        "restore", "latest", world.storage, "--key-file", world.key, *how, "--json", timeout=_MINUTES
    )
    assert done.status == 0, done.out
    assert done.result.get("problems", []) == []


def test_a_log_of_a_hundred_megabytes_is_in_the_snapshot(world: World, sqlite_tools: SqliteTools) -> None:
    live = world.root / "big.db"
    fill(live, 5 * _MIB, mode="wal")
    world.init()
    with closing(sqlite3.connect(live, isolation_level=None)) as app:
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute("PRAGMA synchronous=OFF")
        for number in range(100, 202):
            app.execute("INSERT INTO photo VALUES (?, randomblob(1048576), 'in the log')", (number,))
        app.execute("DELETE FROM photo WHERE id < 3")
        assert live.with_name("big.db-wal").stat().st_size > 100 * _MIB
        back_up(world, live)
        wanted = sqlite_tools.ask(live, ".sha3sum --schema")

    restore(world, "--to", world.root / "out")

    restored = world.root / "out/databases/big.sqlite"
    assert sqlite_tools.ask(restored, ".sha3sum --schema") == wanted
    assert sqlite_tools.ask(restored, "SELECT count(*) FROM photo WHERE name = 'in the log'") == b"102\n"
    assert sqlite_tools.ask(restored, "PRAGMA integrity_check") == b"ok\n"


@pytest.mark.long(minutes=3)
@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_beyond_the_lock_bytes_comes_back(
    world: World, sqlite_tools: SqliteTools, mode: str, page_size: int
) -> None:
    live = world.root / "big.db"
    fill(live, _LOCK_BYTES + 20 * _MIB, page_size=page_size, mode=mode)
    world.init()
    back_up(world, live)

    restore(world, "--to", world.root / "out")

    restored = world.root / "out/databases/big.sqlite"
    assert filecmp.cmp(restored, live, shallow=False)
    wanted = sqlite_tools.ask(restored, ".sha3sum")
    restored.unlink()
    with closing(sqlite3.connect(live, isolation_level=None)) as app:
        app.execute("DELETE FROM photo WHERE id > 20")
        app.execute("VACUUM")  # now it ends far before the lock bytes

        restore(world, "--in-place", "--sqlite", f"big={live}", "--yes")

        assert app.execute("SELECT count(*) FROM photo").fetchone() == ((_LOCK_BYTES // _MIB) + 21,)
    assert sqlite_tools.ask(live, ".sha3sum") == wanted
    assert sqlite_tools.ask(live, "PRAGMA quick_check") == b"ok\n"


@pytest.mark.long(minutes=5)
def test_a_database_beyond_four_gigabytes_comes_back(world: World) -> None:
    live = world.root / "big.db"
    fill(live, (4 << 30) + 20 * _MIB, page_size=8192)
    world.init()
    first = back_up(world, live)
    with closing(sqlite3.connect(live)) as app, app:
        app.execute("UPDATE photo SET name = 'at the end' WHERE id = (SELECT max(id) FROM photo)")
    second = back_up(world, live)

    restore(world, "--to", world.root / "out")

    restored = world.root / "out/databases/big.sqlite"
    assert filecmp.cmp(restored, live, shallow=False)
    assert second.result["new_bytes"] < first.result["new_bytes"] / 10
    restored.unlink()
