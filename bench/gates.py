"""What the figures have to be: limits for ratios to the peers, for memory and for bytes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench.tools import OURS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.paired import Measurement

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure and its limit; `measured` is None when there is no sound measurement."""

    name: str
    measured: float | None
    limit: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Tell whether the figure keeps its limit; one that is missing does not."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


_CPU = {
    "restic": {
        Phase.FIRST: 0.50,
        Phase.UNCHANGED: 0.35,
        Phase.DAY_2: 0.45,
        Phase.RESTORE: 0.45,
        Phase.ONE: 0.50,
        Phase.CHECK: 0.50,
        Phase.PRUNE: 1.0,
    },
    "borg": {
        Phase.FIRST: 0.90,
        Phase.UNCHANGED: 0.30,
        Phase.DAY_2: 0.60,
        Phase.RESTORE: 0.45,
        Phase.ONE: 0.50,
        Phase.CHECK: 0.40,
        Phase.PRUNE: 0.6,
    },
}
_WALL = {
    Phase.FIRST: 0.70,
    Phase.UNCHANGED: 0.35,
    Phase.DAY_2: 0.45,
    Phase.RESTORE: 0.65,
    Phase.ONE: 0.50,
    Phase.CHECK: 0.60,
}
_MEMORY_MIB = {Phase.FIRST: 160, Phase.RESTORE: 128, Phase.CHECK: 128}
_GROWTH = {"restic": 0.50, "borg": 0.35}
_UNCHANGED_BYTES = 20_000


class Results:
    """All measurements of the paired benchmark, asked by run, phase and tool."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._all = {(found.run, found.phase, found.tool): found for found in measurements}
        self.runs = sorted({found.run for found in measurements})
        self.tools = list(dict.fromkeys(found.tool for found in measurements))

    def sound(self, phase: Phase, tool: str) -> list[Measurement]:
        """Return what a tool did well in a phase, a run each."""
        found = (self._all.get((run, phase, tool)) for run in self.runs)
        return [one for one in found if one is not None and one.succeeded]

    def failed(self) -> list[Measurement]:
        """Return every command that failed or restored something wrong."""
        return [found for found in self._all.values() if not found.succeeded]

    def ratio(self, phase: Phase, peer: str, figure: Callable[[Measurement], float]) -> float | None:
        """Return the median over the runs of our figure divided by a peer's."""
        theirs = {found.run: found for found in self.sound(phase, peer)}
        pairs = [(ours, theirs[ours.run]) for ours in self.sound(phase, OURS) if ours.run in theirs]
        return median(figure(ours) / max(figure(their), 1e-9) for ours, their in pairs) if pairs else None

    def growth(self, phase: Phase, tool: str) -> float | None:
        """Return the median of the bytes a backup added; the phase before is where it began."""
        before = {Phase.UNCHANGED: Phase.FIRST, Phase.DAY_2: Phase.UNCHANGED}[phase]
        earlier = {found.run: found for found in self.sound(before, tool)}
        grown = [
            found.repository_bytes - earlier[found.run].repository_bytes
            for found in self.sound(phase, tool)
            if found.run in earlier
        ]
        return median(grown) if grown else None


def cpu(found: Measurement) -> float:
    """Return CPU seconds, user and system."""
    return found.cost.cpu


def wall(found: Measurement) -> float:
    """Return wall seconds."""
    return found.cost.wall


def memory(found: Measurement) -> float:
    """Return peak memory in bytes."""
    return found.cost.memory


def paired_gates(results: Results) -> list[Gate]:
    """Return a gate for every limit that the tools in these results allow to judge."""
    peers = [tool for tool in results.tools if tool != OURS]
    gates = [
        Gate(f"{phase.name.lower()}: CPU / {peer}", results.ratio(phase, peer, cpu), limit)
        for peer in peers
        for phase, limit in _CPU[peer].items()
    ]
    gates += [
        Gate(f"{phase.name.lower()}: wall / the faster peer", _slowest_ratio(results, phase, peers), limit)
        for phase, limit in _WALL.items()
        if peers
    ]
    gates += [
        Gate(f"{phase.name.lower()}: peak memory, MiB", _memory(results, phase), limit)
        for phase, limit in _MEMORY_MIB.items()
    ]
    ours = results.growth(Phase.UNCHANGED, OURS)
    gates.append(Gate("unchanged: bytes stored", ours, _UNCHANGED_BYTES))
    for peer in peers:
        grown, theirs = results.growth(Phase.DAY_2, OURS), results.growth(Phase.DAY_2, peer)
        ratio = None if grown is None or not theirs else grown / theirs
        gates.append(Gate(f"day_2: growth / {peer}", ratio, _GROWTH[peer]))
    return gates


def _slowest_ratio(results: Results, phase: Phase, peers: Sequence[str]) -> float | None:
    ratios = [ratio for peer in peers if (ratio := results.ratio(phase, peer, wall)) is not None]
    return max(ratios) if ratios else None


def _memory(results: Results, phase: Phase) -> float | None:
    found = results.sound(phase, OURS)
    return median(one.cost.memory / MIB for one in found) if found else None
