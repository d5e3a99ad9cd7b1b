"""The benchmark of remote storages: first backup and full restore, paired, on servers on loopback.

s3         SeaweedFS, compared with restic
s3-far     the same behind a proxy that adds a round trip of 50 ms
s3-large   our tool alone with packs of 64 MiB: memory
ssh        a real sshd, compared with borg; restic is measured as well
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.gates import MIB, Gate, Results, cpu, memory, wall
from bench.measuring import run_measured
from bench.paired import Measurement, different_files, empty_files, make_ready
from bench.remote_corpus import CORPORA
from bench.report import print_table
from bench.targets import ROOT, TARGETS
from bench.tools import OURS, Phase, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.targets import Target

_REST_SECONDS = 5
_FAR_MS = 50.0
_MEMORY_MIB = 220
_PHASES = (Phase.INIT, Phase.FIRST, Phase.RESTORE)


@dataclass(frozen=True, slots=True)
class Scene:
    """A server, how far it is, the peers measured there, and the limits.

    `limits` are for our wall time over that of `judge`; nothing else is judged but memory.
    """

    target: str
    peers: tuple[str, ...]
    limits: dict[Phase, float]
    judge: str = "restic"
    delay_ms: float = 0.0
    large_packs: bool = False


SCENES = {
    "s3": Scene("s3", ("restic",), {Phase.FIRST: 1.0, Phase.RESTORE: 1.0}),
    "s3-far": Scene("s3", ("restic",), {Phase.RESTORE: 0.8}, delay_ms=_FAR_MS),
    "s3-large": Scene("s3", (), {}, large_packs=True),
    "ssh": Scene("ssh", ("borg", "restic"), {Phase.FIRST: 1.0, Phase.RESTORE: 1.0}, judge="borg"),
}


def measure_remote(
    work: Path,
    tools: Sequence[Tool],
    scenes: Sequence[str],
    corpora: Sequence[str],
    *,
    scale: float,
    runs: int,
) -> tuple[list[Gate], dict[str, list[Measurement]]]:
    """Measure every scene with every corpus; return the gates, and all measurements by scene and corpus."""
    gates: list[Gate] = []
    measured: dict[str, list[Measurement]] = {}
    for corpus in corpora:
        source = _corpus(work, corpus, scale)
        for name in scenes:
            scene, title = SCENES[name], f"{name}, {corpus}"
            taking_part = [_suited(tool, scene) for tool in tools if tool.name in (OURS, *scene.peers)]
            found = []
            for one in _measure_scene(work / f"{name}-{corpus}", source, scene, taking_part, scale, runs):
                found.append(one)
                _tell(title, one)
            results = Results(found)
            print_scene(title, results)
            gates += scene_gates(title, scene, results)
            measured[title] = found
    return gates, measured


def scene_gates(title: str, scene: Scene, results: Results) -> list[Gate]:
    """Return a gate for every limit of a scene."""
    gates = [
        Gate(
            f"{title}, {phase.name.lower()}: wall / {scene.judge}",
            results.ratio(phase, scene.judge, wall),
            limit,
        )
        for phase, limit in scene.limits.items()
    ]
    for phase in (Phase.FIRST, Phase.RESTORE):
        peak = max((memory(one) / MIB for one in results.sound(phase, OURS)), default=None)
        gates.append(Gate(f"{title}, {phase.name.lower()}: peak memory, MiB", peak, _MEMORY_MIB))
    return gates


def print_scene(title: str, results: Results) -> None:
    """Print each tool's medians, and ours divided by each peer's."""
    print(f"\n## {title}")
    rows = []
    for phase in (Phase.FIRST, Phase.RESTORE):
        for tool in results.tools:
            for one in sorted(results.sound(phase, tool), key=wall)[len(results.runs) // 2 :][:1]:
                ratios = [results.ratio(phase, tool, figure) for figure in (wall, cpu)]
                rows.append(
                    (
                        *(phase.name.lower(), tool, f"{wall(one):.2f}", f"{cpu(one):.2f}"),
                        *(f"{memory(one) / MIB:.0f}", str(one.requests or "")),
                        *("" if ratio is None or tool == OURS else f"{ratio:.2f}" for ratio in ratios),
                    )
                )
    print_table(("phase", "tool", "wall s", "CPU s", "MiB", "requests", "wall ratio", "CPU ratio"), rows)
    for failed in results.failed():
        place = f"run {failed.run}, {failed.tool}, {failed.phase.name.lower()}"
        print(f"FAILED: {place}: exit code {failed.cost.code}, {failed.wrong_files} files restored wrong")


def _corpus(work: Path, name: str, scale: float) -> Path:
    base = work / f"{name}-{scale}"
    if not base.exists():
        unfinished = work / f"{name}-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        CORPORA[name](unfinished, scale)
        unfinished.rename(base)
    return base


def _suited(tool: Tool, scene: Scene) -> Tool:
    if tool.name == "borg":
        first = tool.commands[Phase.RESTORE].replace("::third", "::first")
        return replace(tool, commands={**tool.commands, Phase.RESTORE: first})
    if tool.name != OURS or not scene.large_packs:
        return tool
    init = f"cd {ROOT} && {sys.executable} -m bench.large_packs {{repo}} {{tmp}}/key"
    return replace(tool, commands={**tool.commands, Phase.INIT: init})


def _measure_scene(
    place: Path, source: Path, scene: Scene, tools: Sequence[Tool], scale: float, runs: int
) -> Iterator[Measurement]:
    """Run every phase with every tool, a fresh server for each run; the order moves on with each run.

    Only what the server kept is removed: after many files were removed, new ones cost more to make.
    """
    shutil.rmtree(place, ignore_errors=True)
    for run in range(runs):
        (place / "server").mkdir(parents=True)
        order = [*tools[run % len(tools) :], *tools[: run % len(tools)]]
        with TARGETS[scene.target](place / "server", scene.delay_ms) as target:
            for phase in _PHASES:
                for tool in order:
                    make_ready(source, _REST_SECONDS * min(1, scale) * (phase is not Phase.INIT))
                    yield _measure(place, source, target, tool, phase, run)
        shutil.rmtree(place / "server")


def _measure(place: Path, source: Path, target: Target, tool: Tool, phase: Phase, run: int) -> Measurement:
    home = place / tool.name
    out = home / f"out-{phase.name.lower()}-{run}"
    for folder in (out, home / f"tmp-{run}"):
        folder.mkdir(parents=True, exist_ok=True)
    places = {
        "repo": target.address(tool.name, f"run-{run}-{tool.name}"),
        "src": str(source),
        "out": str(out),
        "one": "",
        "tmp": str(home / f"tmp-{run}"),
    }
    before = target.requests()
    env = {**tool.environment(places), **target.env}
    cost = run_measured(tool.command(phase, places), folder=place, env=env, log=place.parent / "log.txt")
    wrong = different_files(source, place / tool.tree.format(**places)) if phase is Phase.RESTORE else 0
    empty_files(out)
    return Measurement(run, tool.name, phase, cost, 0, wrong, target.requests() - before)


def _tell(title: str, found: Measurement) -> None:
    print(
        f"{title}, run {found.run}, {found.phase.name.lower()}, {found.tool}: wall {wall(found):.2f} s, "
        f"CPU {cpu(found):.2f} s, {memory(found) / MIB:.0f} MiB, {found.requests} requests",
        file=sys.stderr,
        flush=True,
    )
