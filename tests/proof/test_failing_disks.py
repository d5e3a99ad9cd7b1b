"""A disk that is full or fails at any call: a clear error, nothing lost, and success once it works again."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.errors import BackupAdminError, StorageFull
from backup_admin.storage.local import LocalStorage
from tests.proof.points import OPENING, watched_calls
from tests.proof.scenarios import SCENARIOS, Scenario, Told, part_of
from tests.proof.site import Site

if TYPE_CHECKING:
    from collections.abc import Sequence


FULL_CALLS = (OPENING, "write", "pwrite", "link", "mkdir", "rename", "replace", "symlink")
SPREAD = 16


@dataclass
class Disk:
    """Fails the chosen call below a folder, and all that follow when it stays so; zero only counts."""

    below: Path
    calls: Sequence[str]
    error: int
    stays: bool
    chosen: int = 0
    seen: int = 0
    failed: list[str] = field(default_factory=list)

    def before(self, name: str, arguments: Sequence[Any]) -> None:
        if name not in self.calls or not self._path(arguments[0]).startswith(f"{self.below}/"):
            return
        self.seen += 1
        if self.chosen and (self.seen == self.chosen or (self.stays and self.seen > self.chosen)):
            self.failed.append(self._path(arguments[0]))
            raise OSError(self.error, os.strerror(self.error), str(arguments[0]))

    def _path(self, place: Any) -> str:
        path = Path(f"/proc/self/fd/{place}").readlink() if isinstance(place, int) else os.fspath(place)
        return os.fsdecode(path)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, in which of the two folders, and whether it stays so."""

    where: str
    calls: tuple[str, ...]
    error: int
    stays: bool

    def disk(self, site: Site, chosen: int) -> Disk:
        return Disk(site.root / self.where, self.calls, self.error, stays=self.stays, chosen=chosen)


def act(scenario: Scenario, site: Site, disk: Disk) -> None:
    with watched_calls(disk.before, opening=True):
        scenario.act(site, LocalStorage(site.objects))


def may_be_unsaid(scenario: Scenario, disk: Disk) -> bool:
    return scenario.unsaid is not None and all(scenario.unsaid[0] in path for path in disk.failed)


def try_each(scenario: Scenario, root: Path, fault: Fault, most: int) -> list[str]:
    """Let calls in turn fail; return where the operation did not say so, or not as our errors do."""
    base = scenario.make(root / "base")
    counted = fault.disk(base.twin(root / "counted"), 0)
    act(scenario, Site(root / "counted", base.home, dict(base.truths)), counted)
    wrong = []
    for chosen in range(1, counted.seen + 1, max(1, counted.seen // most)):
        site = base.twin(root / "site")
        disk = fault.disk(site, chosen)
        try:
            act(scenario, site, disk)
            if disk.seen < chosen:
                break  # threads and random keys move the number of calls by a few
            if fault.where == "objects" and not may_be_unsaid(scenario, disk):
                wrong.append(f"call {chosen} failed at {disk.failed} and nobody was told")
        except BackupAdminError as failure:
            if fault == FULL and not isinstance(failure, StorageFull | Told):
                wrong.append(f"call {chosen}: {failure!r} does not say that the disk is full")
        except OSError as failure:
            # The state folder is the caller's own: the system's error passes through.
            if fault.where == "objects":
                wrong.append(f"call {chosen}: {failure!r} is no error of ours")
        assert disk.failed
        scenario.assert_nothing_lost(site)
        scenario.assert_goes_on(site)
        shutil.rmtree(site.root)
    return wrong


FULL = Fault("objects", FULL_CALLS, errno.ENOSPC, stays=True)
FULL_FOR_A_MOMENT = Fault("objects", FULL_CALLS, errno.ENOSPC, stays=False)
CANNOT_SYNC = Fault("objects", ("fsync",), errno.EIO, stays=False)
STATE_IS_FULL = Fault("state", FULL_CALLS, errno.ENOSPC, stays=True)
STATE_CANNOT_SYNC = Fault("state", ("fsync",), errno.EIO, stays=False)
FAULTS = {
    "full": FULL,
    "full for a moment": FULL_FOR_A_MOMENT,
    "cannot sync": CANNOT_SYNC,
    "state is full": STATE_IS_FULL,
    "state cannot sync": STATE_CANNOT_SYNC,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_disk_that_fails_is_told_of_and_harms_nothing(
    scenario: Scenario, fault: Fault, tmp_path: Path
) -> None:
    assert try_each(scenario, tmp_path, fault, part_of(SPREAD, scenario)) == []


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_disk_that_fails_at_any_call_harms_nothing(
    scenario: Scenario, fault: Fault, tmp_path: Path
) -> None:
    assert try_each(scenario, tmp_path, fault, 10_000) == []
