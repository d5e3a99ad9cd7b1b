"""A power cut after any call: whatever was reported done is still there and whole."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.storage.local import LocalStorage
from tests.proof.platter import Loss, Platter
from tests.proof.points import watched_calls
from tests.proof.scenarios import SCENARIOS, Scenario, part_of
from tests.proof.site import Site

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPREAD = 54


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: what a real disk would have made of it, the model knows."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Cutter:
    """Keeps what a power cut would leave at every so-manyth call of an operation."""

    def __init__(self, site: Site, target: Path, step: int) -> None:
        self._platter = Platter(site.root)
        self._target = target
        self._step = step
        self.seen = 0

    def call(self, name: str, arguments: Sequence[Any]) -> None:
        self._platter.after(name, arguments)
        self.seen += 1
        if self._step and self.seen % self._step == 0:
            for loss in Loss:
                self.cut(str(self.seen), loss)

    def cut(self, name: str, loss: Loss) -> None:
        target = self._target / f"{name} {loss}"
        self._platter.remains(target, loss, self.seen)


def run(scenario: Scenario, site: Site, target: Path, step: int) -> int:
    """Act, and keep what is left at some of the calls and after the last."""
    target.mkdir()
    cutter = Cutter(site, target, step)
    with watched_calls(cutter.call, after=True, opening=True):
        scenario.act(site, LocalStorage(site.objects))
        done = tuple(site.open().snapshot_ids())
    for loss in Loss:
        cutter.cut("end", loss)
    for loss in Loss:
        left = Site(target / f"end {loss}", site.home, dict(site.truths))
        assert tuple(left.open().snapshot_ids()) == done, loss
    return cutter.seen


def sweep(scenario: Scenario, root: Path, cuts: int) -> None:
    base = scenario.make(root / "base")
    calls = run(scenario, base.twin(root / "counted"), root / "ends", 0)
    run(scenario, base.twin(root / "site"), root / "left", max(1, calls // cuts))
    left = sorted((root / "left").iterdir())
    assert len(left) >= min(cuts, calls)
    for folder in left:
        site = Site(folder, base.home, dict(base.truths))
        scenario.assert_nothing_lost(site)
        scenario.assert_goes_on(site)
        shutil.rmtree(folder)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_was_reported_done_survives_a_power_cut(scenario: Scenario, tmp_path: Path) -> None:
    sweep(scenario, tmp_path, max(2, part_of(SPREAD, scenario) // len(Loss)))


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_was_reported_done_survives_a_power_cut_at_every_call(
    scenario: Scenario, tmp_path: Path
) -> None:
    sweep(scenario, tmp_path, 10_000)
