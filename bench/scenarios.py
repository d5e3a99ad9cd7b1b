"""Single questions about our tool alone: many files, big files, a year of changes, start-up."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

from bench.gates import MIB, Gate
from bench.index_size import measure_index
from bench.measuring import Cost, folder_bytes, run_measured
from bench.paired import different_files
from bench.site_database import make_database
from bench.tools import our_tool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_GB = 10**9
_SETTLE_SECONDS = 2.2
_PIECE = 16 * MIB
_FILES_IN_FOLDER = 1_000


class Workshop:
    """A work folder with a repository of ours; every command in it has to succeed."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self._env = {name: value.format(tmp=str(folder)) for name, value in our_tool().env.items()}
        self.run("init repo --key-file key --recovery-file recovery")

    def run(self, arguments: str) -> Cost:
        """Run `backup-admin` in the work folder."""
        log = self.folder / "log.txt"
        cost = run_measured(f"backup-admin {arguments}", folder=self.folder, env=self._env, log=log)
        if cost.code != 0:
            raise SystemExit(f"backup-admin {arguments} failed with code {cost.code}; see {log}")
        return cost

    def stored_bytes(self) -> int:
        """Return the size of the repository."""
        return folder_bytes(self.folder / "repo")


def startup(work: Path, scale: float) -> list[Gate]:
    """Measure `backup-admin list` of a repository with one snapshot, five times."""
    shop = Workshop(work / "startup")
    (shop.folder / "tree").mkdir()
    (shop.folder / "tree/file").write_bytes(bytes(1000))
    shop.run("run repo --files app=tree")
    costs = [shop.run("list repo") for _ in range(max(1, round(5 * scale)))]
    return [Gate("list: CPU seconds", median(cost.cpu for cost in costs), 0.25)]


def skipping(work: Path, scale: float) -> list[Gate]:
    """Ask five times whether an idle database of 500 MB, with something in its log, has to be backed up."""
    shop = Workshop(work / "skipping")
    with closing(sqlite3.connect(shop.folder / "app.db", isolation_level=None)) as app:
        app.execute("PRAGMA journal_mode=WAL")
        app.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, content BLOB)")
        numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        count = max(1, round(500_000 * scale))
        app.execute(f"INSERT INTO page {numbers} SELECT i, randomblob(900) FROM n", (count,))
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        app.execute("INSERT INTO page VALUES (0, x'00')")
        time.sleep(_SETTLE_SECONDS)
        shop.run("run repo --sqlite app=app.db")
        ask = "run repo --sqlite app=app.db --if-changed --ignore-table app.none"
        shop.run(ask)
        before = shop.stored_bytes()
        listed = median(shop.run("list repo").cpu for _ in range(5))
        looks = [shop.run(ask) for _ in range(5)]
    return [
        # Most of it is for loading what a backup needs, which `list` does without.
        Gate("idle database: CPU seconds of a look, over `list`", median(c.cpu for c in looks) - listed, 0.1),
        Gate("idle database: bytes stored by a run that is skipped", shop.stored_bytes() - before, 0),
    ]


def million(work: Path, scale: float) -> list[Gate]:
    """Back up a million small files, and again when nothing has changed."""
    shop = Workshop(work / "million")
    _small_files(shop.folder / "tree", round(1_000_000 * scale))
    first = shop.run("run repo --files app=tree")
    before = shop.stored_bytes()
    again = shop.run("run repo --files app=tree")
    _print_cost("a million files, first", first)
    _print_cost("a million files, unchanged", again)
    return [
        Gate("a million files, unchanged: CPU seconds", again.cpu, 10 * scale),
        Gate("a million files, unchanged: peak memory, MiB", again.memory / MIB, 160),
        Gate("a million files, unchanged: bytes stored", shop.stored_bytes() - before, 20_000),
    ]


