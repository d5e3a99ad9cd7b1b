"""What may be interrupted: operations that change a repository, each with how to prepare and judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.proof.site import Site, change_files, make_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.storage.base import Storage


@dataclass(frozen=True)
class Scenario:
    """One operation. `act` may be called again after it was interrupted anywhere.

    `doomed` are how many of the oldest snapshots the operation is allowed to take away. `share`
    is how often it is tried in comparison with the others.
    """

    name: str
    act: Callable[[Site, Storage], None]
    prepare: Callable[[Site], None] = lambda _site: None
    snapshots: int = 2
    doomed: int = 0
    share: float = 1.0

    def make(self, root: Path) -> Site:
        """Make the place in which the operation is to run."""
        site = make_site(root, snapshots=self.snapshots)
        self.prepare(site)
        return site

    def must_stay(self, site: Site) -> tuple[str, ...]:
        """Return the snapshots that no interruption may take away."""
        return tuple(site.truths)[self.doomed : self.snapshots]


def _change(site: Site) -> None:
    change_files(site.files, 7)


def _back_up(site: Site, storage: Storage) -> None:
    site.back_up(storage)


def _back_up_with_database(site: Site, storage: Storage) -> None:
    site.back_up(storage, database=True)


def _forget_oldest(site: Site, storage: Storage) -> None:
    repository = site.open(storage)
    oldest = next(iter(site.truths))
    if oldest in repository.snapshot_ids():
        repository.record("forget", {"ids": [oldest]}, actor="proof")


BACKUP = Scenario("backup", _back_up, _change)
BACKUP_WITH_DATABASE = Scenario("backup with a database", _back_up_with_database, _change, share=0.4)
FORGET = Scenario("forget", _forget_oldest, snapshots=3, doomed=1)

SCENARIOS = (BACKUP, BACKUP_WITH_DATABASE, FORGET)


def part_of(count: int, scenario: Scenario) -> int:
    """Return how many of so many trials one scenario gets."""
    return max(1, round(count * scenario.share / sum(each.share for each in SCENARIOS)))
