"""The benchmarks of databases, an engine each: a new one is one line in `ENGINES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.postgres_gates import measure_postgres
from bench.sqlite_gates import measure_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.gates import Gate

# Each is given a folder of its own, a scale and a number of runs; without the programs of its engine it ends.
ENGINES: dict[str, Callable[[Path, float, int], list[Gate]]] = {
    "sqlite": measure_sqlite,
    "postgres": measure_postgres,
}


def measure_databases(work: Path, engines: list[str], *, scale: float, runs: int) -> list[Gate]:
    """Measure our tool beside what comes with each engine."""
    return [gate for engine in engines for gate in ENGINES[engine](work / engine, scale, runs)]
