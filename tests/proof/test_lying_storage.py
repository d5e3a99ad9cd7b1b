"""A storage that says it stored what it did not, or tears it: never a snapshot that cannot be read."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError
from backup_admin.repository.chain import PREFIX as CHAIN
from backup_admin.repository.slots import PREFIX as SLOTS
from backup_admin.storage.local import LocalStorage
from tests.fakes import Act, Fault, FaultyStorage
from tests.proof.scenarios import SCENARIOS, Scenario, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.proof.site import Site

SPREAD = 14
TORN = (Act.TEAR, Act.LIE_TORN)
FAULTS = [
    *[("put", act) for act in (Act.FAIL, Act.LOSE_REPLY, Act.LIE, *TORN)],
    *[("delete", act) for act in (Act.FAIL, Act.LIE)],
    ("get", Act.LIE_TORN),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def act(scenario: Scenario, site: Site, *faults: Fault) -> FaultyStorage:
    storage = FaultyStorage(LocalStorage(site.objects), faults)
    with suppress(BackupAdminError):
        scenario.act(site, storage)
    return storage


def sweep(scenario: Scenario, root: Path, method: str, fault: Act, most: int) -> None:
    base = scenario.make(root / "base")
    calls = act(scenario, base.twin(root / "counted")).calls
    names = [name for called, name in calls if called == method]
    numbers = [
        number
        for number, name in enumerate(names, 1)
        # Half an entry in its place is damage to the history itself; see the tests of repair.
        if not (method == "put" and fault in TORN and name.startswith(CHAIN))
    ]
    for number in numbers[:: max(1, len(numbers) // most)]:
        site = base.twin(root / "site")
        done = act(scenario, site, Fault(method, number, fault)).calls
        # Half a slot opens nothing and harms nothing; a check goes on naming it.
        name = [name for called, name in done if called == method][number - 1]
        half_slot = name.removeprefix(SLOTS) if fault in TORN and name.startswith(SLOTS) else "\0"
        scenario.assert_nothing_lost(site, half_slot)
        scenario.assert_goes_on(site, half_slot)
        shutil.rmtree(site.root)


each_fault = pytest.mark.parametrize(("method", "fault"), FAULTS, ids=str)
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@each_fault
@each_scenario
def test_a_storage_that_lies_harms_no_snapshot(
    scenario: Scenario, method: str, fault: Act, tmp_path: Path
) -> None:
    sweep(scenario, tmp_path, method, fault, part_of(SPREAD, scenario))


@pytest.mark.long
@each_fault
@each_scenario
def test_a_storage_that_lies_at_any_call_harms_no_snapshot(
    scenario: Scenario, method: str, fault: Act, tmp_path: Path
) -> None:
    sweep(scenario, tmp_path, method, fault, 10_000)