def bigfile(work: Path, scale: float) -> list[Gate]:
    """Back up and restore a file of 5 GB of noise and one of 20 GB with holes: memory must not grow."""
    gates = []
    kinds: dict[str, Callable[[Path], None]] = {
        "5 GB": lambda path: _dense(path, round(5 * _GB * scale)),
        "20 GB with holes": lambda path: _sparse(path, round(20 * _GB * scale)),
    }
    for name, make in kinds.items():
        shop = Workshop(work / "bigfile")
        (shop.folder / "tree").mkdir()
        make(shop.folder / "tree/big.bin")
        for act, limit in (
            ("run repo --files app=tree", 160),
            ("restore latest repo --to back", 128),
            ("check repo --read-data", 128),
        ):
            cost = shop.run(act)
            _print_cost(f"{name}, {act.split()[0]}", cost)
            gates.append(Gate(f"{name}, {act.split()[0]}: peak memory, MiB", cost.memory / MIB, limit))
        wrong = different_files(shop.folder / "tree", shop.folder / "back/files/app")
        gates.append(Gate(f"{name}: files restored wrong", wrong, 0))
        shutil.rmtree(shop.folder)
    return gates


def year(work: Path, scale: float) -> list[Gate]:
    """Restore a database after a year of small changes, compared with one backed up once."""
    old, fresh = Workshop(work / "year"), Workshop(work / "fresh")
    database = old.folder / "site.db"
    chance = random.Random("year")
    make_database(database, round(300_000 * scale), chance)
    for day in range(max(2, round(365 * scale))):
        _small_change(database, chance, day)
        old.run("run repo --sqlite site=site.db")
    shutil.copyfile(database, fresh.folder / "site.db")
    fresh.run("run repo --sqlite site=site.db")
    old_cost, fresh_cost = (_restores(shop) for shop in (old, fresh))
    size = database.stat().st_size
    print(f"database {size / 1e6:.1f} MB; stored after a year {old.stored_bytes() / 1e6:.1f} MB")
    return [
        Gate("after a year: restore CPU / fresh", old_cost[0] / fresh_cost[0], 1.5),
        Gate("after a year: restore wall / fresh", old_cost[1] / fresh_cost[1], 1.5),
    ]


def index(work: Path, scale: float) -> list[Gate]:
    """Measure the index of ten million chunks."""
    folder = work / "index"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = measure_index(folder, round(10_000_000 * scale))
    shutil.rmtree(folder)
    print(found)
    return [
        Gate("index: megabytes on disk", found.cache_bytes / 1e6, max(1.0, 520 * scale)),
        Gate("index: heap, MiB", found.heap_bytes / MIB, 100),
        Gate("index: hits in a CPU second", found.hits_per_cpu_second, 150_000, at_least=True),
        Gate("index: misses in a CPU second", found.misses_per_cpu_second, 150_000, at_least=True),
        Gate("index: CPU seconds to open", found.load_cpu, 0.1),
    ]


def _print_cost(name: str, cost: Cost) -> None:
    print(f"{name}: CPU {cost.cpu:.2f} s, wall {cost.wall:.2f} s, peak {cost.memory / MIB:.0f} MiB")


def _small_files(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"{number // _FILES_IN_FOLDER:04d}"
        if number % _FILES_IN_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"file_{number:07d}.txt").write_text(f"note {number}\n")


def _dense(path: Path, size: int) -> None:
    chance = random.Random("dense")
    with path.open("wb") as file:
        for at in range(0, size, _PIECE):
            file.write(chance.randbytes(min(_PIECE, size - at)))


def _sparse(path: Path, size: int) -> None:
    chance = random.Random("sparse")
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, max(_PIECE, size // 20)):
            file.seek(at)
            file.write(chance.randbytes(min(MIB, size - at)))


def _small_change(path: Path, chance: random.Random, day: int) -> None:
    """Change some hundred rows all over the database, and add some."""
    with closing(sqlite3.connect(path)) as db, db:
        photos = db.execute("SELECT max(id) FROM photos").fetchone()[0]
        seen = [(chance.randrange(1, photos + 1),) for _ in range(100)]
        db.executemany("UPDATE photos SET views = views + 1 WHERE id = ?", seen)
        db.executemany(
            "INSERT INTO visits (event_id, photo_id, action, at) VALUES (1, ?, 'view', ?)",
            [(photo, f"day {day}") for (photo,) in seen],
        )


def _restores(shop: Workshop) -> tuple[float, float]:
    """Return the medians of CPU and wall seconds of three restores."""
    costs = []
    for _ in range(3):
        shutil.rmtree(shop.folder / "back", ignore_errors=True)
        costs.append(shop.run("restore latest repo --to back"))
    return median(cost.cpu for cost in costs), median(cost.wall for cost in costs)
