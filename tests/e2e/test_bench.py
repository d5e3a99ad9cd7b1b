"""The benchmark measures what it says, at a scale that takes seconds."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import backup_admin
from bench.corpus import make_corpus, next_day, one_photo
from bench.gates import Gate, Results, cpu, paired_gates
from bench.measuring import Cost, run_measured
from bench.paired import Measurement, different_files
from bench.photo_database import change_photos, changed_pages, make_photos
from bench.readiness import compile_modules
from bench.tools import OURS, Phase, Tool, our_tool

ROOT = Path(__file__).parents[2]
TINY = 0.002


def measured(
    run: int, tool: str, phase: Phase, seconds: float, *, stored: int = 0, code: int = 0
) -> Measurement:
    return Measurement(run, tool, phase, Cost(code, seconds, 2 * seconds, 100 << 20), stored)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)


def test_our_modules_are_compiled_before_they_are_measured() -> None:
    compiled = Path(importlib.util.cache_from_source(backup_admin.__file__))
    compiled.unlink(missing_ok=True)

    compile_modules()

    assert compiled.exists()


def test_the_paired_benchmark_runs_every_phase_and_restores_right(tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    arguments = ("--scale", str(TINY), "--runs", "1", "--peers", "", "--json", str(out))
    done = bench(*arguments, "--work", str(tmp_path / "work"))

    document = json.loads(out.read_text())
    found = document["measurements"]
    assert done.returncode == 0
    assert [one["phase"] for one in found] == [phase.value for phase in Phase]
    failed = [one for one in found if one["cost"]["code"] or one["wrong_files"]]
    assert failed == [], done.stdout + (tmp_path / "work/log.txt").read_text()
    assert {gate["name"]: gate["passed"] for gate in document["gates"]}["unchanged: bytes stored"]


@pytest.mark.parametrize("what", ["startup", "index", pytest.param("million", marks=pytest.mark.long)])
def test_a_single_question_is_answered(tmp_path: Path, what: str) -> None:
    done = bench(what, "--scale", "0.0005", "--json", str(tmp_path / "out.json"))

    assert done.returncode == 0, done.stdout + done.stderr
    gates = json.loads((tmp_path / "out.json").read_text())["gates"]
    assert all(gate["measured"] is not None for gate in gates)


@pytest.mark.long(minutes=1)
def test_the_database_benchmark_compares_what_it_restores(tmp_path: Path) -> None:
    arguments = (
        "--scale",
        str(TINY),
        "--runs",
        "1",
        "--engines",
        "sqlite",
        "--json",
        str(tmp_path / "out.json"),
    )
    done = bench("databases", *arguments)

    assert done.returncode == 0, done.stdout + done.stderr
    gates = {gate["name"]: gate for gate in json.loads((tmp_path / "out.json").read_text())["gates"]}
    assert gates["SQLite, day 2: bytes stored / bytes of changed pages"]["measured"] > 0
    assert gates["SQLite, first backup: peak memory, MiB"]["passed"]


def test_changed_pages_of_a_database_are_counted(tmp_path: Path) -> None:
    make_photos(tmp_path / "one.db", 5_000, random.Random(1))
    shutil.copy(tmp_path / "one.db", tmp_path / "two.db")
    unchanged = changed_pages(tmp_path / "one.db", tmp_path / "two.db")
    data = bytearray((tmp_path / "two.db").read_bytes())
    data[5 * 4096 + 10] ^= 1
    (tmp_path / "two.db").write_bytes(data + bytes(4096))

    assert unchanged == (0, 4096)
    assert changed_pages(tmp_path / "one.db", tmp_path / "two.db") == (2, 4096)


def test_a_day_of_photographs_changes_as_many_rows_as_it_says(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos.db", 2_000, random.Random(1))
    before = rows_of(tmp_path / "photos.db")

    change_photos(tmp_path / "photos.db", 0.01, random.Random(2))

    after = rows_of(tmp_path / "photos.db")
    assert len(after.keys() - before.keys()) == 50
    assert len(before.keys() - after.keys()) == 4
    assert sum(before[key] != after[key] for key in before.keys() & after.keys()) == 9


def rows_of(path: Path) -> dict[int, tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return {row[0]: row for row in db.execute("SELECT * FROM photos")}


def test_the_corpus_is_the_same_every_time_and_changes_as_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_corpus(tmp_path / name, TINY)
    unchanged = different_files(tmp_path / "one", tmp_path / "two")

    counts = next_day(tmp_path / "one")

    logs_database_and_export = 5
    touched = counts["changed"] + counts["added"] + counts["removed"] + 2 * counts["renamed"]
    assert unchanged == 0
    assert different_files(tmp_path / "one", tmp_path / "two") == touched + logs_database_and_export
    assert (tmp_path / "one" / one_photo(tmp_path / "one")).is_file()


def test_a_command_is_charged_for_its_children(tmp_path: Path) -> None:
    hungry = "data = bytearray(80 << 20); sum(range(3_000_000))"
    command = f"{sys.executable} -c '{hungry}'; exit 3"

    cost = run_measured(command, folder=tmp_path, env={}, log=tmp_path / "log")

    assert cost.code == 3
    assert cost.cpu > 0.01
    assert cost.memory > 80 << 20


def test_a_command_is_not_charged_for_what_the_benchmark_holds(tmp_path: Path) -> None:
    held = bytearray(b"x") * (200 << 20)

    cost = run_measured("sleep 0.2", folder=tmp_path, env={}, log=tmp_path / "log")

    assert 0 < cost.memory < len(held) // 4


def test_gates_judge_medians_of_paired_ratios() -> None:
    seconds = {0: (1.0, 4.0), 1: (9.0, 10.0), 2: (1.0, 4.0)}
    results = Results(
        [
            measured(run, tool, Phase.FIRST, figure, stored=1000)
            for run, pair in seconds.items()
            for tool, figure in zip((OURS, "restic"), pair, strict=True)
        ]
        + [measured(0, tool, Phase.UNCHANGED, 1, stored=1000) for tool in (OURS, "restic")]
        + [measured(0, OURS, Phase.DAY_2, 1, stored=1040), measured(0, "restic", Phase.DAY_2, 1, stored=1100)]
    )

    gates = {gate.name: gate for gate in paired_gates(results)}

    assert gates["first: CPU / restic"] == Gate("first: CPU / restic", 0.25, 0.50)
    assert gates["first: CPU / restic"].passed
    assert not gates["unchanged: CPU / restic"].passed
    assert gates["day_2: growth / restic"].measured == pytest.approx(0.4)
    assert not gates["restore: peak memory, MiB"].passed  # not measured


def test_a_failed_command_gives_no_ratio() -> None:
    results = Results([measured(0, OURS, Phase.FIRST, 1, code=3), measured(0, "restic", Phase.FIRST, 4)])

    assert results.ratio(Phase.FIRST, "restic", cpu) is None
    assert len(results.failed()) == 1


@pytest.mark.parametrize(
    ("name", "version", "usable"),
    [
        ("borg", "borg 1.4.5", True),
        ("borg", "borg 1.2.4", False),
        ("restic", "restic 0.14.0 compiled with go1.19.8", True),
        ("restic", "restic 0.9.6", False),
        ("restic", "", False),
    ],
)
def test_a_peer_that_is_missing_or_too_old_is_not_compared(name: str, version: str, *, usable: bool) -> None:
    assert Tool(name, version, {}, "").usable is usable


def test_our_commands_fill_every_phase() -> None:
    assert set(our_tool().commands) == set(Phase)
