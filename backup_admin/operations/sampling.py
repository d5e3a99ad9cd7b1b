"""A scrub in parts: which packs to read this time, so that N runs read them all.

A file in the state folder remembers the run in which each pack was read last.
Those read longest ago come first; a pack is never left out for more than N runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.canonical import dump_canonical, load_strict
from backup_admin.core.clock import format_time
from backup_admin.core.durable import replace_file
from backup_admin.core.errors import UsageError
from backup_admin.operations.results import SampleResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from backup_admin.core.state import StateFolder
    from backup_admin.repository.index import PackInfo

_MOST_RUNS = 10_000
_VERSION = 1


@dataclass(slots=True)
class _Row:
    run: int
    read_at: str


@dataclass(slots=True)
class Sampler:
    """Chooses packs and remembers what was read."""

    path: Path
    runs: int
    run: int = 0
    rows: dict[str, _Row] = field(default_factory=dict)

    def choose(self, packs: Sequence[PackInfo]) -> list[PackInfo]:
        """Return the packs of this run; those seen for the first time queue behind the others."""
        self.run += 1
        names = {pack.name.hex() for pack in packs}
        self.rows = {name: row for name, row in self.rows.items() if name in names}
        for name in sorted(names - self.rows.keys()):
            self.rows[name] = _Row(self.run - 1, "")
        queue = sorted(packs, key=lambda pack: (self.rows[pack.name.hex()].run, pack.name))
        due = sum(1 for row in self.rows.values() if row.run <= self.run - self.runs)
        return queue[: max(due, -(-len(queue) // self.runs))]

    def note(self, packs: Iterable[PackInfo], *, bad: Iterable[str], now: datetime) -> None:
        """Remember packs that were read. A damaged one stays due, so that each run names it."""
        damaged = set(bad)
        for pack in packs:
            name = pack.name.hex()
            if name in damaged:
                self.rows[name] = _Row(self.run - self.runs, "")
            else:
                self.rows[name] = _Row(self.run, format_time(now))
        rows = {name: [row.run, row.read_at] for name, row in self.rows.items()}
        body = {"v": _VERSION, "run": self.run, "packs": rows}
        replace_file(self.path, dump_canonical(body))

    def result(self, packs: Sequence[PackInfo], read: int) -> SampleResult:
        """Say what part of the packs was read within the last `runs` runs."""
        covered = [pack for pack in packs if self._is_covered(pack.name.hex())]
        times = [self.rows[pack.name.hex()].read_at for pack in covered]
        return SampleResult(
            self.runs,
            read,
            len(covered),
            len(packs),
            sum(pack.size for pack in covered),
            sum(pack.size for pack in packs),
            min(times, default=""),
        )

    def _is_covered(self, name: str) -> bool:
        row = self.rows.get(name)
        return row is not None and row.read_at != "" and row.run > self.run - self.runs


def parse_sample(text: str) -> int:
    """Return in how many runs everything is to be read: `1/30` and `3.4%` are 30.

    Raises `UsageError`.
    """
    share = re.fullmatch(r"1/(\d{1,6})", text)
    percent = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?)%", text)
    runs = 0
    if share:
        runs = int(share[1])
    elif percent and 0 < float(percent[1]) <= 100:
        runs = round(-(-100_000 // round(float(percent[1]) * 1000)))
    if not 1 <= runs <= _MOST_RUNS:
        raise UsageError(f"--sample takes a share such as 1/30 or 5%; got {text!r}.")
    return runs


def open_sampler(state: StateFolder, state_name: str, runs: int) -> Sampler:
    """Go on where the last run ended; a file that is lost or damaged begins anew."""
    sampler = Sampler(state.heads / f"{state_name}.scrub.json", runs)
    try:
        value = load_strict(sampler.path.read_bytes())
        if value["v"] == _VERSION:
            sampler.rows = {
                str(name): _Row(int(run), str(time)) for name, (run, time) in value["packs"].items()
            }
            sampler.run = int(value["run"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        sampler.rows, sampler.run = {}, 0
    return sampler
