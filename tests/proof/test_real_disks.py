"""Real small disks: one that is full in earnest, and one whose image is copied at the power cut."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError
from backup_admin.storage.local import LocalStorage
from tests.fakes import FaultyStorage
from tests.proof.mounts import make_image, mounted, remount, skip_unless_mounts_work
from tests.proof.scenarios import SCENARIOS, Scenario
from tests.proof.site import Site

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_BYTES = 6 << 20
CUTS = 3
ROOMS_KIB = (0, 8, 24, 64, 1024)
PLENTY_KIB = 4096


def used_kib(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_disk_without_room_loses_nothing_and_works_again_with_room(
    scenario: Scenario, tmp_path: Path
) -> None:
    skip_unless_mounts_work(tmp_path / "probe", "tmpfs")
    base = scenario.make(tmp_path / "base")
    succeeded = []
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={PLENTY_KIB}k", "tmpfs") as disk:
        for room in ROOMS_KIB:
            site = base.twin(disk / "site")
            remount(disk, f"size={used_kib(disk) + room}k")
            with suppress(BackupAdminError, OSError):
                scenario.act(site, LocalStorage(site.objects))
                succeeded.append(room)
            remount(disk, f"size={PLENTY_KIB}k")
            scenario.assert_nothing_lost(site)
            scenario.assert_goes_on(site)
            shutil.rmtree(site.root)
    assert succeeded
    assert 0 not in succeeded


class Photographer:
    """Copies the image of a disk in use, as the disk would be found after a power cut."""

    def __init__(self, image: Path, target: Path, step: int) -> None:
        self._image = image
        self._target = target
        self._step = step
        self.seen = 0

    def after(self, _method: str, _name: str) -> None:
        self.seen += 1
        if self._step and self.seen % self._step == 0:
            shutil.copyfile(self._image, self._target / f"{self.seen:05d}.img")


@dataclass(frozen=True)
class Album:
    """What was done on a disk, with its copies on the way; the last is of when all was done."""

    site: Site
    snapshots: tuple[str, ...]
    images: list[Path]
    calls: int


def photograph(scenario: Scenario, root: Path, step: int) -> Album:
    """Act on a disk of its own and copy its image at every so-manyth storage call."""
    root.mkdir()
    image = root / "disk.img"
    make_image(image, IMAGE_BYTES)
    photographer = Photographer(image, root, step)
    with mounted(root / "disk", "-o", "loop", str(image)):
        base = scenario.make(root / "base")
        site = base.twin(root / "disk/site")
        os.sync()
        storage = FaultyStorage(LocalStorage(site.objects), after=photographer.after)
        scenario.act(site, storage)
        shutil.copyfile(image, root / "99999.img")
        done = tuple(site.open().snapshot_ids())
    images = sorted(path for path in root.glob("*.img") if path != image)
    return Album(site, done, images, photographer.seen)


def sweep(scenario: Scenario, root: Path, cuts: int) -> None:
    calls = photograph(scenario, root / "counted", 0).calls
    album = photograph(scenario, root / "run", max(1, calls // cuts))
    for image in album.images:
        with mounted(root / "copy", "-o", "loop", str(image)) as disk:
            left = Site(disk / "site", album.site.home, dict(album.site.truths))
            scenario.assert_nothing_lost(left)
            if image is album.images[-1]:
                assert tuple(left.open().snapshot_ids()) == album.snapshots
            scenario.assert_goes_on(left)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_disk_image_copied_at_any_storage_call_holds_all_that_was_done(
    scenario: Scenario, tmp_path: Path
) -> None:
    skip_unless_mounts_work(tmp_path / "probe", "ext4")
    sweep(scenario, tmp_path, CUTS)


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_disk_image_copied_at_each_storage_call_holds_all_that_was_done(
    scenario: Scenario, tmp_path: Path
) -> None:
    skip_unless_mounts_work(tmp_path / "probe", "ext4")
    sweep(scenario, tmp_path, 10_000)
