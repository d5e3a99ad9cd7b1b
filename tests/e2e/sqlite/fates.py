"""What may have become of a live database since it was backed up."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.e2e.sqlite.kinds import KINDS, PLAIN, Kind, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Dies with a transaction half done: in rollback mode it leaves a hot journal, in WAL mode a log.
_KILLED = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size=1")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("UPDATE guest SET note = 'committed'")
db.execute("BEGIN")
db.execute("UPDATE guest SET note = 'torn'")
os.kill(os.getpid(), 9)
"""


@dataclass(frozen=True, slots=True)
class Fate:
    """A database when it is backed up, and what happens to it then.

    `stays_open` says that the app has it open while it is restored, `usable` that it is a database.
    """

    happens: Callable[[Path], object]
    kind: Kind = field(default_factory=Kind)
    stays_open: bool = True
    usable: bool = True


def anew(kind: Kind) -> Callable[[Path], object]:
    """Let the app have made a new database of this kind."""

    def happen(path: Path) -> None:
        path.unlink()
        make(kind, path)

    return happen


def run(*statements: str) -> Callable[[Path], object]:
    """Let the app have carried out some statements."""

    def happen(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement).fetchall()

    return happen


def die(path: Path) -> None:
    """Let the app have died while it wrote."""
    subprocess.run([sys.executable, "-c", _KILLED, path], check=False)
    left = [path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal")]
    assert any(one.exists() and one.stat().st_size for one in left)


def die_and_lose_the_file(path: Path) -> None:
    """Leave nothing but what a dead app left beside its database."""
    die(path)
    path.unlink()


def overwrite(data: bytes) -> Callable[[Path], object]:
    """Let somebody have written something else over the file."""
    return lambda path: path.write_bytes(data)


def damage(path: Path) -> None:
    """Let the disk have lost pages in the middle."""
    with path.open("r+b") as file:
        file.seek(4096 + 50)
        file.write(os.urandom(20_000))


def cut(path: Path) -> None:
    """Let the file have been cut in half."""
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def give_away(path: Path) -> None:
    """Let it belong to the app's user, who lets the group read it."""
    if os.geteuid() == 0:
        shutil.chown(path, 1234, 1235)
    path.chmod(0o640)


_SMALL = Kind(pragmas=("PRAGMA page_size=1024",))
_SMALL_WAL = Kind(pragmas=("PRAGMA page_size=1024",), journal="wal")
_WAL = Kind(journal="wal")
_OURS = KINDS["what-only-the-app-knows"]
_EXTERNAL = KINDS["full-text-external"]

FATES: dict[str, Fate] = {
    "now-in-wal-mode": Fate(run("PRAGMA journal_mode=wal", "DELETE FROM guest")),
    "no-more-in-wal-mode": Fate(run("PRAGMA journal_mode=delete", "DELETE FROM guest"), _WAL),
    "now-with-a-persistent-journal": Fate(run("PRAGMA journal_mode=persist", "DELETE FROM guest"), _WAL),
    "vacuumed": Fate(run("DELETE FROM guest WHERE rowid % 2", "VACUUM")),
    "vacuumed-in-wal-mode": Fate(run("DELETE FROM guest WHERE rowid % 2", "VACUUM"), _WAL),
    "smaller-pages": Fate(anew(_SMALL)),
    "larger-pages": Fate(anew(Kind()), _SMALL),
    "smaller-pages-in-wal-mode": Fate(anew(_SMALL_WAL), _WAL),
    "larger-pages-in-wal-mode": Fate(anew(_WAL), _SMALL_WAL),
    "other-pages-and-a-full-text-index": Fate(anew(_SMALL_WAL), _EXTERNAL),
    "other-pages-and-what-only-the-app-knows": Fate(anew(_SMALL), _OURS),
    "other-pages-in-wal-mode-and-what-only-the-app-knows": Fate(anew(_SMALL_WAL), _OURS, stays_open=False),
    "other-reserved-bytes": Fate(anew(Kind()), Kind(reserved=40)),
    "no-more-reserved-bytes": Fate(anew(Kind(reserved=40)), _WAL),
    "now-vacuums-itself": Fate(anew(Kind(pragmas=("PRAGMA auto_vacuum=full",)))),
    "no-longer-vacuums-itself": Fate(anew(Kind()), Kind(pragmas=("PRAGMA auto_vacuum=incremental",))),
    "other-encoding": Fate(anew(Kind(pragmas=("PRAGMA encoding='UTF-16le'",))), stays_open=False),
    "other-tables": Fate(anew(KINDS["many-tables"])),
    "larger": Fate(run("INSERT INTO guest SELECT name, hex(randomblob(3000)) FROM guest")),
    "larger-in-wal-mode": Fate(run("INSERT INTO guest SELECT name, hex(randomblob(3000)) FROM guest"), _WAL),
    "killed": Fate(die, stays_open=False),
    "killed-in-wal-mode": Fate(die, _WAL, stays_open=False),
    "no-more-tables": Fate(anew(KINDS["nothing-at-all"])),
    "empty": Fate(overwrite(b""), stays_open=False, usable=False),
    "empty-and-of-small-pages": Fate(overwrite(b""), _SMALL, stays_open=False, usable=False),
    "gone": Fate(os.unlink, stays_open=False, usable=False),
    "gone-but-for-a-hot-journal": Fate(die_and_lose_the_file, stays_open=False, usable=False),
    "gone-but-for-a-wal": Fate(die_and_lose_the_file, _WAL, stays_open=False, usable=False),
    "overwritten": Fate(overwrite(b"no database at all" * 5000), stays_open=False, usable=False),
    "damaged": Fate(damage, stays_open=False, usable=False),
    "damaged-in-wal-mode": Fate(damage, _WAL, stays_open=False, usable=False),
    "cut": Fate(cut, stays_open=False, usable=False),
    "of-another-owner": Fate(give_away, Kind((*PLAIN, "CREATE TABLE other(a)"))),
}
