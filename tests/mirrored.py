"""Mirrors of small repositories, and what changes a repository between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.forget import forget_named
from backup_admin.operations.mirror import MirrorOptions, MirrorReport, mirror
from backup_admin.operations.mirror_plan import MirrorPlan, plan_mirror
from backup_admin.operations.prune import PruneOptions, prune
from tests.factories import CLOCK, SECRET, noise, write_tree

if TYPE_CHECKING:
    from backup_admin.storage.base import Storage
    from tests.keyed import Site


def keep(
    source: Storage,
    target: Storage,
    plan: MirrorPlan | None = None,
    *,
    keep_removed: bool = False,
    read_back: bool = False,
    remove_all: bool = False,
    state: StateFolder | None = None,
) -> MirrorReport:
    """Bring a mirror up to date, by a plan made before or now."""
    options = MirrorOptions(keep_removed=keep_removed, read_back=read_back, remove_all=remove_all)
    plan = plan or plan_mirror(source, target)
    return mirror(source, target, plan, reporter=QuietReporter(), state=state, options=options)


def contents(storage: Storage) -> dict[str, bytes]:
    """Return every object."""
    return {info.name: storage.get(info.name) for info in storage.list_objects("")}


def back_up_more(site: Site, number: int, storage: Storage | None = None) -> str:
    """Add a file and back up; the first file of before is gone."""
    write_tree(site.root, {f"more-{number}.bin": noise(150_000, seed=number)})
    for old in site.root.glob(f"more-{number - 1}.bin"):
        old.unlink()
    snapshot = site.back_up(storage)
    if storage is None:
        site.snapshots.append(snapshot)
    return snapshot


def forget(site: Site, snapshot: str) -> None:
    """Take a snapshot off the list."""
    repository = site.open()
    found = repository.find_snapshot(snapshot).id
    forget_named(repository, [found], force=True, actor="tests", clock=CLOCK)
    if snapshot in site.snapshots:
        site.snapshots.remove(snapshot)


def collect(site: Site, storage: Storage | None = None) -> None:
    """Delete what no snapshot needs."""
    prune(
        site.open(storage, SECRET),
        PruneOptions(max_unused_percent=0),
        actor="tests",
        state=StateFolder(site.state),
        reporter=QuietReporter(),
        clock=CLOCK,
    )
