"""Lists that are late or leave things out: nothing is called missing, and nothing needed is deleted."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.progress import QuietReporter
from backup_admin.operations.check import check_repository
from tests.factories import open_test_repository
from tests.unit.operations.test_prune import Site, assert_whole, days, run_prune, site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.storage.base import Buffer, ObjectInfo, PutResult, Storage

__all__ = ["site"]


class LateLists:
    """Hands calls on; its lists show what was put, and lack what was deleted, only some calls later."""

    def __init__(self, inner: Storage, calls: int) -> None:
        self.inner = inner
        self.label = inner.label
        self._calls = calls
        self._now = 0
        self._put: dict[str, int] = {}
        self._deleted: dict[str, tuple[ObjectInfo, int]] = {}

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        self._put[name] = self._now
        return self.inner.put(name, data, if_absent=if_absent)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name, offset, length)

    def stat(self, name: str) -> ObjectInfo | None:
        return self.inner.stat(name)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        self._now += 1
        there = {info.name: info for info in self.inner.list_objects(prefix) if self._shows(info.name)}
        for name, (info, since) in self._deleted.items():
            if name.startswith(prefix) and since + self._calls > self._now:
                there.setdefault(name, info)
        yield from (there[name] for name in sorted(there))

    def delete(self, name: str) -> None:
        info = self.inner.stat(name)
        if info is not None:
            self._deleted[name] = (info, self._now)
        self.inner.delete(name)

    def _shows(self, name: str) -> bool:
        return self._put.get(name, -self._calls) + self._calls <= self._now


class HalfLists(LateLists):
    """Leaves half of what is there out of each list, another half each time."""

    def __init__(self, inner: Storage, seed: int) -> None:
        super().__init__(inner, 0)
        self._chance = random.Random(seed)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from (info for info in self.inner.list_objects(prefix) if self._chance.random() < 0.5)


@pytest.mark.parametrize("calls", [1, 3, 50])
def test_late_lists_lose_nothing(site: Site, calls: int) -> None:
    late = LateLists(site.storage, calls)
    for number in range(3):
        made = days_through(site, late, number)
        if number:
            site.forget(made)
        run_prune(late, site.folder / "state")

    assert_whole(site.storage, site.folder / "out", site.held)


@pytest.mark.parametrize("seed", range(8))
def test_half_lists_lose_nothing(site: Site, seed: int) -> None:
    half = HalfLists(site.storage, seed)
    snapshots = days(site, 4)
    site.forget(*snapshots[:2])

    run_prune(half, site.folder / "state")
    site.back_up(half)
    run_prune(half, site.folder / "state")

    assert_whole(site.storage, site.folder / "out", site.held)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_list_leaves_out_is_not_called_missing(site: Site, seed: int, tmp_path: Path) -> None:
    days(site, 3)

    repository = open_test_repository(HalfLists(site.storage, seed), tmp_path / "other")
    report = check_repository(repository, read_data=True, reporter=QuietReporter())

    assert report.problems == ()


def days_through(site: Site, storage: Storage, number: int) -> SnapshotId:
    site.files.joinpath(f"day-{number}.bin").write_bytes(bytes([number]) * 30_000)
    return site.back_up(storage)
