"""The paired benchmark: all tools do the same on the same tree, one after the other in each phase.

Files are emptied and not removed until all is measured. For minutes after many files were removed, ext4
takes three to twenty times as long to create one: it looks at every inode that was freed lately and passes
it over. Whoever came second would pay for who came first.
"""

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
_SETTLE_SECONDS = 1.2
# A virtual machine hands free memory back, at the latest after so long, and pays up to 2 seconds of
# system time for a GB when it needs it again. Nobody works in what the tool before has just let go.
_REST_SECONDS = 10
_WORKS_MUCH = (Phase.FIRST, Phase.DAY_2, Phase.RESTORE, Phase.CHECK)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One command of one tool in one run; `wrong_files` are those a restore got wrong.

    `requests` are those of HTTP, where they are counted."""

    run: int
    tool: str
    phase: Phase
    cost: Cost
    repository_bytes: int
    wrong_files: int = 0
    requests: int = 0

    @property
    def succeeded(self) -> bool:
        """Tell whether the command ended well and what it restored is right."""
        return self.cost.code == 0 and self.wrong_files == 0


def measure_tools(work: Path, tools: Sequence[Tool], *, scale: float, runs: int) -> Iterator[Measurement]:
    """Run every phase with every tool; the order of the tools moves on with each run."""
    base = _make_base(work, scale)
    for run in range(runs):
        place = work / f"run-{run}"
        shutil.rmtree(place, ignore_errors=True)
        copy_tree(base, place / "site")
        for tool in tools:
            (place / tool.name / "tmp").mkdir(parents=True)
        order = [*tools[run % len(tools) :], *tools[: run % len(tools)]]
        for phase in Phase:
            if phase is Phase.DAY_2:
                next_day(place / "site")
            if phase in (Phase.FIRST, Phase.DAY_2):
                time.sleep(_SETTLE_SECONDS)
            for tool in order:
                if phase in tool.commands:
                    make_ready(place / "site", _REST_SECONDS * min(1, scale) * (phase in _WORKS_MUCH))
                    yield _measure(place, tool, phase, run)
        empty_files(place)


def _make_base(work: Path, scale: float) -> Path:
    base = work / f"corpus-{scale}"
    if not base.exists():
        unfinished = work / "corpus-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_corpus(unfinished, scale)
        unfinished.rename(base)
    return base


def make_ready(site: Path, rest_seconds: float) -> None:
    """Let every command begin alike: the disk idle, the tree in the page cache, from which borg drops it."""
    os.sync()
    time.sleep(rest_seconds)
    buffer = bytearray(1 << 20)
    for parent, _, files in os.walk(site):
        for name in files:
            if not (path := Path(parent, name)).is_symlink():
                with path.open("rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass


def _measure(work: Path, tool: Tool, phase: Phase, run: int) -> Measurement:
    source, home = work / "site", work / tool.name
    out = home / f"out-{phase.name.lower()}"
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
        tool.command(phase, places), folder=work, env=tool.environment(places), log=work.parent / "log.txt"
    )
    tree = Path(tool.tree.format(**places))
    wrong = 0
    if phase is Phase.RESTORE:
        wrong = different_files(source, tree)
    elif phase is Phase.ONE:
        wrong = int(not _same(source / one, tree / one))
    empty_files(out)
    return Measurement(run, tool.name, phase, cost, folder_bytes(home / "repo"), wrong)


def empty_files(folder: Path) -> None:
    """Give the space of all files back, and keep the files."""
    for parent, _, files in os.walk(folder):
        for name in files:
            if not (path := Path(parent, name)).is_symlink():
                path.chmod(0o600)
                os.truncate(path, 0)


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
