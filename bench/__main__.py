"""Benchmarks: the paired one against restic and borg, and single questions about our tool alone.

paired    first backup, nothing changed, day 2, restore, one file, check, forget and prune,
          each by our tool and by every peer that is installed
million   a million small files, nothing changed
bigfile   files of 5 and 20 GB: memory
index     ten million chunks: disk, heap, look-ups
year      a database after 365 days of small changes: restore
startup   `backup-admin list`
skipping  an idle database of 500 MB: is there anything to back up?
databases backup, growth, memory and restore beside the programs of each engine; --engines for some
remote    first backup and restore with storages on servers: S3 near and 50 ms away, and ssh
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench import scenarios
from bench.databases import ENGINES, measure_databases
from bench.gates import Gate, Results, paired_gates
from bench.measuring import machine
from bench.paired import measure_tools
from bench.readiness import compile_modules
from bench.remote import SCENES, measure_remote
from bench.remote_corpus import CORPORA
from bench.report import print_gates, print_machine, print_measurements, print_ratios
from bench.tools import borg, our_tool, restic

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.tools import Tool

_SINGLE: dict[str, Callable[[Path, float], list[Gate]]] = {
    "million": scenarios.million,
    "bigfile": scenarios.bigfile,
    "index": scenarios.index,
    "year": scenarios.year,
    "startup": scenarios.startup,
    "skipping": scenarios.skipping,
}
_WHAT = ("paired", "remote", "databases", *_SINGLE)
_QUICK_SCALE = 0.02


def main() -> int:
    """Run what was asked for; 1 when a command failed, or a gate with `--gates`."""
    options = _parser().parse_args()
    # The command beside this Python is the one to measure, also when the PATH names another.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    compile_modules()
    scale, runs = (_QUICK_SCALE, 1) if options.quick else (options.scale, options.runs)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        work = Path(options.work or scratch).resolve()
        work.mkdir(parents=True, exist_ok=True)
        if options.what == "paired":
            document, gates = _paired(work, options, scale, runs)
        elif options.what == "remote":
            document, gates = _remote(work, options, scale, runs)
        elif options.what == "databases":
            engines = options.engines.split(",")
            document, gates = (
                {"machine": machine()},
                measure_databases(work, engines, scale=scale, runs=runs),
            )
        else:
            document, gates = {"machine": machine()}, _SINGLE[options.what](work, scale)
    print_gates(gates)
    if scale < 1:
        print("\nThe limits are for scale 1: below it, start-up decides.")
    if options.json:
        found = [{**asdict(gate), "passed": gate.passed} for gate in gates]
        document |= {"what": options.what, "scale": scale, "gates": found}
        options.json.write_text(json.dumps(document, indent=1, default=str) + "\n")
    failed = document.get("failed") or (options.gates and not all(gate.passed for gate in gates))
    return 1 if failed else 0


def _paired(
    work: Path, options: argparse.Namespace, scale: float, runs: int
) -> tuple[dict[str, object], list[Gate]]:
    tools = _tools(options)
    facts = machine()
    print_machine(facts, tools)
    measurements = []
    for found in measure_tools(work, [tool for tool in tools if tool.usable], scale=scale, runs=runs):
        measurements.append(found)
        print(
            f"run {found.run}, {found.phase.name.lower()}, {found.tool}: CPU {found.cost.cpu:.2f} s, "
            f"wall {found.cost.wall:.2f} s",
            file=sys.stderr,
            flush=True,
        )
    results = Results(measurements)
    print_measurements(results)
    print_ratios(results)
    document: dict[str, object] = {
        "machine": facts,
        "versions": {tool.name: tool.version for tool in tools},
        "measurements": [asdict(found) for found in measurements],
        "failed": len(results.failed()),
    }
    return document, paired_gates(results)


def _remote(
    work: Path, options: argparse.Namespace, scale: float, runs: int
) -> tuple[dict[str, object], list[Gate]]:
    tools = _tools(options)
    facts = machine()
    print_machine(facts, tools)
    usable = [tool for tool in tools if tool.usable]
    scenes, corpora = options.scenes.split(","), options.corpora.split(",")
    gates, measured = measure_remote(work, usable, scenes, corpora, scale=scale, runs=runs)
    document: dict[str, object] = {
        "machine": facts,
        "versions": {tool.name: tool.version for tool in tools},
        "measurements": {title: [asdict(one) for one in found] for title, found in measured.items()},
        "failed": sum(not one.succeeded for found in measured.values() for one in found),
    }
    return document, gates


def _tools(options: argparse.Namespace) -> list[Tool]:
    wanted = {"restic": restic(options.restic), "borg": borg(options.borg)}
    return [our_tool(), *(wanted[name] for name in options.peers.split(",") if name)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev.py bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="?", default="paired", choices=_WHAT, help="default: paired")
    add("--scale", type=float, default=1.0, help="size of what is measured, 1 is the size of the gates")
    add("--runs", type=int, default=3, help="paired runs; their median counts")
    add("--quick", action="store_true", help="one run of a fiftieth of the size: does it work at all?")
    add("--gates", action="store_true", help="end with 1 when a gate fails")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--work", metavar="DIR", help="work there and leave it; the corpus in it is used again")
    add("--peers", default="restic,borg", help="default: restic,borg; empty for none")
    add("--restic", default="restic", metavar="PROGRAM", help="the restic to compare with")
    add("--borg", default="borg", metavar="PROGRAM", help="the borg to compare with")
    add("--engines", default=",".join(ENGINES), help="of `databases`; default: %(default)s")
    add("--scenes", default=",".join(SCENES), help="of `remote`; default: %(default)s")
    add("--corpora", default=",".join(CORPORA), help="of `remote`; default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
