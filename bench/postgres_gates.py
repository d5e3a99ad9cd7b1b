"""PostgreSQL beside its own programs: time, memory and bytes stored, of backups and of restores."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from bench.gates import MIB, Gate
from bench.measuring import Cost, run_measured
from bench.postgres_corpus import a_day, digesting, making
from bench.postgres_server import BenchServer, postgres_server
from bench.report import print_table
from bench.scenarios import Workshop
from bench.sealing import SEALING, sealing

if TYPE_CHECKING:
    from pathlib import Path

_REST_SECONDS = 3
_SOURCE, _OURS, _THEIRS = "gallery", "ours", "theirs"
_FIRST, _DAY_2, _RESTORE = "first backup", "day 2", "restore"
_PLAIN, _ZIPPED, _SEALED = "pg_dump", "pg_dump to gzip", f"pg_dump to {SEALING}"
_LOAD, _PROVEN = "pg_restore -j2", "pg_restore -j2, ANALYZE, pg_dump"


@dataclass(slots=True)
class _Figures:
    """What each command cost, run by run, and what was stored on day 2 beside the dump of all."""

    costs: dict[tuple[str, str], list[Cost]] = field(default_factory=dict)
    growth: list[float] = field(default_factory=list)

    def note(self, phase: str, tool: str, cost: Cost) -> None:
        self.costs.setdefault((phase, tool), []).append(cost)
        print(
            f"{phase}, {tool}: CPU {cost.cpu:.2f} s, wall {cost.wall:.2f} s, {cost.memory / MIB:.0f} MiB",
            file=sys.stderr,
            flush=True,
        )

    def wall(self, phase: str, tool: str) -> float:
        """Return the median over the runs of our wall seconds divided by those of a tool."""
        pairs = zip(self.costs[phase, "ours"], self.costs[phase, tool], strict=True)
        return median(ours.wall / theirs.wall for ours, theirs in pairs)

    def cpu(self, phase: str, tool: str) -> float:
        """Return the same of CPU seconds, without those of the server."""
        pairs = zip(self.costs[phase, "ours"], self.costs[phase, tool], strict=True)
        return median(ours.cpu / max(theirs.cpu, 1e-9) for ours, theirs in pairs)

    def memory(self, phase: str) -> float:
        return max(cost.memory for cost in self.costs[phase, "ours"]) / MIB


def measure_postgres(work: Path, scale: float, runs: int) -> list[Gate]:
    """Measure a database of 1.5 million rows; ours and the programs take turns in coming first."""
    work.mkdir(parents=True, exist_ok=True)
    figures = _Figures()
    with postgres_server() as server:
        print(server.version, file=sys.stderr)
        for run in range(runs):
            server.make_anew(_SOURCE)
            server.run(making(scale), _SOURCE)
            _measure_run(work / f"run-{run}", server, figures, scale, run)
        server.make_anew(_SOURCE)
        server.run(making(scale / 2), _SOURCE)
        small = _back_up(Workshop(work / "half"), server)
        shutil.rmtree(work / "half")
    print(f"half of the rows: peak {small.memory / MIB:.0f} MiB", file=sys.stderr)
    _print(figures)
    return _gates(figures, small)


def _measure_run(folder: Path, server: BenchServer, figures: _Figures, scale: float, run: int) -> None:
    shop = Workshop(folder)
    dump = server.program("pg_dump", _SOURCE)
    for phase in (_FIRST, _DAY_2):
        if phase == _DAY_2:
            server.run(a_day(scale), _SOURCE)
        stored = shop.stored_bytes()
        turns = [
            ("ours", ""),
            (_PLAIN, f"{dump} -f plain.sql"),
            (_ZIPPED, f"{dump} | gzip > plain.sql.gz"),
            (_SEALED, f"{dump} | {sealing('plain.sealed')}"),
        ]
        for tool, command in turns if run % 2 else reversed(turns):
            _rest(scale)
            cost = _shell(folder, command) if command else _back_up(shop, server)
            figures.note(phase, tool, cost)
    figures.growth.append((shop.stored_bytes() - stored) / (folder / "plain.sql").stat().st_size)
    _measure_restores(shop, server, figures, scale)
    shutil.rmtree(folder)


def _measure_restores(shop: Workshop, server: BenchServer, figures: _Figures, scale: float) -> None:
    folder = shop.folder
    _shell(folder, f"{server.program('pg_dump', _SOURCE)} -Fc -Z0 -f archive.dump")
    figures.note("restore --to", "ours", shop.run("restore latest repo --to back"))
    for database in (_OURS, _THEIRS):
        server.make_anew(database)
    _rest(scale)
    begun = time.perf_counter()
    restored = _shell(folder, f"{server.program('pg_restore', _THEIRS)} -j2 archive.dump")
    figures.note(_RESTORE, _LOAD, restored)
    more = [
        _shell(folder, f"{server.program('psql', _THEIRS)} -qXc ANALYZE"),
        _shell(folder, f"{server.program('pg_dump', _THEIRS)} > /dev/null"),
    ]
    wall = time.perf_counter() - begun
    costs = [restored, *more]
    cpu, memory = sum(cost.cpu for cost in costs), max(cost.memory for cost in costs)
    figures.note(_RESTORE, _PROVEN, Cost(0, cpu, wall, memory))
    _rest(scale)
    cost = shop.run(f"load back/databases/site --postgres '{server.address(_OURS)}'")
    figures.note(_RESTORE, "ours", cost)
    answers = {server.run(digesting(), database) for database in (_SOURCE, _OURS, _THEIRS)}
    if len(answers) != 1:
        raise SystemExit("The restored database is another one.")


def _back_up(shop: Workshop, server: BenchServer) -> Cost:
    return shop.run(f"run repo --postgres 'site={server.address(_SOURCE)}'")


def _shell(folder: Path, command: str) -> Cost:
    cost = run_measured(command, folder=folder, env={}, log=folder / "log.txt")
    if cost.code != 0:
        raise SystemExit(f"{command} failed; see {folder / 'log.txt'}")
    return cost


def _rest(scale: float) -> None:
    """Let the disk be idle."""
    os.sync()
    time.sleep(_REST_SECONDS * min(1, scale))


def _gates(figures: _Figures, small: Cost) -> list[Gate]:
    growth, more = median(figures.growth), figures.memory(_FIRST) - small.memory / MIB
    return [
        Gate("PostgreSQL, first backup: CPU / pg_dump to gzip", figures.cpu(_FIRST, _ZIPPED), 0.4),
        Gate(f"PostgreSQL, first backup: wall / {_SEALED}", figures.wall(_FIRST, _SEALED), 1.3),
        Gate("PostgreSQL, day 2: wall / pg_dump", figures.wall(_DAY_2, _PLAIN), 1.3),
        Gate("PostgreSQL, day 2: bytes stored / bytes of the dump", growth, 0.02),
        Gate("PostgreSQL, first backup: peak memory, MiB", figures.memory(_FIRST), 160),
        Gate("PostgreSQL, first backup: MiB more than for half of the rows", more, 16),
        Gate(f"PostgreSQL, load: wall / {_PROVEN}", figures.wall(_RESTORE, _PROVEN), 1.2),
        Gate("PostgreSQL, load: peak memory, MiB", figures.memory(_RESTORE), 128),
    ]


def _print(figures: _Figures) -> None:
    rows = []
    for (phase, tool), costs in figures.costs.items():
        walls = [cost.wall for cost in costs]
        rows.append(
            (
                phase,
                tool,
                f"{median(cost.cpu for cost in costs):.2f}",
                f"{median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})",
                f"{max(cost.memory for cost in costs) / MIB:.0f}",
            )
        )
    print_table(("phase", "tool", "CPU s", "wall s", "peak MiB"), rows)
    for phase, tool in ((_FIRST, _PLAIN), (_RESTORE, _LOAD)):
        print(f"{phase}: wall / {tool}, which does less: {figures.wall(phase, tool):.2f}")
