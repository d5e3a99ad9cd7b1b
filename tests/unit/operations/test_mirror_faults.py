"""Whatever ends a mirror, it is a repository as before or none yet, and the next call finishes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError, Cancelled
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.mirror import mirror
from backup_admin.operations.mirror_plan import plan_mirror
from backup_admin.storage.memory import MemoryStorage
from tests.factories import OTHER_SECRET
from tests.fakes import Act, Fault, FaultyStorage, clone
from tests.keyed import Site, make_site, sweep
from tests.mirrored import back_up_more, collect, contents, forget, keep

if TYPE_CHECKING:
    from pathlib import Path

READS = 5


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path, snapshots=2)


def seen_as(site: Site, storage: MemoryStorage, snapshots: list[str]) -> Site:
    """Return the mirror as a site of its own, of which these snapshots must be read."""
    return Site(storage, site.state.parent / "elsewhere", site.root, snapshots)


def is_whole(mirrored: Site, storage: MemoryStorage) -> bool:
    mirrored.forget_head()
    return mirrored.reads_all(storage, OTHER_SECRET)


def test_a_first_mirror_that_ends_anywhere_is_none_or_whole_and_the_next_call_finishes(site: Site) -> None:
    place = seen_as(site, MemoryStorage("mirror"), site.snapshots)
    wanted = contents(site.storage)
    states = set()

    for point, left in sweep(place, lambda target: keep(site.storage, target), every=READS):
        is_made = left.stat("config") is not None
        assert not is_made or is_whole(place, left), point
        assert keep(site.storage, left).ok, point
        assert contents(left) == wanted, point
        states.add(is_made)

    assert states == {False, True}


def test_a_later_mirror_that_ends_anywhere_is_an_older_repository_and_the_next_call_finishes(
    site: Site,
) -> None:
    third = back_up_more(site, 1)
    made = MemoryStorage("mirror")
    keep(site.storage, made)
    kept = [one for one in site.snapshots if one != third]
    back_up_more(site, 2)
    forget(site, third)
    collect(site)
    place = seen_as(site, made, kept)
    wanted = contents(site.storage)

    for point, left in sweep(place, lambda target: keep(site.storage, target), every=READS):
        assert is_whole(place, left), point
        assert keep(site.storage, left, remove_all=True).ok, point
        assert contents(left) == wanted, point


@pytest.mark.parametrize("method", ["get", "stat", "list"])
def test_a_source_that_fails_at_any_call_takes_nothing_from_the_mirror(site: Site, method: str) -> None:
    third = back_up_more(site, 1)
    made = MemoryStorage("mirror")
    keep(site.storage, made)
    back_up_more(site, 2)
    forget(site, third)
    collect(site)
    place = seen_as(site, made, site.snapshots[:2])
    counting = FaultyStorage(site.storage)
    keep(counting, clone(made))

    for number in range(1, counting.counts()[method] + 1):
        left = clone(made)
        with suppress(BackupAdminError):
            keep(FaultyStorage(site.storage, (Fault(method, number, Act.FAIL),)), left)
        assert is_whole(place, left), number
        keep(site.storage, left, remove_all=True)
        assert contents(left) == contents(site.storage), number


@pytest.mark.parametrize("number", range(1, 12))
@pytest.mark.parametrize("act", [Act.LIE, Act.LIE_TORN])
def test_a_target_that_lies_about_a_put_is_found_out(site: Site, act: Act, number: int) -> None:
    made = MemoryStorage("mirror")
    counting = FaultyStorage(MemoryStorage("counting"))
    keep(site.storage, counting)
    if number > counting.counts()["put"]:
        return

    with pytest.raises(BackupAdminError):
        keep(site.storage, FaultyStorage(made, (Fault("put", number, act),)))
    assert keep(site.storage, made).ok
    assert contents(made) == contents(site.storage)


def test_who_asks_to_stop_is_heard_between_two_objects(site: Site) -> None:
    class Stopping(QuietReporter):
        def check_cancelled(self) -> None:
            raise Cancelled("Stopped as asked.")

    made = MemoryStorage("mirror")
    plan = plan_mirror(site.storage, made)

    with pytest.raises(Cancelled):
        mirror(site.storage, made, plan, reporter=Stopping())

    assert contents(made) == {}
    assert keep(site.storage, made).ok
