"""SQLite beside its own shell, and beside the least a first backup has to do: time, memory, bytes stored."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.gates import MIB, Gate
from bench.measuring import Cost, run_measured
from bench.photo_database import ROWS, change_photos, changed_pages, make_photos
from bench.report import print_table
from bench.scenarios import Workshop
from bench.sealing import sealing

# A database that was written just now is copied in another way than one at rest.
_SETTLE_SECONDS = 2.5
_REST_SECONDS = 5
_FIRST, _DAY_2, _RESTORE = "first backup", "day 2", "restore"
_PROVEN = "as much by others"
_FLOOR = Path(__file__).with_name("floor.py")
# What a backup does while the app may have to wait for it.
_COPY = (
    "from pathlib import Path; from backup_admin.sources.sqlite import SqliteSource; "
    "SqliteSource('site', Path('site.db')).copy(Path('scratch'))"
)


@dataclass(slots=True)
class _Figures:
    """What each command cost, run by run, and what was stored on day 2 beside what changed."""

    costs: dict[tuple[str, str], list[Cost]] = field(default_factory=dict)
    growth: list[tuple[int, int]] = field(default_factory=list)

    def note(self, phase: str, tool: str, cost: Cost) -> None:
        self.costs.setdefault((phase, tool), []).append(cost)
        print(
            f"{phase}, {tool}: CPU {cost.cpu:.2f} s, wall {cost.wall:.2f} s, {cost.memory / MIB:.0f} MiB",
            file=sys.stderr,
            flush=True,
        )

    def wall_ratio(self, phase: str, tool: str, ours: str = "ours") -> float:
        """Return the median over the runs of our wall seconds divided by those of a tool."""
        pairs = zip(self.costs[phase, ours], self.costs[phase, tool], strict=True)
        return median(mine.wall / max(theirs.wall, 1e-9) for mine, theirs in pairs)

    def memory(self, phase: str) -> float:
        return max(cost.memory for cost in self.costs[phase, "ours"]) / MIB


def measure_sqlite(work: Path, scale: float, runs: int) -> list[Gate]:
    """Measure a database of 900,000 photographs; `.backup` and ours take turns in coming first."""
    if shutil.which("sqlite3") is None:
        raise SystemExit("sqlite3 is missing: apt install sqlite3")
    work.mkdir(parents=True, exist_ok=True)
    made, larger = work / f"photos-{scale}.db", work / f"photos-{scale * 2}.db"
    for path, share in ((made, scale), (larger, scale * 2)):
        if not path.exists():
            make_photos(path, max(100, round(ROWS * share)), random.Random("photos"))
    figures = _Figures()
    for run in range(runs):
        _measure_run(work / f"run-{run}", made, figures, scale, run)
    twice = _first_backup(work / "twice", larger)
    print(f"twice the rows: peak {twice.memory / MIB:.0f} MiB", file=sys.stderr)
    _print(figures, made)
    return _gates(figures, twice)


def _measure_run(folder: Path, made: Path, figures: _Figures, scale: float, run: int) -> None:
    shop = Workshop(folder)
    live, beside = folder / "site.db", folder / "beside.db"
    shutil.copyfile(made, live)
    for phase in (_FIRST, _DAY_2):
        before = folder / "before.db"
        if phase == _DAY_2:
            beside.rename(before)
            change_photos(live, scale, random.Random(f"day 2 of run {run}"))
        stored = shop.stored_bytes()
        theirs = f"sqlite3 site.db {shlex.quote('.backup beside.db')}"
        copying = f"{sys.executable} -c {shlex.quote(_COPY)}"
        proven = _as_much(stores=phase == _FIRST)
        turns = [("ours", ""), ("the copy alone", copying), (_PROVEN, proven), (".backup", theirs)]
        if phase == _FIRST:
            turns.append(("the floor", f"{sys.executable} {shlex.quote(str(_FLOOR))} site.db scratch"))
        (folder / "scratch").mkdir()
        for tool, command in turns if run % 2 else reversed(turns):
            _rest(scale)
            figures.note(phase, tool, _shell(folder, command) if command else _run_ours(shop))
        shutil.rmtree(folder / "scratch")
        if phase == _DAY_2:
            pages, page_size = changed_pages(before, beside)
            figures.growth.append((shop.stored_bytes() - stored, pages * page_size))
    _measure_restores(shop, figures, scale)
    shutil.rmtree(folder)


def _as_much(*, stores: bool) -> str:
    """Return what does the work of a backup by programs of others, on two processors.

    A copy; its pages, keys and tables checked and digested, and beside that all of it stored, as on the
    first day, or only digested, as on a day that finds most of it stored.
    """
    checks = ("PRAGMA quick_check", "PRAGMA foreign_key_check", ".sha3sum")
    checking = " ".join(["sqlite3 copied.db", *map(shlex.quote, checks)])
    storing = f"cat copied.db | {sealing('copied.sealed')}" if stores else "sha256sum copied.db"
    copying = f"rm -f copied.db && sqlite3 site.db {shlex.quote('.backup copied.db')}"
    return f"{copying} && {{ {checking} & {storing}; wait; }}"


def _measure_restores(shop: Workshop, figures: _Figures, scale: float) -> None:
    folder = shop.folder
    _rest(scale)
    figures.note(_RESTORE, "ours", shop.run("restore latest repo --to back"))
    for tool, command in (
        (".restore", f"sqlite3 restored.db {shlex.quote('.restore beside.db')}"),
        ("cp", "cp beside.db copied.db"),
    ):
        _rest(scale)
        figures.note(_RESTORE, tool, _shell(folder, command))
    restored = folder / "back/databases/site.sqlite"
    for command in ("PRAGMA integrity_check", ".sha3sum"):
        answers = {_ask(folder, path, command) for path in (restored, folder / "site.db")}
        if len(answers) != 1:
            raise SystemExit(f"The restored database is another one, says {command}.")


def _first_backup(folder: Path, made: Path) -> Cost:
    shop = Workshop(folder)
    shutil.copyfile(made, folder / "site.db")
    cost = _run_ours(shop)
    shutil.rmtree(folder)
    return cost


def _run_ours(shop: Workshop) -> Cost:
    return shop.run("run repo --sqlite site=site.db")


def _shell(folder: Path, command: str) -> Cost:
    cost = run_measured(command, folder=folder, env={}, log=folder / "log.txt")
    if cost.code != 0:
        raise SystemExit(f"{command} failed; see {folder / 'log.txt'}")
    return cost


def _ask(folder: Path, path: Path, command: str) -> str:
    out = folder / "answer.txt"
    _shell(folder, f"sqlite3 {shlex.quote(str(path))} {shlex.quote(command)} > {out}")
    return out.read_text()


def _rest(scale: float) -> None:
    """Let the disk be idle, and the database at rest."""
    os.sync()
    time.sleep(max(_SETTLE_SECONDS, _REST_SECONDS * min(1, scale)))


def _gates(figures: _Figures, twice: Cost) -> list[Gate]:
    growth = median(stored / changed for stored, changed in figures.growth)
    copied = figures.wall_ratio(_FIRST, ".backup", "the copy alone")
    return [
        Gate("SQLite, copied: wall / .backup", copied, 1.5),
        Gate(f"SQLite, first backup: wall / {_PROVEN}", figures.wall_ratio(_FIRST, _PROVEN), 1.5),
        Gate(f"SQLite, day 2: wall / {_PROVEN}", figures.wall_ratio(_DAY_2, _PROVEN), 1.5),
        Gate("SQLite, day 2: bytes stored / bytes of changed pages", growth, 1.0),
        Gate("SQLite, first backup: peak memory, MiB", figures.memory(_FIRST), 160),
        Gate("SQLite, day 2: peak memory, MiB", figures.memory(_DAY_2), 160),
        Gate(
            "SQLite, first backup: MiB more for twice the rows",
            twice.memory / MIB - figures.memory(_FIRST),
            16,
        ),
        Gate("SQLite, restore: peak memory, MiB", figures.memory(_RESTORE), 128),
    ]


def _print(figures: _Figures, made: Path) -> None:
    print(f"The database has {made.stat().st_size / 1e6:.0f} MB.")
    rows = []
    for (phase, tool), costs in figures.costs.items():
        walls = [cost.wall for cost in costs]
        ratio = "" if tool == "ours" else f"{figures.wall_ratio(phase, tool):.2f}"
        rows.append(
            (
                phase,
                tool,
                f"{median(cost.cpu for cost in costs):.2f}",
                f"{median(walls):.2f}",
                f"{min(walls):.2f} - {max(walls):.2f}",
                ratio,
            )
        )
    print_table(("phase", "tool", "CPU s", "wall s", "from - to", "ours / tool"), rows)
    for stored, changed in figures.growth:
        print(f"day 2: {stored / 1e6:.2f} MB stored for {changed / 1e6:.2f} MB of changed pages")
