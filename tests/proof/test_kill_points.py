"""SIGKILL before and after every storage call and every change to a file: nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.proof.points import Points, watched_calls
from tests.proof.scenarios import SCENARIOS, Scenario, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.proof.site import Site

SPREAD = 210


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: what a killed process wrote is there all the same."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def die(_name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_in_child(scenario: Scenario, site: Site, chosen: int) -> int:
    """Act in a process of its own; return the places it passed, or -1 when it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            points = Points(die, chosen)
            storage = points.storage(site.objects)
            with watched_calls(lambda name, _arguments: points.pass_by(name), after=True, opening=True):
                scenario.act(site, storage)
            os.write(write, str(points.seen).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return -1
    assert status == 0
    return int(text)


def sweep(scenario: Scenario, root: Path, count: int) -> int:
    """Kill at so many places, all along; return how many there are."""
    base = scenario.make(root / "base")
    total = run_in_child(scenario, base.twin(root / "counted"), 0)
    killed = 0
    for number in range(min(count, total)):
        site = base.twin(root / "site")
        point = 1 + number * total // min(count, total)
        killed += run_in_child(scenario, site, point) == -1
        scenario.assert_nothing_lost(site)
        scenario.assert_goes_on(site)
        shutil.rmtree(site.root)
    assert killed >= min(count, total) * 0.9
    return total


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_anywhere_nothing_is_lost_and_the_next_run_succeeds(
    scenario: Scenario, tmp_path: Path
) -> None:
    sweep(scenario, tmp_path, part_of(SPREAD, scenario))


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_at_each_place_nothing_is_lost(scenario: Scenario, tmp_path: Path) -> None:
    sweep(scenario, tmp_path, 10_000)
