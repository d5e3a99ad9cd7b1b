"""Tables for people: what was measured, how it compares, which gates it passes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.gates import MIB, Gate, Results, cpu, memory, wall
from bench.tools import OLDEST, OURS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.paired import Measurement
    from bench.tools import Tool


def print_machine(facts: dict[str, str], tools: Sequence[Tool]) -> None:
    """Say on what and with what was measured, and which peer is missing or too old."""
    for name, value in facts.items():
        print(f"{name}: {value}")
    for tool in tools:
        found = tool.version or "MISSING"
        print(
            f"{tool.name}: {found}" if tool.usable else f"{tool.name}: {found}, NOT COMPARED: {_needed(tool)}"
        )


def print_measurements(results: Results) -> None:
    """Print the median of each tool in each phase, with the spread of its CPU seconds."""
    rows = []
    for phase in Phase:
        for tool in results.tools:
            if found := results.sound(phase, tool):
                added = results.growth(phase, tool) if phase in (Phase.UNCHANGED, Phase.DAY_2) else None
                rows.append((phase.name.lower(), tool, *_figures(found), _megabytes(added)))
    print_table(("phase", "tool", "CPU s", "from - to", "wall s", "from - to", "MiB", "added MB"), rows)
    for failed in results.failed():
        place = f"run {failed.run}, {failed.tool}, {failed.phase.name.lower()}"
        print(f"FAILED: {place}: exit code {failed.cost.code}, {failed.wrong_files} files restored wrong")


def print_ratios(results: Results) -> None:
    """Print our CPU, wall and memory divided by each peer's: medians over the runs."""
    rows = []
    for phase in Phase:
        for peer in results.tools:
            if peer == OURS or results.ratio(phase, peer, cpu) is None:
                continue
            ratios = (results.ratio(phase, peer, figure) for figure in (cpu, wall, memory))
            rows.append(
                (phase.name.lower(), peer, *(f"{ratio:.2f}" for ratio in ratios if ratio is not None))
            )
    if rows:
        print_table(("phase", "ours / peer", "CPU", "wall", "memory"), rows)


def print_gates(gates: Sequence[Gate]) -> None:
    """Print every gate with its figure, its limit and the verdict."""
    rows = [
        (
            gate.name,
            "-" if gate.measured is None else f"{gate.measured:,.2f}",
            f"{'>=' if gate.at_least else '<='} {gate.limit:,g}",
            "pass" if gate.passed else "FAIL",
        )
        for gate in gates
    ]
    print_table(("gate", "measured", "limit", ""), rows)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table with aligned columns."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    print()
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _figures(found: Sequence[Measurement]) -> tuple[str, ...]:
    return (*_spread(found, cpu), *_spread(found, wall), f"{median(map(memory, found)) / MIB:.0f}")


def _spread(found: Sequence[Measurement], figure: Callable[[Measurement], float]) -> tuple[str, str]:
    values = [figure(one) for one in found]
    return f"{median(values):.2f}", f"{min(values):.2f} - {max(values):.2f}"


def _needed(tool: Tool) -> str:
    return "needs {}.{} or newer".format(*OLDEST[tool.name])


def _megabytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"
