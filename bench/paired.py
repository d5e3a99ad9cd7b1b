"""The paired benchmark: all tools do the same on the same tree, one after the other in each phase."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.corpus import copy_tree, make_corpus, next_day, one_photo
from bench.measuring import Cost, folder_bytes, run_measured
from bench.tools import Phase, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Every tool reads files again that changed just before they were backed up.
_REST_SECONDS = 1.2


@dataclass(frozen=True, slots=True)
class Measurement:
    """One command of one tool in one run; `wrong_files` are those a restore got wrong."""

    run: int
    tool: str
    phase: Phase
    cost: Cost
    repository_bytes: int
    wrong_files: int = 0

    @property
    def succeeded(self) -> bool:
        """Tell whether the command ended well and what it restored is right."""
        return self.cost.code == 0 and self.wrong_files == 0


def measure_tools(work: Path, tools: Sequence[Tool], *, scale: float, runs: int) -> Iterator[Measurement]:
    """Run every phase with every tool; the order of the tools moves on with each run."""
    base = work / f"corpus-{scale}"
    if not base.exists():
        unfinished = work / "corpus-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_corpus(unfinished, scale)
        unfinished.rename(base)
    for run in range(runs):
        copy_tree(base, work / "site")
        for tool in tools:
            shutil.rmtree(work / tool.name, ignore_errors=True)
            (work / tool.name / "tmp").mkdir(parents=True)
        order = [*tools[run % len(tools) :], *tools[: run % len(tools)]]
        for phase in Phase:
            if phase is Phase.DAY_2:
                next_day(work / "site")
            if phase in (Phase.FIRST, Phase.DAY_2):
                time.sleep(_REST_SECONDS)
            yield from (_measure(work, tool, phase, run) for tool in order if phase in tool.commands)


def _measure(work: Path, tool: Tool, phase: Phase, run: int) -> Measurement:
    source, home = work / "site", work / tool.name
    out = home / "out"
    out.mkdir()
    one = one_photo(source)
    places = {
        "repo": str(home / "repo"),
        "src": str(source),
        "out": str(out),
        "one": one,
        "tmp": str(home / "tmp"),
    }
    cost = run_measured(
        tool.command(phase, places), folder=work, env=tool.environment(places), log=work / "log.txt"
    )
    tree = Path(tool.tree.format(**places))
    wrong = 0
    if phase is Phase.RESTORE:
        wrong = different_files(source, tree)
    elif phase is Phase.ONE:
        wrong = int(not _same(source / one, tree / one))
    shutil.rmtree(out)
    return Measurement(run, tool.name, phase, cost, folder_bytes(home / "repo"), wrong)


def different_files(first: Path, second: Path) -> int:
    """Return how many files and links of two trees differ or are in one of them only."""
    names = _names(first) | _names(second)
    return sum(not _same(first / name, second / name) for name in names)


def _names(root: Path) -> set[str]:
    found: set[str] = set()
    for folder, _, files in os.walk(root):
        found.update(str(Path(folder, name).relative_to(root)) for name in files)
    return found


def _same(first: Path, second: Path) -> bool:
    if first.is_symlink() or second.is_symlink():
        return first.is_symlink() and second.is_symlink() and first.readlink() == second.readlink()
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)
